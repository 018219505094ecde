"""The exchange's rules, one by one, with a clock that the test holds."""

from __future__ import annotations

import dataclasses
import errno
import gc
import weakref
from typing import Any

import pytest

from cleanclose.core import (
    CHUNKED,
    TORNADO,
    TRANSITIONS,
    UNKNOWN,
    Cap,
    Connection,
    Continue,
    Done,
    Exchange,
    Facts,
    Forward,
    Happening,
    Hold,
    Keep,
    Mechanism,
    Outcome,
    Places,
    Read,
    Respond,
    Server,
    Settings,
    State,
    UploadDrained,
)

EAGER = Server("eager", Continue.EAGER)
ENDS_AT_LENGTH = Server("ends at length", Continue.LAZY, ends_at_length=True)
END_WAITS = Server("end waits", Continue.EAGER, end_waits=True)
FACTS = Facts(framework="asgi", server="uvicorn", method="POST")
LONG = 1000


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


def exchange(
    settings: Settings | None = None,
    *,
    length: int = LONG,
    places: Places | None = None,
    server: Server = TORNADO,
    expects: bool = False,
    **more: Any,
) -> Exchange:
    return Exchange(
        settings or Settings(),
        places or Places(reading=10, inside=10),
        server=server,
        facts=FACTS,
        length=length,
        expects_continue=expects,
        wake=lambda: None,
        now=0.0,
        **more,
    )


def refused(settings: Settings | None = None, **more: Any) -> Exchange:
    """An exchange whose application has answered at 0.0 without reading."""
    ex = exchange(settings, **more)
    ex.response_started(413, 3, 0.0)
    ex.response_completed(0.0, 3)
    return ex


def event_of(ex: Exchange, now: float = 1.0) -> UploadDrained:
    event = ex.event(now)
    assert event is not None
    return event


def test_a_body_that_ends_soon_is_drained_before_the_response() -> None:
    ex = exchange()
    assert ex.response_started(413, 3, 0.0) == Keep(0.5)
    assert ex.response_completed(0.1, 3) == Read(0.5)
    assert ex.body_received(400, False, 0.2) == Read(about(0.4))
    assert ex.body_received(600, True, 0.3) == Done(close=False)
    event = event_of(ex)
    assert event.outcome is Outcome.DELIVERED
    assert (event.status, event.drained, event.bytes_in, event.expected_in) == (
        413,
        1000,
        1000,
        LONG,
    )


def test_a_body_that_does_not_is_drained_behind_it() -> None:
    ex = refused(Settings(min_rate=0))
    assert ex.tick(0.5) == Respond(close=True)
    assert ex.responded(0.5) == Read(5.0)
    assert ex.body_received(999, False, 3.0) == Read(5.0)
    assert ex.body_received(1, True, 4.0) == Done(close=True)
    assert event_of(ex).outcome is Outcome.DELIVERED


def test_what_the_application_has_read_is_not_drained() -> None:
    ex = exchange()
    assert ex.app_read(0.0) == Forward()
    assert ex.body_received(300, False, 0.0) == Forward()
    ex.response_started(413, None, 0.0)
    ex.response_completed(0.0, 3)
    ex.body_received(700, True, 0.1)
    event = event_of(ex)
    assert (event.bytes_in, event.drained) == (1000, 700)


def test_a_body_that_was_read_leaves_nothing_to_do() -> None:
    ex = exchange()
    ex.app_read(0.0)
    assert ex.body_received(LONG, True, 0.0) == Forward()
    assert ex.response_started(200, 2, 0.0) == Forward()
    assert ex.response_piece(2, 0.0) == Forward()
    assert ex.response_completed(0.0) == Done(close=False)
    assert ex.event(1.0) is None


@pytest.mark.parametrize(
    ("setting", "cap", "at"),
    [
        ({"idle_seconds": 2.0}, Cap.IDLE_SECONDS, 2.5),
        ({"max_seconds": 3.0}, Cap.MAX_SECONDS, 3.0),
        ({"idle_seconds": 60.0, "max_seconds": 60.0}, Cap.MIN_RATE, 5.0),
    ],
)
def test_the_limits_in_time(setting: dict[str, float], cap: Cap, at: float) -> None:
    settings: Any = setting
    ex = refused(Settings(**settings))
    ex.tick(0.5)
    step = ex.responded(0.5)
    assert step == Read(about(at - 0.5))
    assert isinstance(ex.tick(at - 0.01), Read)
    assert ex.tick(at) == Hold(0.5)
    assert ex.tick(at + 0.5) == Done(close=True)
    event = event_of(ex, at + 0.5)
    assert (event.outcome, event.cap) == (Outcome.CUT, cap)


