"""The end of a websocket: what its code says, and whose an exception is that follows from it."""

from __future__ import annotations

from typing import Final

import pytest
from starlette.websockets import WebSocketDisconnect

from cleanclose.core import ClientDeparted, Facts, Mechanism, Phase, Side
from cleanclose.core.blame.websockets import Closing, WebSocketEnd, read_close

LOST: Final = 1005
"""uvicorn's and granian's code for a lost connection."""


@pytest.mark.parametrize(
    ("code", "explained", "closing"),
    [
        (None, False, Closing(in_order=False)),
        (1006, False, Closing(in_order=False)),
        (1006, True, Closing(in_order=False)),
        (1012, False, Closing(in_order=False, stopping=True)),
        (1012, True, Closing(in_order=False)),
        (LOST, False, Closing(in_order=False)),
        (LOST, True, Closing(in_order=True)),
        (1000, False, Closing(in_order=True)),
        (3001, True, Closing(in_order=True)),
    ],
)
def test_what_a_code_says(code: int | None, explained: bool, closing: Closing) -> None:
    assert read_close(code, explained=explained, lost_code=LOST) == closing


class Socket(WebSocketEnd):
    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="WEBSOCKET")


IN_ORDER: Final = Closing(in_order=True)


def test_who_vanishes_has_departed() -> None:
    watch = Socket(1.0)
    watch.disconnected(Closing(in_order=False), 2.0, late=False)
    (event,) = watch.app_ended(3.0).events
    assert isinstance(event, ClientDeparted)
    assert (event.verdict.side, event.verdict.phase) == (Side.CLIENT, Phase.WEBSOCKET)


def test_a_server_that_stops_is_the_servers_side() -> None:
    watch = Socket(1.0)
    watch.disconnected(Closing(in_order=False, stopping=True), 2.0, late=False)
    assert watch.departure is not None
    assert watch.departure.side is Side.SERVER


def test_who_says_goodbye_has_not_departed() -> None:
    watch = Socket(1.0)
    watch.disconnected(IN_ORDER, 2.0, late=False)
    assert watch.app_ended(3.0).events == ()


def test_an_application_that_did_not_expect_it_raises_the_clients_exception() -> None:
    watch = Socket(1.0)
    watch.disconnected(IN_ORDER, 2.0, late=False)
    end = watch.app_ended(3.0, WebSocketDisconnect())
    (event,) = end.events
    assert isinstance(event, ClientDeparted)
    assert event.verdict.mechanism is Mechanism.EOF
    assert end.conduct.quiet


def test_an_applications_own_exception_stays_its_own() -> None:
    watch = Socket(1.0)
    watch.disconnected(IN_ORDER, 2.0, late=False)
    end = watch.app_ended(3.0, ValueError())
    assert end.events == ()
    assert not end.conduct.quiet


def test_behind_the_applications_own_end_a_goodbye_proves_nothing() -> None:
    watch = Socket(1.0)
    watch.response_completed()
    watch.disconnected(IN_ORDER, 2.0, late=False)
    assert watch.judge(WebSocketDisconnect()).side is Side.UNKNOWN


def test_work_stops_for_who_said_goodbye_and_before_that_for_nobody() -> None:
    watch = Socket(1.0)
    assert not watch.may_stop()
    asked: list[bool] = []
    watch.write_stops().ask(lambda: asked.append(watch.may_stop()))
    assert asked == []
    watch.disconnected(IN_ORDER, 2.0, late=False)
    assert asked == [True]


def test_nor_does_it_for_who_says_goodbye_behind_the_applications_own_end() -> None:
    watch = Socket(1.0)
    stops = watch.write_stops()
    watch.response_completed()
    watch.disconnected(IN_ORDER, 2.0, late=False)
    assert not stops.gone
    assert not watch.may_stop()


def test_who_has_vanished_has_not_said_goodbye() -> None:
    watch = Socket(1.0)
    watch.disconnected(Closing(in_order=False), 2.0, late=False)
    end = watch.app_ended(3.0, WebSocketDisconnect())
    (event,) = end.events
    assert isinstance(event, ClientDeparted)
    # The moment is known: nobody was asked late.
    assert event.wasted_seconds == 1.0
    assert end.conduct.quiet


def test_the_moment_of_a_goodbye_is_not_that_of_a_departure() -> None:
    watch = Socket(1.0)
    watch.disconnected(IN_ORDER, 2.0, late=False)
    (event,) = watch.app_ended(3.0, WebSocketDisconnect()).events
    assert isinstance(event, ClientDeparted)
    assert event.wasted_seconds is None


def test_when_the_exchange_is_over_a_goodbye_proves_nothing_any_more() -> None:
    watch = Socket(1.0)
    watch.disconnected(IN_ORDER, 2.0, late=False)
    assert watch.judge(WebSocketDisconnect()).side is Side.CLIENT
    watch.app_ended(3.0)
    assert watch.judge(WebSocketDisconnect()).side is Side.UNKNOWN
