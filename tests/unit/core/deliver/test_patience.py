"""How long a body is drained: the choice, and who keeps to it, without an exchange around them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.patience import (
    ASK_STOPPING,
    LOOK,
    MIN_RATE_GRACE,
    MUCH_FRAMING,
    RATE_GRACE,
    SHORT_WAIT,
    SMALL_REMAINDER,
    Connection,
    Drain,
    Patience,
    patience_for,
    turn_of,
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
        Connection(in_reach=True),
        Connection(in_reach=True, proxied=True),
        Connection(in_reach=True, blocking=True),
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
        (Connection(in_reach=True), MIB, False),
        (Connection(in_reach=True), None, False),
        (Connection(in_reach=True, blocking=True), 1, False),
        (Connection(in_reach=True), 1, True),
        (Connection(in_reach=True, proxied=True), MIB, True),
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


LINGERS = Connection(in_reach=True)
PROXIED = Connection(in_reach=True, proxied=True)
WORKER = Connection(in_reach=True, proxied=True, blocking=True)


@pytest.mark.parametrize(
    ("connection", "left", "place", "none_left"),
    [
        (LINGERS, SMALL_REMAINDER, Patience.SHORT, Patience.ARRIVED),
        (LINGERS, SMALL_REMAINDER + 1, Patience.NONE, Patience.NONE),
        (LINGERS, None, Patience.ARRIVED, Patience.ARRIVED),
        (Connection(in_reach=True, blocking=True), 1, Patience.ARRIVED, Patience.ARRIVED),
        (PROXIED, MIB, Patience.DUE, Patience.NONE),
        (WORKER, MIB, Patience.DUE, Patience.ARRIVED),
        (Connection(multiplexed=True), MIB, Patience.DUE, Patience.NONE),
        (Connection(blocking=True), MIB, Patience.DUE, Patience.NONE),
        (Connection(in_reach=True, framed=False), 1, Patience.NONE, Patience.NONE),
    ],
)
def test_the_choice_with_a_place_and_without(
    connection: Connection, left: int | None, place: Patience, none_left: Patience
) -> None:
    assert choose(connection, left) is place
    assert choose(connection, left, take_place=lambda: False) is none_left


def test_the_only_worker_of_its_process_waits_a_moment() -> None:
    settings = Settings(respond_after=2)
    for each in (None, settings):
        chosen = choose(WORKER, MIB, settings=each, only_worker=True, take_place=lambda: False)
        assert chosen is Patience.SHORT
    assert choose(LINGERS, MIB, settings=settings) is Patience.SET
    assert choose(LINGERS, MIB, settings=settings, take_place=lambda: False) is Patience.NONE


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


def test_what_was_taken_before_the_draining_does_not_count() -> None:
    drain = draining_chunks(Patience.ARRIVED)
    drain.counted(MIB)
    drain.arrived(10, 0.0, unwanted=True)
    drain.counted(MIB + SMALL_REMAINDER)
    assert drain.limit_reached(0.0) is None
    drain.counted(MIB + SMALL_REMAINDER + 1)
    assert drain.limit_reached(0.0) is Cap.MAX_BYTES


@pytest.mark.parametrize(
    ("seconds", "turn"), [(0.0, LOOK), (0.1, 0.1), (ASK_STOPPING * 2, ASK_STOPPING)]
)
def test_no_call_of_a_drain_waits_for_long(seconds: float, turn: float) -> None:
    assert turn_of(seconds) == turn


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


@pytest.mark.parametrize(
    ("patience", "now", "seconds"),
    [
        (Patience.NONE, 10.0, 0.0),
        (Patience.ARRIVED, 10.0, 0.0),
        (Patience.SHORT, 10.0, SHORT_WAIT),
        (Patience.SHORT, 10.25, SHORT_WAIT - 0.25),
        (Patience.SHORT, 12.0, 0.0),
        # Until somebody has to ask whether the end is due; later, until silence is too long.
        (Patience.DUE, 10.25, RATE_GRACE - 0.25),
        (Patience.DUE, 10.0 + RATE_GRACE, 4.0 - RATE_GRACE),
        (Patience.DUE, 14.5, 0.0),
        (Patience.SET, 10.0, 3.0),
        (Patience.SET, 12.0, 1.0),
    ],
)
def test_how_long_the_next_piece_is_waited_for(
    patience: Patience, now: float, seconds: float
) -> None:
    drain = draining(patience, idle_seconds=4, max_seconds=20, respond_after=3)
    assert drain.wait(now) == seconds


def test_silence_ends_what_a_user_has_set_as_well() -> None:
    drain = draining(Patience.SET, idle_seconds=4, respond_after=8)
    assert drain.wait(11.0) == 3.0
    assert drain.limit_reached(13.9) is None
    assert drain.limit_reached(14.0) is Cap.IDLE_SECONDS


@pytest.mark.parametrize(
    ("patience", "seconds"), [(Patience.SHORT, SHORT_WAIT), (Patience.DUE, 20.0)]
)
def test_time_is_over_at_its_last_moment_and_not_before(patience: Patience, seconds: float) -> None:
    drain = draining(patience, idle_seconds=60, max_seconds=20, min_rate=0)
    assert drain.limit_reached(10.0 + seconds - 0.001) is None
    assert drain.limit_reached(10.0 + seconds) is Cap.MAX_SECONDS


def test_a_body_that_has_come_whole_is_within_the_limit_in_bytes() -> None:
    drain = draining(Patience.DUE, length=1000, max_bytes=1000)
    drain.arrived(999, 11.0, unwanted=True)
    assert drain.limit_reached(11.0) is None
    drain.arrived(1, 11.0, unwanted=True)
    assert drain.limit_reached(11.0) is None
    more = draining(Patience.DUE, length=1001, max_bytes=1000)
    more.arrived(1000, 11.0, unwanted=True)
    assert more.limit_reached(11.0) is Cap.MAX_BYTES


@pytest.mark.parametrize(
    ("drained", "now", "cap"),
    [
        (0, 10.0 + MIN_RATE_GRACE - 0.1, None),
        (0, 10.0 + MIN_RATE_GRACE, Cap.MIN_RATE),
        # 800 bytes are eight seconds' worth of 100 bytes each.
        (800, 17.9, None),
        (800, 18.0, Cap.MIN_RATE),
    ],
)
def test_who_is_slower_than_the_lowest_rate_is_cut(
    drained: int, now: float, cap: Cap | None
) -> None:
    drain = draining(Patience.DUE, idle_seconds=60, max_seconds=60, min_rate=100)
    drain.arrived(drained, 11.0, unwanted=True)
    assert drain.limit_reached(now) is cap


@pytest.mark.parametrize("patience", [Patience.DUE, Patience.SET])
def test_without_a_lowest_rate_or_with_a_users_own_time_nobody_is_too_slow(
    patience: Patience,
) -> None:
    rate = 0 if patience is Patience.DUE else 100
    drain = draining(patience, idle_seconds=60, max_seconds=60, respond_after=60, min_rate=rate)
    assert drain.limit_reached(50.0) is None


@pytest.mark.parametrize(
    ("patience", "grace"), [(Patience.DUE, RATE_GRACE), (Patience.SHORT, SHORT_WAIT / 5)]
)
def test_when_the_grace_is_over_the_rate_counts(patience: Patience, grace: float) -> None:
    drain = draining(patience)
    assert drain.is_due(10.0 + grace - 0.001)
    assert not drain.is_due(10.0 + grace)


@pytest.mark.parametrize("patience", [Patience.NONE, Patience.ARRIVED, Patience.SET])
def test_only_who_waits_for_an_end_asks_whether_it_is_due(patience: Patience) -> None:
    assert draining(patience).is_due(15.0)
    assert draining(Patience.DUE, length=CHUNKED).is_due(15.0)


@pytest.mark.parametrize(("received", "due"), [(600, True), (599, False)])
def test_the_rate_since_the_requests_start_counts(received: int, due: bool) -> None:
    """1,000 bytes by 20.0: at 12.0, 600 in 12 s are enough for 400 in 8 s."""
    drain = draining(Patience.DUE, length=1000, max_seconds=10)
    drain.arrived(received, 12.0, unwanted=False)
    assert drain.is_due(12.0) is due


@pytest.mark.parametrize(("drained", "due"), [(200, True), (199, False)])
def test_so_does_the_rate_of_the_drain_alone(drained: int, due: bool) -> None:
    """1,000 bytes by 20.0: at 12.0, 200 in 2 s are enough for 800 in 8 s."""
    drain = draining(Patience.DUE, length=1000, max_seconds=10)
    drain.arrived(drained, 12.0, unwanted=True)
    assert drain.is_due(12.0) is due