def test_an_upload_that_moves_is_not_idle() -> None:
    ex = refused(length=CHUNKED)
    ex.tick(0.5)
    ex.responded(0.5)
    for second in range(1, 29):
        assert isinstance(ex.body_received(10_000, False, float(second)), Read)
    assert ex.tick(30.0) == Hold(0.5)
    assert event_of(ex).cap is Cap.MAX_SECONDS


def test_a_trickle_is_too_slow() -> None:
    ex = refused(length=CHUNKED)
    ex.tick(0.5)
    ex.responded(0.5)
    for second in range(1, 5):
        assert isinstance(ex.body_received(239, False, float(second)), Read)
    assert ex.body_received(239, False, 5.0) == Hold(0.5)
    assert event_of(ex).cap is Cap.MIN_RATE


def test_a_rate_of_0_turns_the_floor_off() -> None:
    ex = refused(Settings(min_rate=0, idle_seconds=100, max_seconds=100))
    ex.tick(0.5)
    assert ex.responded(0.5) == Read(about(99.5))


def test_max_bytes_in_the_drain_responds_and_holds() -> None:
    ex = refused(Settings(max_bytes=100))
    assert ex.body_received(100, False, 0.1) == Respond(close=True)
    assert ex.responded(0.25) == Hold(0.5)
    assert ex.tick(0.75) == Done(close=True)
    assert (event_of(ex).cap, event_of(ex).status) == (Cap.MAX_BYTES, 413)


@pytest.mark.parametrize(("length", "cut"), [(99, False), (100, False), (101, True)])
def test_bodies_at_the_limit(length: int, cut: bool) -> None:
    ex = refused(Settings(max_bytes=100), length=length)
    ex.body_received(min(length, 100), False, 0.1)
    assert (event_of(ex).cap is Cap.MAX_BYTES) is cut


def test_the_end_of_a_chunked_body_at_the_limit_is_looked_for() -> None:
    ex = refused(Settings(max_bytes=100), length=CHUNKED)
    assert isinstance(ex.body_received(100, False, 0.1), Read)
    assert ex.body_received(0, True, 0.1) == Done(close=False)


def test_a_client_may_wait_for_the_end_of_a_response_without_a_length() -> None:
    ex = exchange()
    ex.response_started(413, None, 0.0)
    ex.response_completed(0.0, 3)
    ex.tick(0.5)
    assert ex.responded(0.5) == Read(1.0)


def test_without_a_body_limit_of_its_own_nothing_is_read() -> None:
    ex = exchange(Settings(max_bytes=0))
    ex.response_started(413, 3, 0.0)
    ex.response_completed(0.0, 3)
    assert ex.tick(0.0) == Respond(close=True)


def test_a_streaming_response_is_never_held_up() -> None:
    ex = exchange()
    assert ex.response_started(200, None, 0.0) == Keep(0.5)
    assert ex.response_piece(5, 0.1) == Respond(close=False)
    assert ex.responded(0.1) == Forward()
    assert ex.response_piece(5, 9.0) == Forward()
    # Its end is, when the body is unread.
    assert ex.response_completed(9.0) == Respond(close=False)
    assert ex.responded(9.0) == Read(1.0)


def test_an_application_that_reads_gets_its_response_out_first() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    assert ex.app_read(0.1) == Respond(close=False)
    assert ex.responded(0.1) == Forward()


def test_a_head_without_a_body_is_kept_for_respond_after_at_most() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    assert ex.tick(0.5) == Respond(close=False)


def test_the_piece_that_reaches_the_length_is_kept_until_the_last_word() -> None:
    ex = exchange()
    ex.response_started(413, 3, 0.0)
    assert ex.response_piece(3, 0.0) == Keep(0.5)
    assert ex.response_completed(0.0) == Read(0.5)


def test_the_opt_out() -> None:
    ex = exchange()
    ex.leave_alone()
    assert ex.response_started(413, 3, 0.0) == Forward()
    assert ex.response_completed(0.0, 3) == Done(close=False)
    assert ex.event(1.0) is None


@pytest.mark.parametrize(("status", "treated"), [(413, True), (401, False)])
def test_only_statuses(status: int, treated: bool) -> None:
    ex = exchange(Settings(only_statuses={413}))
    ex.response_started(status, 3, 0.0)
    ex.response_completed(0.0, 3)
    assert ex.treated is treated


@pytest.mark.parametrize("size", [2, 4])
def test_a_response_of_another_length_than_it_said_is_the_servers_to_complain_of(
    size: int,
) -> None:
    ex = exchange()
    ex.response_started(413, 3, 0.0)
    assert ex.response_completed(0.0, size) == Done(close=False)


def test_a_body_that_is_all_there_needs_no_last_word() -> None:
    ex = exchange()
    ex.app_read(0.0)
    ex.body_received(LONG, False, 0.0)
    ex.response_started(200, 3, 0.0)
    assert ex.response_completed(0.0, 3) == Done(close=False)
    assert ex.event(1.0) is None


