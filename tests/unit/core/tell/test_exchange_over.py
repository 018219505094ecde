"""The end of an exchange: what is reported, and in which order."""

from __future__ import annotations

from cleanclose.core import ClientDeparted, Event, Facts, Settings, UpstreamReset, Watch, Witness
from cleanclose.core.counters import Counters
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.places import Places
from cleanclose.core.events import UploadDrained
from cleanclose.core.server import UNKNOWN
from cleanclose.core.setup import Setup
from cleanclose.core.tell.reporter import Reporter


class Upload(Watch):
    body_complete = False
    expected_in = 1000
    code: int | None = None

    @property
    def status(self) -> int | None:
        return self.code

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="POST")


def reported_to(events: list[Event]) -> Setup:
    return Setup(
        settings=Settings(),
        places=Places(4),
        reporter=Reporter([events.append], counters=Counters()),
    )


def test_an_early_response_comes_before_an_error_and_covers_the_departure() -> None:
    events: list[Event] = []
    setup, watch = reported_to(events), Upload(1.0)
    watch.delivery = setup.begin_delivery(
        watch, 1.5, server=UNKNOWN, connection=Connection(), headers={}
    )
    watch.delivery.response_started(413, None, 2.0)
    watch.delivery.response_completed(2.0)
    watch.peer_gone(Witness.SOCKET, 3.0)
    end = setup.reporter.exchange_over(watch, 4.0, ConnectionResetError(104, "the broker's"))
    assert [type(event) for event in events] == [UploadDrained, UpstreamReset]
    assert end.conduct.told


def test_without_one_a_departure_is_an_event_of_its_own() -> None:
    events: list[Event] = []
    watch = Upload(1.0)
    watch.peer_gone(Witness.SOCKET, 3.0)
    setup = reported_to(events)
    setup.reporter.exchange_over(watch, 4.0)
    setup.reporter.exchange_over(watch, 5.0)
    assert [type(event) for event in events] == [ClientDeparted]
