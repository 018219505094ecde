"""How a delivery begins: what the request says, and what is known of its peer by then."""

from __future__ import annotations

import pytest

from cleanclose.core import Facts, Mechanism, Settings, Watch, Witness
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.patience import Patience
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.table import Done, Read, Respond
from cleanclose.core.server import Continue, Server
from cleanclose.core.setup import Setup
from cleanclose.core.tell.reporter import Reporter

LAZY = Server("lazy", Continue.LAZY)
CLIENT = "192.0.2.1"
DIRECT = Connection(in_reach=True)


class Upload(Watch):
    """A request of which a part has come."""

    body_complete = False
    bytes_in = 10

    def __init__(self, length: int | None) -> None:
        super().__init__(1.0)
        self.expected_in = length

    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="POST", client=CLIENT)


def begin(
    watch: Watch,
    headers: dict[str, str] | None = None,
    *,
    connection: Connection = DIRECT,
    places: Places | None = None,
) -> Exchange:
    setup = Setup(settings=Settings(), places=places or Places(4), reporter=Reporter([]))
    exchange = setup.begin_delivery(
        watch, 2.0, server=LAZY, connection=connection, headers=headers or {}
    )
    exchange.response_started(413, 0, 2.0)
    return exchange


def test_the_watch_knows_its_delivery() -> None:
    watch = Upload(100)
    exchange = begin(watch)
    assert watch.delivery is exchange
    watch.peer_gone(Witness.STREAM, 2.0, mechanism=Mechanism.EOF)
    assert not exchange.may_read


def test_a_small_rest_of_a_direct_client_is_drained() -> None:
    exchange = begin(Upload(100))
    assert isinstance(exchange.response_completed(2.0), Read)
    assert exchange.patience is Patience.SHORT
    exchange.body_received(90, True, 2.1)
    event = exchange.event(2.1)
    assert event is not None
    assert (event.expected_in, event.bytes_in, event.drained) == (100, 100, 90)


def test_a_body_without_a_length_is_one_that_only_its_end_ends() -> None:
    exchange = begin(Upload(None))
    exchange.response_completed(2.0)
    assert exchange.patience is Patience.ARRIVED
    assert exchange.frames_unseen


@pytest.mark.parametrize(
    ("headers", "connection"),
    [({"via": "1.1 proxy"}, DIRECT), ({}, Connection(in_reach=True, proxied=True))],
)
def test_a_proxy_shows_by_the_headers_or_by_the_connection(
    headers: dict[str, str], connection: Connection
) -> None:
    exchange = begin(Upload(1 << 20), headers, connection=connection)
    exchange.response_completed(2.0)
    assert exchange.patience is Patience.DUE


def test_a_place_is_taken_in_the_clients_name() -> None:
    places = Places(2)
    begin(Upload(100), places=places).response_completed(2.0)
    assert not places.take(CLIENT)
    assert places.take("192.0.2.2")


@pytest.mark.parametrize(
    ("via", "has_read", "waits"),
    [(None, False, True), (None, True, False), ("1.1 Caddy", False, False)],
)
def test_who_waits_for_a_100(via: str | None, has_read: bool, waits: bool) -> None:
    watch = Upload(100)
    watch.has_read = has_read
    exchange = begin(watch, {"expect": "100-continue", **({"via": via} if via else {})})
    assert exchange.may_read is not waits
    assert isinstance(exchange.response_completed(2.0), Respond if waits else Read)


def test_a_peer_that_has_left_gets_no_delivery() -> None:
    watch = Upload(100)
    watch.peer_gone(Witness.SOCKET, 1.5, mechanism=Mechanism.RESET)
    exchange = begin(watch)
    assert isinstance(exchange.response_completed(2.0), Done)
    assert not exchange.early


def test_a_body_whose_reading_has_failed_gets_none() -> None:
    watch = Upload(100)
    watch.read_error = ConnectionResetError()
    exchange = begin(watch)
    assert not exchange.may_read
    exchange.response_completed(2.0)
    assert not exchange.early


def test_a_new_middleware_has_places_of_its_own() -> None:
    reporter = Reporter([])
    setup = Setup.of(Settings(max_draining=3), reporter)
    assert (setup.places.most, setup.reporter) == (3, reporter)
    assert Setup.of(setup.settings, reporter).places is not setup.places


def test_what_an_application_wants_left_alone_gets_none() -> None:
    watch = Upload(100)
    watch.left_alone = True
    assert isinstance(begin(watch).response_completed(2.0), Done)


def test_a_body_that_nobody_can_read_without_waiting_gets_none() -> None:
    exchange = begin(Upload(100), connection=Connection(in_reach=True, readable=False))
    assert isinstance(exchange.response_completed(2.0), Done)


@pytest.mark.parametrize("blocking", [False, True])
def test_where_a_worker_waits_its_server_keeps_some_for_others(blocking: bool) -> None:
    places = Places(4)
    begin(Upload(100), connection=Connection(blocking=blocking, threads=2), places=places)
    assert places.most == (1 if blocking else 4)