def test_a_response_that_the_server_could_not_send_was_not_delivered() -> None:
    ex = refused()
    ex.body_received(LONG, True, 0.1)
    ex.response_lost()
    assert (event_of(ex).outcome, event_of(ex).status) == (Outcome.UNKNOWN, None)


@pytest.mark.parametrize(
    ("error", "mechanism"),
    [
        (ConnectionResetError(errno.ECONNRESET, "x"), Mechanism.RESET),
        (BrokenPipeError(errno.EPIPE, "x"), Mechanism.BROKEN_PIPE),
        (ConnectionAbortedError(errno.ECONNABORTED, "x"), Mechanism.ABORTED),
        (TimeoutError(), Mechanism.TIMEOUT),
        (OSError("without a number"), Mechanism.UNKNOWN),
        (None, Mechanism.UNKNOWN),
    ],
    ids=repr,
)
def test_mechanisms(error: Exception | None, mechanism: Mechanism) -> None:
    assert Mechanism.of(error) is mechanism
    if error is not None:
        ex = refused()
        ex.reading_failed(error, 0.1)
        assert event_of(ex).mechanism is mechanism


def test_what_is_no_error_of_the_connection_is_one_of_the_body() -> None:
    ex = refused()
    ex.reading_failed(ValueError("chunk"), 0.1)
    assert event_of(ex).cap is Cap.MALFORMED


def test_switching_protocols_is_left_alone() -> None:
    ex = exchange()
    ex.response_started(101, None, 0.0)
    assert ex.response_completed(0.0) == Done(close=False)


class TestExpect:
    """Expect: 100-continue, not answered: never drain first, never a 100 behind the response."""

    def test_lazy_servers_respond_at_once_and_wait_only_briefly(self) -> None:
        ex = refused(expects=True)
        assert ex.step(0.0) == Respond(close=True)
        assert ex.responded(0.0) == Read(0.5)
        assert ex.tick(0.5) == Hold(0.5)
        assert ex.tick(1.0) == Done(close=True)
        assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.UNKNOWN, None)

    def test_a_client_that_did_not_wait_is_drained(self) -> None:
        ex = refused(Settings(min_rate=0), expects=True)
        ex.responded(0.0)
        assert ex.body_received(500, False, 0.3) == Read(5.0)
        assert ex.body_received(500, True, 0.4) == Done(close=True)
        assert event_of(ex).outcome is Outcome.DELIVERED

    def test_servers_that_send_it_late_are_not_read_from(self) -> None:
        ex = refused(expects=True, server=UNKNOWN)
        assert ex.step(0.0) == Respond(close=True)
        assert ex.responded(0.0) == Done(close=True)
        assert event_of(ex).cap is Cap.EXPECT

    def test_eager_servers_have_sent_it_so_the_body_comes(self) -> None:
        ex = refused(expects=True, server=EAGER)
        assert ex.step(0.0) == Read(0.5)
        ex.tick(0.5)
        # It may take its time: the whole idle limit.
        assert ex.responded(0.5) == Read(about(4.5))

    def test_an_application_that_has_read_has_caused_it(self) -> None:
        ex = exchange(expects=True)
        ex.app_read(0.0)
        ex.response_started(413, 3, 0.0)
        assert ex.response_completed(0.0, 3) == Read(0.5)


class TestPlaces:
    """Many at once: all are answered, some read."""

    def test_waiting_for_a_turn(self) -> None:
        places = Places(reading=1, inside=2)
        first, second = refused(places=places), refused(places=places)
        assert isinstance(first.step(0.0), Read)
        assert second.step(0.0) == Respond(close=True)
        assert second.responded(0.0) == Hold(30.0)
        first.body_received(LONG, True, 10.0)
        # Its time begins with its turn: nobody is cut for being one of many.
        assert second.tick(10.0) == Read(5.0)
        assert second.body_received(LONG, True, 10.5) == Done(close=True)
        assert event_of(second).outcome is Outcome.DELIVERED

    def test_waiting_ends_too(self) -> None:
        places = Places(reading=1, inside=2)
        _, second = refused(places=places), refused(places=places)
        second.responded(0.0)
        assert second.tick(30.0) == Done(close=True)
        assert event_of(second).cap is Cap.MAX_SECONDS

    def test_past_the_limit_the_newest_is_answered_and_closed(self) -> None:
        places = Places(reading=1, inside=1)
        _, second = refused(places=places), refused(places=places)
        assert second.step(0.0) == Respond(close=True)
        assert second.responded(0.0) == Done(close=True)
        assert event_of(second).cap is Cap.MAX_LINGERING
        assert event_of(second).status == 413

    def test_who_holds_does_not_read(self) -> None:
        places = Places(reading=1, inside=2)
        first = refused(Settings(max_bytes=1), places=places)
        first.body_received(1, False, 0.0)
        assert isinstance(refused(places=places).step(0.0), Read)

    def test_a_worker_that_holds_turns_nobody_away(self) -> None:
        places = Places.for_workers(2, most=100)
        first = refused(Settings(max_bytes=1), places=places, blocking=True)
        first.body_received(1, False, 0.0)
        assert isinstance(refused(places=places, blocking=True).step(0.0), Read)

    def test_the_place_is_free_in_the_end(self) -> None:
        places = Places(reading=1, inside=1)
        for _ in range(5):
            ex = refused(places=places)
            assert isinstance(ex.step(0.0), Read)
            ex.body_received(LONG, True, 0.0)


