"""How long a body is drained: the choice, and who keeps to it, without an exchange around them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.patience import (
    MUCH_FRAMING,
    SHORT_WAIT,
    SMALL_REMAINDER,
    Connection,
    Drain,
    Patience,
    patience_for,
)
from cleanclose.core.events import Cap
from cleanclose.core.settings import Settings

MIB = 1 << 20


def choose(
    connection: Connection,
    left: int | None,
    *,
    settings: Settings | None = None,
    awaits_continue: bool = False,
    only_worker: bool = False,
    take_place: Callable[[], bool] = lambda: True,
) -> Patience:
    return patience_for(
        connection,
        settings or Settings(),
        left=left,
        awaits_continue=awaits_continue,
        only_worker=only_worker,
        take_place=take_place,
    )


@pytest.mark.parametrize("left", [None, 1, MIB])
@pytest.mark.parametrize(
    "connection",
    [
        Connection(lingers=True),
        Connection(lingers=True, proxied=True),
        Connection(lingers=True, blocking=True),
        Connection(multiplexed=True),
        Connection(),
    ],
)
def test_a_client_that_waits_for_a_100_is_never_read_from(
    connection: Connection, left: int | None
) -> None:
    for settings in (Settings(), Settings(respond_after=2)):
        assert choose(connection, left, settings=settings, awaits_continue=True) is Patience.NONE


@pytest.mark.parametrize(
    ("connection", "left", "asks"),
    [
        (Connection(lingers=True), MIB, False),
        (Connection(lingers=True), None, False),
        (Connection(lingers=True, blocking=True), 1, False),
        (Connection(lingers=True), 1, True),
        (Connection(lingers=True, proxied=True), MIB, True),
        (Connection(multiplexed=True), MIB, True),
    ],
)
def test_a_place_is_taken_only_for_who_waits(
    connection: Connection, left: int | None, asks: bool
) -> None:
    asked: list[None] = []

    def take() -> bool:
        asked.append(None)
        return True

    choose(connection, left, take_place=take)
    assert bool(asked) is asks


def test_no_place_is_asked_for_where_the_user_wants_no_waiting() -> None:
    def take() -> bool:
        raise AssertionError("a place was asked for")

    settings = Settings(respond_after=0)
    assert choose(Connection(), MIB, settings=settings, take_place=take) is Patience.NONE


def draining(patience: Patience, *, length: int = MIB, **settings: float) -> Drain:
    drain = Drain(Settings(**settings), length=length, received=0, started=0.0)  # type: ignore[arg-type]
    drain.patience = patience
    drain.begin(10.0)
    return drain


def test_a_piece_that_comes_keeps_silence_away_and_an_empty_one_does_not() -> None:
    drain = draining(Patience.DUE, length=CHUNKED, idle_seconds=5, max_seconds=60)
    drain.arrived(100_000, 14.0, unwanted=True)
    drain.arrived(0, 17.0, unwanted=True)
    assert drain.limit_reached(18.9) is None
    assert drain.limit_reached(19.0) is Cap.IDLE_SECONDS


def test_what_the_application_reads_is_not_drained() -> None:
    drain = draining(Patience.DUE)
    drain.arrived(1000, 11.0, unwanted=False)
    assert (drain.received, drain.drained) == (1000, 0)


@pytest.mark.parametrize(("length", "received"), [(1000, 1000), (CHUNKED, 5000)])
def test_what_the_server_has_taken_is_no_more_than_the_body(length: int, received: int) -> None:
    drain = draining(Patience.NONE, length=length)
    drain.taken_by_server(5000)
    assert (drain.received, drain.drained) == (received, received)
    assert drain.all_received is (length == 1000)


def test_a_worker_that_is_killed_drains_for_half_of_its_time() -> None:
    drain = Drain(
        Settings(max_seconds=60), length=CHUNKED, received=0, started=0.0, worker_timeout=30
    )
    drain.patience = Patience.DUE
    drain.begin(1.0)
    drain.arrived(SMALL_REMAINDER, 14.9, unwanted=True)
    assert drain.limit_reached(14.9) is None
    assert drain.limit_reached(15.0) is Cap.MAX_SECONDS


@pytest.mark.parametrize(("drained", "due"), [(MIB // 8, True), (MIB // 16, False)])
def test_an_end_that_the_rate_does_not_reach_is_not_waited_for(drained: int, due: bool) -> None:
    """1 MiB within 10 s of draining: after 1.25 s an eighth of it must be there."""
    drain = draining(Patience.DUE, max_seconds=10)
    drain.arrived(drained, 11.25, unwanted=True)
    assert drain.is_due(11.25) is due


def test_before_the_rate_says_anything_it_is_not_asked() -> None:
    drain = draining(Patience.DUE, max_seconds=10)
    assert drain.is_due(10.9)
    assert drain.wait(10.0) == 1.0


def draining_chunks(patience: Patience, settings: Settings | None = None) -> Drain:
    drain = Drain(settings or Settings(), length=CHUNKED, received=0, started=0.0)
    drain.patience = patience
    drain.begin(0.0)
    return drain


def test_what_never_stops_arriving_is_read_for_a_moment() -> None:
    drain = draining_chunks(Patience.ARRIVED)
    drain.arrived(1, 0.0, unwanted=True)
    assert drain.limit_reached(SHORT_WAIT - 0.01) is None
    assert drain.limit_reached(SHORT_WAIT) is Cap.MAX_SECONDS


def test_what_has_arrived_is_counted_on_the_wire() -> None:
    drain = draining_chunks(Patience.ARRIVED)
    drain.on_wire(SMALL_REMAINDER, 10)
    assert drain.limit_reached(0.0) is None
    drain.on_wire(SMALL_REMAINDER + 1, 10)
    assert drain.limit_reached(0.0) is Cap.MAX_BYTES


@pytest.mark.parametrize("patience", [Patience.DUE, Patience.SET])
def test_the_limit_in_bytes_is_the_wires(patience: Patience) -> None:
    drain = draining_chunks(patience, Settings(max_bytes=MIB))
    drain.on_wire(MIB - 1, MIB - 10)
    assert drain.limit_reached(0.0) is None
    drain.on_wire(MIB, MIB - 10)
    assert drain.limit_reached(0.0) is Cap.MAX_BYTES


@pytest.mark.parametrize(
    ("wire", "body", "too_much"),
    [
        (MUCH_FRAMING, 0, False),
        (MUCH_FRAMING + 1, 0, True),
        # A chunk for each byte: five bytes of framing.
        (60 * MIB, 10 * MIB, False),
        (600 * MIB, 10 * MIB, True),
    ],
)
def test_framing_without_end_is_not_waited_for(wire: int, body: int, too_much: bool) -> None:
    drain = draining_chunks(Patience.DUE)
    drain.on_wire(wire, body)
    assert drain.limit_reached(0.0) is (Cap.MAX_BYTES if too_much else None)