class TestDepartures:
    """The peer leaves while its early response is being delivered."""

    @pytest.mark.parametrize(
        ("mechanism", "outcome"),
        [
            (Mechanism.EOF, Outcome.DELIVERED),
            (Mechanism.RESET, Outcome.RESET),
            (Mechanism.UNKNOWN, Outcome.UNKNOWN),
        ],
    )
    def test_behind_the_response(self, mechanism: Mechanism, outcome: Outcome) -> None:
        ex = refused()
        ex.tick(0.5)
        ex.responded(0.5)
        assert ex.peer_gone(mechanism, 0.6) == Done(close=True)
        event = event_of(ex)
        assert (event.outcome, event.mechanism, event.status) == (outcome, mechanism, 413)

    def test_before_the_response(self) -> None:
        ex = refused()
        assert ex.peer_gone(Mechanism.EOF, 0.1) == Done(close=False)
        event = event_of(ex)
        assert (event.outcome, event.status) == (Outcome.UNKNOWN, None)

    def test_a_body_without_sense_ends_the_connection(self) -> None:
        ex = refused()
        assert ex.body_malformed(0.1) == Respond(close=True)
        assert ex.responded(0.1) == Done(close=True)
        assert event_of(ex).cap is Cap.MALFORMED

    def test_a_cancelled_task_lets_go(self) -> None:
        ex = refused()
        assert ex.abandoned(0.1) == Respond(close=True)
        assert ex.responded(0.1) == Done(close=True)
        assert event_of(ex).cap is Cap.APPLICATION

    def test_nothing_is_read_from_a_peer_that_left_before_the_answer(self) -> None:
        ex = exchange()
        ex.app_read(0.0)
        ex.peer_gone(Mechanism.RESET, 0.1)
        ex.response_started(500, 3, 0.2)
        assert ex.response_completed(0.2, 3) == Done(close=False)
        assert ex.event(1.0) is None

    def test_nothing_is_read_behind_a_body_without_sense(self) -> None:
        ex = exchange()
        ex.app_read(0.0)
        ex.body_malformed(0.1)
        ex.response_started(400, 3, 0.2)
        assert ex.response_completed(0.2, 3) == Done(close=False)

    def test_while_the_application_is_at_work_it_is_not_our_business(self) -> None:
        ex = exchange()
        assert ex.peer_gone(Mechanism.RESET, 0.1) == Forward()
        assert ex.event(1.0) is None


ARRIVED = Connection(unacked=0)
UNDER_WAY = Connection(unacked=200)


def lingering(settings: Settings | None = None, **more: Any) -> Exchange:
    """One whose response went out at 0.5."""
    ex = refused(settings or Settings(min_rate=0), **more)
    ex.tick(0.5)
    ex.responded(0.5)
    return ex


class TestTheKernelsWord:
    """Where the client's socket is in reach, the kernel tells what has arrived."""

    def test_it_has_arrived_and_the_peer_has_stopped(self) -> None:
        ex = lingering()
        asked_before = ex.asks_kernel
        assert ex.connection_state(ARRIVED, 0.6) == Read(about(4.9))
        assert (asked_before, ex.asks_kernel) == (True, False)
        # A silence is not known to be the end before the idle limit; but nobody need be stopped.
        assert ex.connection_state(ARRIVED, 5.5) == Done(close=True)
        event = event_of(ex)
        assert (event.outcome, event.cap, event.unacked) == (Outcome.DELIVERED, None, 0)

    @pytest.mark.negative_control
    def test_without_it_the_same_silence_is_cut_at_the_idle_limit(self) -> None:
        ex = lingering()
        assert ex.connection_state(None, 0.6) == Read(about(4.9))
        assert ex.connection_state(None, 1.6) == Read(about(3.9))
        assert ex.connection_state(None, 5.5) == Hold(0.5)
        event = event_of(ex)
        assert (event.outcome, event.cap, event.unacked) == (
            Outcome.CUT,
            Cap.IDLE_SECONDS,
            None,
        )

    def test_what_has_not_arrived_is_asked_for_again(self) -> None:
        ex = lingering()
        assert ex.connection_state(UNDER_WAY, 0.5) == Read(1.0)
        assert ex.connection_state(UNDER_WAY, 1.5) == Read(1.0)
        assert ex.connection_state(ARRIVED, 2.5) == Read(3.0)

    def test_what_does_not_arrive_is_cut(self) -> None:
        ex = lingering()
        for second in (0.5, 1.5, 2.5, 3.5, 4.5):
            assert isinstance(ex.connection_state(UNDER_WAY, second), Read)
        assert ex.connection_state(UNDER_WAY, 5.5) == Hold(0.5)
        event = event_of(ex)
        assert (event.outcome, event.cap, event.unacked) == (Outcome.CUT, Cap.IDLE_SECONDS, 200)

    def test_what_the_server_still_has_has_not_arrived(self) -> None:
        ex = lingering()
        ex.connection_state(ARRIVED, 0.6, buffered=True)
        assert ex.asks_kernel

    def test_what_was_there_before_the_last_piece_says_nothing_about_it(self) -> None:
        ex = exchange(Settings(min_rate=0))
        ex.response_started(413, 6, 0.0)
        ex.response_piece(3, 0.0)
        ex.responded(0.0)
        assert ex.response_completed(1.0, 3) == Respond(close=False)
        ex.connection_state(ARRIVED, 1.0)
        assert ex.asks_kernel
        ex.responded(1.0)
        assert ex.asks_kernel

    def test_who_sends_on_has_not_stopped(self) -> None:
        ex = lingering()
        ex.connection_state(ARRIVED, 0.6)
        for tenth in range(6, 30):
            assert isinstance(ex.body_received(10, False, tenth / 10), Read)
        assert ex.connection_state(ARRIVED, 3.0) == Read(about(4.9))

    def test_a_cap_is_one_all_the_same(self) -> None:
        ex = lingering(Settings(min_rate=0, max_bytes=100))
        ex.connection_state(ARRIVED, 0.6)
        assert ex.body_received(100, False, 0.7) == Hold(0.5)
        ex.connection_state(ARRIVED, 1.2)
        event = event_of(ex)
        assert (event.outcome, event.cap, event.unacked) == (Outcome.CUT, Cap.MAX_BYTES, 0)

    def test_the_idle_limit_is_the_longest_silence_on_a_blocking_server_too(self) -> None:
        ex = lingering(Settings.for_blocking(min_rate=0), blocking=True)
        ex.connection_state(ARRIVED, 0.6)
        assert ex.connection_state(ARRIVED, 1.5) == Done(close=True)
        assert event_of(ex).outcome is Outcome.DELIVERED

    def test_a_client_that_kept_to_its_expect_has_its_answer(self) -> None:
        ex = refused(expects=True)
        ex.responded(0.0)
        ex.connection_state(ARRIVED, 0.1)
        assert ex.connection_state(ARRIVED, 0.5) == Done(close=True)
        assert event_of(ex).outcome is Outcome.DELIVERED

    @pytest.mark.parametrize("unacked", [0, 200])
    def test_a_reset_ends_it_before_it_is_read(self, unacked: int) -> None:
        ex = lingering()
        assert ex.connection_state(Connection(unacked=unacked, reset=True), 0.6) == Done(close=True)
        event = event_of(ex)
        assert (event.outcome, event.mechanism) == (Outcome.RESET, Mechanism.RESET)
        assert event.unacked == unacked

    def test_a_reset_ends_the_drain(self) -> None:
        ex = refused()
        assert ex.connection_state(Connection(unacked=0, reset=True), 0.1) == Done(close=False)
        event = event_of(ex)
        assert (event.outcome, event.status, event.unacked) == (Outcome.RESET, None, None)

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (ARRIVED, Outcome.DELIVERED),
            (UNDER_WAY, Outcome.UNKNOWN),
            (Connection(unacked=200, reset=True), Outcome.RESET),
            (None, Outcome.DELIVERED),
        ],
        ids=str,
    )
    def test_an_end_in_good_order_and_what_had_arrived(
        self, state: Connection | None, outcome: Outcome
    ) -> None:
        ex = lingering()
        ex.connection_state(state, 0.6)
        assert ex.peer_gone(Mechanism.EOF, 0.6) == Done(close=True)
        assert event_of(ex).outcome is outcome

    @pytest.mark.parametrize(("closed", "outcome"), [(True, "delivered"), (False, "unknown")])
    def test_who_closed_when_the_server_does_not_tell(self, closed: bool, outcome: str) -> None:
        ex = lingering()
        ex.connection_state(Connection(unacked=0, peer_closed=closed), 0.6)
        ex.peer_gone(Mechanism.UNKNOWN, 0.6)
        assert event_of(ex).outcome == outcome

    @pytest.mark.parametrize(("unacked", "outcome"), [(0, "delivered"), (3, "reset")])
    def test_the_last_word(self, unacked: int, outcome: str) -> None:
        """The body has ended, and the response is out: it may still be cut off."""
        ex = refused()
        assert ex.body_received(LONG, True, 0.1) == Done(close=False)
        ex.connection_state(Connection(unacked=unacked, reset=True), 0.2)
        assert event_of(ex).outcome == outcome

    def test_the_last_word_does_not_change_what_cut_it(self) -> None:
        ex = refused(Settings(max_bytes=0))
        ex.tick(0.0)
        ex.responded(0.0)
        ex.tick(0.5)
        ex.connection_state(Connection(unacked=9, reset=True), 0.5)
        event = event_of(ex)
        assert (event.outcome, event.cap, event.unacked) == (Outcome.CUT, Cap.MAX_BYTES, 9)

    @pytest.mark.parametrize(
        ("state", "buffered", "outcome"),
        [
            (ARRIVED, False, "delivered"),
            (ARRIVED, True, "cut"),
            (UNDER_WAY, False, "cut"),
            (Connection(unacked=0, reset=True), False, "cut"),
            (None, False, "cut"),
        ],
        ids=str,
    )
    def test_who_was_silent_before_it_had_the_response(
        self, state: Connection | None, buffered: bool, outcome: str
    ) -> None:
        ex = refused(Settings(idle_seconds=0.2))
        assert ex.tick(0.2) == Respond(close=True)
        assert ex.responded(0.2) == Hold(about(0.5))
        assert ex.connection_state(state, 0.7, buffered=buffered) == Done(close=True)
        ex.connection_state(state, 0.7, buffered=buffered)
        event = event_of(ex)
        assert event.outcome == outcome
        assert (event.cap is Cap.IDLE_SECONDS) is (outcome == "cut")

    def test_a_peer_that_does_not_answer_has_not_reset(self) -> None:
        ex = lingering()
        ex.reading_failed(TimeoutError(errno.ETIMEDOUT, "x"), 0.6)
        ex.connection_state(Connection(unacked=9, reset=True), 0.6)
        event = event_of(ex)
        assert (event.outcome, event.mechanism) == (Outcome.UNKNOWN, Mechanism.TIMEOUT)

    def test_a_normal_exchange_is_none_to_ask_about(self) -> None:
        ex = exchange()
        ex.app_read(0.0)
        ex.body_received(LONG, True, 0.0)
        ex.response_started(200, 2, 0.0)
        ex.response_completed(0.0, 2)
        assert (ex.early, ex.asks_kernel) == (False, False)


class TestBlocking:
    """A server that cannot read while it writes."""

    def test_a_large_response_waits_for_the_body(self) -> None:
        ex = exchange(Settings.for_blocking(), blocking=True)
        ex.response_started(413, None, 0.0)
        assert ex.response_completed(0.0, 1024 * 1024) == Read(1.0)
        assert isinstance(ex.body_received(10, False, 0.9), Read)
        assert ex.body_received(990, True, 1.5) == Done(close=False)

    def test_a_small_one_does_not(self) -> None:
        ex = refused(Settings.for_blocking(), blocking=True)
        assert ex.tick(0.5) == Respond(close=True)

    def test_a_reading_without_a_limit_keeps_nothing_waiting(self) -> None:
        ex = refused(Settings.for_blocking(), blocking=True, unbounded=True)
        assert ex.step(0.0) == Respond(close=True)
        assert isinstance(ex.responded(0.0), Read)

    def test_the_servers_patience_with_its_worker_is_not_used_up(self) -> None:
        ex = refused(Settings.for_blocking(), blocking=True, worker_timeout=3.0)
        ex.tick(0.5)
        assert ex.responded(0.5) == Read(1.0)
        late = exchange(blocking=True, worker_timeout=30.0)
        late.response_started(413, 3, 20.0)
        late.response_completed(20.0, 3)
        assert late.tick(20.0) == Respond(close=True)
        assert late.responded(20.0) == Hold(0.5)

    def test_a_limit_sends_it_all_the_same(self) -> None:
        ex = exchange(Settings.for_blocking(), blocking=True)
        ex.response_started(413, None, 0.0)
        ex.response_completed(0.0, 1024 * 1024)
        assert ex.tick(1.0) == Respond(close=True)


class TestServersOfTheirOwnKind:
    """The rules behind the fields of `Server` that only some ASGI servers need."""

    def test_what_has_read_all_by_itself_is_left_alone(self) -> None:
        ex = exchange(server=Server("reads first", Continue.EAGER, reads_first=True))
        assert ex.response_started(413, 3, 0.0) == Forward()
        assert ex.response_completed(0.0, 3) == Done(close=False)
        assert ex.event(1.0) is None

    def test_where_nothing_can_be_read_behind_a_stream_a_response_goes_out_whole(self) -> None:
        ex = refused(server=ENDS_AT_LENGTH)
        assert ex.tick(0.5) == Respond(close=True, whole=True)
        assert isinstance(ex.responded(0.5), Read)
        assert ex.body_received(LONG, True, 1.0) == Done(close=True)

    def test_and_a_streams_last_piece_waits_for_the_body(self) -> None:
        ex = exchange(Settings(min_rate=0), server=ENDS_AT_LENGTH)
        ex.response_started(413, 10, 0.0)
        assert ex.response_piece(5, 0.0) == Respond(close=False)
        ex.responded(0.0)
        assert ex.response_piece(5, 0.1) == Keep(0.5)
        assert ex.response_completed(0.2) == Read(5.0)
        assert ex.tick(4.0) == Read(about(1.2))
        assert ex.body_received(LONG, True, 4.5) == Done(close=False)

    def test_or_its_last_piece_comes_with_the_end(self) -> None:
        ex = exchange(Settings(min_rate=0), server=ENDS_AT_LENGTH)
        ex.response_started(413, 10, 0.0)
        ex.response_piece(5, 0.0)
        ex.responded(0.0)
        assert ex.response_completed(0.2, 5) == Read(5.0)
        assert ex.tick(5.2) == Respond(close=True)
        assert ex.responded(5.2) == Hold(0.5)

    def test_a_stream_without_a_length_is_as_everywhere(self) -> None:
        ex = exchange(server=ENDS_AT_LENGTH)
        ex.response_started(413, None, 0.0)
        ex.response_piece(5, 0.0)
        ex.responded(0.0)
        assert ex.response_completed(0.2, 5) == Respond(close=False)

    def test_an_end_that_waits_is_sent_while_the_rest_is_read(self) -> None:
        ex = refused(Settings(max_bytes=100), server=END_WAITS)
        assert ex.body_received(200, False, 0.1) == Respond(close=True)
        assert ex.responded(0.1) == Hold(0.5)
        assert ex.tick(0.6) == Done(close=True, read_on=True)

    def test_but_not_where_there_is_no_rest(self) -> None:
        ex = refused(server=END_WAITS)
        assert ex.body_received(LONG, True, 0.1) == Done(close=False)

    def test_what_would_not_be_heeded_is_not_announced(self) -> None:
        server = Server("keeps", Continue.LAZY, heeds_close=False)
        assert refused(server=server).tick(0.5) == Respond(close=False)
        # At a limit the body has not been read, and such a connection is closed.
        ex = refused(Settings(max_bytes=100), server=server)
        assert ex.body_received(200, False, 0.1) == Respond(close=True)


class TestAFailedApplication:
    def test_its_body_is_read(self) -> None:
        ex = exchange()
        assert ex.app_failed(0.0) == Read(5.0)
        assert ex.state is State.CLEARING
        assert ex.body_received(400, False, 1.0) == Read(4.0)
        assert ex.body_received(600, True, 1.1) == Done(close=False)
        event = event_of(ex)
        assert (event.outcome, event.status, event.drained) == (Outcome.DELIVERED, None, LONG)

    def test_within_the_limits(self) -> None:
        ex = exchange(Settings(max_bytes=100))
        ex.app_failed(0.0)
        assert isinstance(ex.body_received(200, False, 0.1), Done)
        assert event_of(ex).cap is Cap.MAX_BYTES

    def test_not_when_it_has_begun_to_respond(self) -> None:
        ex = exchange()
        ex.response_started(200, 3, 0.0)
        assert ex.app_failed(0.0) == Done(close=False)

    def test_not_when_the_peer_has_left(self) -> None:
        ex = exchange()
        ex.peer_gone(Mechanism.UNKNOWN, 0.0)
        assert ex.app_failed(0.0) == Done(close=False)

    def test_not_for_a_client_that_waits_for_a_100(self) -> None:
        assert exchange(expects=True).app_failed(0.0) == Done(close=False)
        assert isinstance(exchange(expects=True, server=EAGER).app_failed(0.0), Read)

    @pytest.mark.parametrize(("statuses", "read"), [({500}, True), ({413}, False)])
    def test_as_only_statuses_has_it(self, statuses: set[int], read: bool) -> None:
        ex = exchange(Settings(only_statuses=statuses))
        assert isinstance(ex.app_failed(0.0), Read) is read

    @pytest.mark.parametrize("inside", [1, 2], ids=["full", "others read"])
    def test_it_waits_for_nobodys_turn(self, inside: int) -> None:
        places = Places(reading=1, inside=inside)
        first = places.enter(lambda: None)
        assert exchange(places=places).app_failed(0.0) == Done(close=False)
        first.leave()
        assert places.enter(lambda: None).reading

    def test_a_task_that_it_has_left_behind_may_respond(self) -> None:
        places = Places(reading=1, inside=1)
        ex = exchange(places=places)
        ex.app_failed(0.0)
        assert ex.response_started(500, 2, 0.1) == Done(close=False)
        assert ex.response_completed(0.1, 2) == Done(close=False)
        assert places.enter(lambda: None).reading

    def test_and_a_response_without_a_head_takes_no_second_place(self) -> None:
        places = Places(reading=2, inside=2)
        ex = exchange(places=places)
        ex.app_failed(0.0)
        ex.response_completed(0.1, 2)
        ex.body_received(LONG, True, 0.2)
        assert [places.enter(lambda: None).reading for _ in range(2)] == [True, True]


def test_an_application_that_ends_early_leaves_what_it_sent_to_the_server() -> None:
    ex = exchange()
    ex.response_started(200, 10, 0.0)
    assert ex.app_ended(0.1) == Done(close=False)
    assert ex.event(1.0) is None


def test_an_application_that_ends_does_not_end_the_delivery() -> None:
    assert isinstance(refused().app_ended(0.1), Read)


def test_steps_are_frozen() -> None:
    step: Any = Read(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.at_most_seconds = 2.0


def test_an_exchange_that_is_done_lets_go_of_its_shim() -> None:
    class Shim:
        def __init__(self) -> None:
            self.exchange = Exchange(
                Settings(),
                Places(reading=1, inside=1),
                server=TORNADO,
                facts=FACTS,
                length=LONG,
                expects_continue=False,
                wake=self.wake,
                now=0.0,
            )

        def wake(self) -> None: ...

    shim = Shim()
    shim.exchange.response_started(413, 3, 0.0)
    shim.exchange.response_completed(0.0, 3)
    shim.exchange.body_received(LONG, True, 0.0)
    gone = weakref.ref(shim)
    gc.disable()
    try:
        del shim
        assert gone() is None
    finally:
        gc.enable()


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.OPEN} | {state for state, _ in TRANSITIONS.values()}
    assert reached == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.DONE}
    assert {happening for _, happening in TRANSITIONS} == set(Happening)


# Servers with ways of their own.

ENDS = Server("ends", Continue.LATE, ends_with_response=True)


def test_where_the_exchange_ends_with_the_response_all_is_read_before() -> None:
    ex = refused(Settings(min_rate=0), server=ENDS, unbounded=True)
    assert ex.tick(0.6) == Read(about(4.4))
    assert ex.body_received(999, False, 3.0) == Read(about(5.0))
    assert ex.body_received(1, True, 4.0) == Done(close=False)


def test_a_server_that_reads_by_itself_is_left_alone() -> None:
    ex = refused(server=Server("reads", Continue.EAGER, reads_first=True))
    assert ex.step(0.0) == Done(close=False)
    assert ex.event(1.0) is None


def test_the_body_is_read_before_the_server_answers_for_the_application() -> None:
    ex = exchange(Settings(min_rate=0), server=EAGER, blocking=True)
    assert ex.left_to_server(0.0) == Read(5.0)
    # Longer than a response of the application's own is kept back.
    assert ex.body_received(999, False, 2.0) == Read(5.0)
    assert ex.body_received(1, True, 3.0) == Done(close=False)
    event = event_of(ex)
    assert (event.outcome, event.status) == (Outcome.DELIVERED, 500)


def test_a_limit_lets_the_server_answer() -> None:
    ex = exchange(Settings(idle_seconds=1.0), server=EAGER, blocking=True)
    ex.left_to_server(0.0)
    assert ex.tick(1.0) == Respond(close=True)
    ex.abandoned(1.0)
    ex.responded(1.0)
    assert ex.step(1.0) == Done(close=True)
    assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, Cap.IDLE_SECONDS)


@pytest.mark.parametrize(
    "more",
    [{"unbounded": True}, {"expects": True}, {"settings": Settings(only_statuses=[413])}],
    ids=["unbounded", "expects", "only-statuses"],
)
def test_nothing_is_read_for_the_server_where_that_could_do_harm(more: dict[str, Any]) -> None:
    ex = exchange(more.pop("settings", None), blocking=True, **more)
    assert not isinstance(ex.left_to_server(0.0), Read)
    ex.abandoned(0.0)
    assert isinstance(ex.step(0.0), Done)
    assert ex.event(1.0) is None


def test_an_application_that_had_begun_to_respond_is_not_answered_for() -> None:
    ex = exchange(server=EAGER, blocking=True)
    ex.response_started(200, None, 0.0)
    ex.response_piece(10, 0.0)
    ex.responded(0.0)
    assert ex.left_to_server(0.0) == Forward()
