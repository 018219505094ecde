"""Linger and hold: the rules one by one, and any order of happenings, with the test's clock."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cleanclose.core.deliver.linger import (
    ASK_AGAIN,
    FIRST_LOOK,
    LAST_LOOK,
    TRANSITIONS,
    UNSEEN,
    Close,
    Discard,
    Happening,
    Hold,
    Linger,
    State,
    Step,
    Wait,
)
from cleanclose.core.events import Cap, Facts, Mechanism, Outcome
from cleanclose.core.settings import Settings
from cleanclose.core.tcp_info import Connection, TcpState, connection_of
from tests.harness.made import EXAMPLES

FACTS = Facts(framework="wsgi", server="any", method="POST")
LARGE = 64 * 1024 * 1024
ARRIVED = Connection(unacked=0)
ON_ITS_WAY = Connection(unacked=500)
RESET = Connection(unacked=0, reset=True)
LOST = Connection(unacked=500, reset=True)


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


def linger(
    settings: Settings | None = None,
    *,
    left: int | None = LARGE,
    proxied: bool = False,
    awaits_continue: bool = False,
    reads: bool = False,
    now: float = 0.0,
) -> Linger:
    return Linger(
        settings or Settings(),
        facts=FACTS,
        status=413,
        proxied=proxied,
        awaits_continue=awaits_continue,
        received=30,
        drained=10,
        left=left,
        started=now - 1.0,
        now=now,
        reads=reads,
    )


def lingering(settings: Settings | None = None, **more: Any) -> Linger:
    """One whose server has let go at 0.0."""
    it = linger(settings, **more)
    it.let_go(0.0)
    return it


def said(it: Linger) -> tuple[Outcome, Cap | None, Mechanism | None]:
    event = it.event(0.0)
    return event.outcome, event.cap, event.mechanism


# The table.


def in_state(state: State) -> Linger:
    match state:
        case State.SENDING:
            return linger()
        case State.LINGERING:
            return lingering()
        case State.HOLDING:
            it = lingering()
            it.tick(5.0)
            return it
        case State.CLOSED:
            it = lingering()
            it.ended(None, 0.0)
            return it


@pytest.mark.parametrize("state", State)
def test_the_tests_reach_each_state(state: State) -> None:
    assert in_state(state).state is state


def happen(it: Linger, happening: Happening) -> None:
    match happening:
        case Happening.LET_GO:
            it.let_go(1.0)
        case Happening.ENDED:
            it.ended(None, 1.0)
        case Happening.RESET:
            it.reset(Mechanism.RESET, None, 1.0)
        case Happening.SETTLED:
            it.kernel_says(ARRIVED, 1.0)
            it.tick(5.0)
        case Happening.CAP:
            it.tick(5.0)
        case Happening.KEPT:
            it.tick(30.0)
        case Happening.HOLD_OVER:
            it.tick(5.5)
        case Happening.TURNED_OUT:
            it.turned_out(1.0)
        case Happening.STOPPED:
            it.stopped(1.0)


OF_TIME = {Happening.SETTLED, Happening.CAP, Happening.KEPT, Happening.HOLD_OVER}
"""Each is what time means in one state: it does not happen in the others."""


@pytest.mark.parametrize(
    ("state", "happening"),
    [
        pair
        for pair in itertools.product(State, Happening)
        if pair in TRANSITIONS or pair[1] not in OF_TIME
    ],
    ids=lambda each: each.name,
)
def test_each_row_and_that_every_other_pair_changes_nothing(
    state: State, happening: Happening
) -> None:
    it = in_state(state)
    happen(it, happening)
    assert it.state is TRANSITIONS.get((state, happening), state)


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(State) - {State.SENDING}
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}


def test_every_happening_has_a_row() -> None:
    assert {happening for _, happening in TRANSITIONS} == set(Happening)


def test_steps_are_frozen() -> None:
    for step in (Wait(1.0, read=True), Discard(1.0), Hold(1.0), Close()):
        for field in dataclasses.fields(step):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(step, field.name, None)


# The server still has it.


def test_it_is_looked_at_less_and_less_often_whether_the_server_has_let_go() -> None:
    it = linger()
    looks: list[float] = []
    now = 0.0
    while now < 1.0:
        step = it.step(now)
        assert isinstance(step, Wait)
        assert not step.read
        looks.append(step.seconds)
        now += step.seconds
        it.tick(now)
    assert looks[0] == FIRST_LOOK
    assert looks == sorted(looks)
    assert looks[-1] == LAST_LOOK


def test_a_server_that_does_not_let_go_keeps_its_connection() -> None:
    it = linger(Settings(max_seconds=3.0))
    assert isinstance(it.tick(2.99), Wait)
    assert it.tick(3.0) == Close()
    assert said(it) == (Outcome.UNKNOWN, None, None)


def test_the_time_begins_when_the_server_has_let_go() -> None:
    it = linger(Settings(max_seconds=10.0, min_rate=0, idle_seconds=4.0))
    it.tick(9.0)
    assert it.let_go(9.0) == Discard(ASK_AGAIN)
    it.kernel_says(ARRIVED, 9.0)
    assert it.step(9.0) == Discard(4.0)
    it.received(1000, 12.0)
    assert it.step(12.0) == Discard(4.0)
    it.received(1000, 15.0)
    assert it.step(16.0) == Discard(about(3.0))


def test_silence_begins_with_the_last_byte_and_not_when_it_is_read() -> None:
    it = linger(Settings(max_seconds=60.0, min_rate=0, idle_seconds=4.0))
    it.let_go(0.0)
    it.kernel_says(ARRIVED, 0.0)
    assert it.received(10, 4.0, heard=3.0) == Discard(3.0)
    assert it.tick(6.9) == Discard(about(0.1))
    assert isinstance(it.tick(7.0), Close)
    late = linger(Settings(max_seconds=60.0, min_rate=0, idle_seconds=4.0))
    late.let_go(10.0)
    late.kernel_says(ARRIVED, 10.0)
    # What came before the response was out says nothing about the silence after it.
    assert late.received(10, 11.0, heard=2.0) == Discard(3.0)


def test_what_comes_is_read_before_only_where_nobody_else_does() -> None:
    it = linger(Settings(max_bytes=100), reads=True)
    assert it.step(0.0) == Wait(FIRST_LOOK, read=True)
    step = it.received(99, 0.0)
    assert isinstance(step, Wait)
    assert step.read
    step = it.received(1, 0.0)
    assert isinstance(step, Wait)
    assert not step.read
    # The limit counts when the server has let go.
    it.let_go(1.0)
    assert it.tick(1.0) == Hold(0.5)
    assert said(it) == (Outcome.CUT, Cap.MAX_BYTES, None)


def test_a_peer_that_closes_while_the_server_sends_may_still_get_it_all() -> None:
    it = linger(reads=True)
    assert isinstance(it.ended(ON_ITS_WAY, 0.0), Wait)
    assert said(it) == (Outcome.UNKNOWN, None, None)
    it.let_go(0.1)
    assert it.ended(ARRIVED, 0.1) == Close()
    assert said(it) == (Outcome.DELIVERED, None, Mechanism.EOF)


def test_a_reset_while_the_server_sends() -> None:
    it = linger(reads=True)
    assert it.reset(Mechanism.RESET, LOST, 0.0) == Close()
    assert said(it) == (Outcome.RESET, None, Mechanism.RESET)
    assert it.event(0.0).unacked == 500


# The end of the peer.


@pytest.mark.parametrize(
    ("connection", "proxied", "left", "outcome"),
    [
        (ARRIVED, False, LARGE, Outcome.DELIVERED),
        (None, False, LARGE, Outcome.DELIVERED),
        (ON_ITS_WAY, False, LARGE, Outcome.UNKNOWN),
        # A proxy that stops its own client may have thrown the response away as well.
        (ARRIVED, True, LARGE, Outcome.UNKNOWN),
        (None, True, LARGE, Outcome.UNKNOWN),
        (ARRIVED, True, UNSEEN + 1, Outcome.UNKNOWN),
        # What is missing may have been read by the server.
        (ARRIVED, True, UNSEEN, Outcome.DELIVERED),
        (ARRIVED, True, None, Outcome.UNKNOWN),
        (ARRIVED, False, None, Outcome.DELIVERED),
    ],
)
def test_who_closes_behind_the_response(
    connection: Connection | None, proxied: bool, left: int | None, outcome: Outcome
) -> None:
    it = lingering(proxied=proxied, left=left)
    assert it.ended(connection, 1.0) == Close()
    assert said(it) == (outcome, None, Mechanism.EOF)


def test_a_proxy_that_closes_at_the_end_of_the_body_has_passed_the_response_on() -> None:
    it = lingering(proxied=True)
    it.received(LARGE - UNSEEN, 1.0)
    it.ended(ARRIVED, 1.0)
    assert said(it)[0] is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("state", "queued", "outcome"),
    [
        # Our FIN is a byte in the queue until the peer has acknowledged it.
        (TcpState.LAST_ACK, 1, Outcome.DELIVERED),
        (TcpState.CLOSING, 1, Outcome.DELIVERED),
        (TcpState.LAST_ACK, 2, Outcome.UNKNOWN),
        (TcpState.CLOSE_WAIT, 1, Outcome.UNKNOWN),
    ],
)
def test_our_own_fin_is_no_part_of_the_response(
    state: TcpState, queued: int, outcome: Outcome
) -> None:
    it = lingering()
    it.ended(connection_of(state, queued, shut=True), 1.0)
    assert said(it)[0] is outcome


@pytest.mark.parametrize(
    ("mechanism", "outcome"),
    [
        (Mechanism.RESET, Outcome.RESET),
        (Mechanism.TIMEOUT, Outcome.UNKNOWN),
        (Mechanism.BROKEN_PIPE, Outcome.UNKNOWN),
        (Mechanism.UNKNOWN, Outcome.UNKNOWN),
    ],
)
@pytest.mark.parametrize("connection", [None, LOST, RESET])
def test_a_connection_that_is_no_more(
    mechanism: Mechanism, outcome: Outcome, connection: Connection | None
) -> None:
    it = lingering()
    assert it.reset(mechanism, connection, 1.0) == Close()
    assert said(it) == (outcome, None, mechanism)
    # It is asked once more before it closes: that does not make a reset of a time-out.
    assert it.kernel_says(connection, 1.0) == Close()
    assert said(it)[2] is mechanism


def test_the_kernel_knows_of_a_reset_first() -> None:
    it = lingering()
    assert it.kernel_says(LOST, 1.0) == Close()
    assert said(it) == (Outcome.RESET, None, Mechanism.RESET)
    assert it.event(1.0).unacked == 500


def test_a_reset_behind_the_peers_end_changes_nothing() -> None:
    it = lingering()
    it.ended(ARRIVED, 1.0)
    assert it.kernel_says(RESET, 1.0) == Close()
    assert said(it) == (Outcome.DELIVERED, None, Mechanism.EOF)


# Silence.


def test_who_has_it_all_and_is_silent_needs_no_hold() -> None:
    it = lingering()
    assert it.kernel_says(ARRIVED, 1.0) == Discard(about(4.0))
    assert it.tick(5.0) == Close()
    assert said(it) == (Outcome.DELIVERED, None, None)


@pytest.mark.parametrize("connection", [ON_ITS_WAY, None])
def test_who_may_not_have_it_and_is_silent_is_cut(connection: Connection | None) -> None:
    it = lingering()
    it.kernel_says(connection, 1.0)
    assert it.tick(5.0) == Hold(0.5)
    assert it.tick(5.4) == Hold(about(0.1))
    assert it.tick(5.5) == Close()
    assert said(it) == (Outcome.CUT, Cap.IDLE_SECONDS, None)


def test_the_kernel_is_asked_until_the_response_has_arrived() -> None:
    assert not linger().asks_kernel
    it = lingering()
    assert it.asks_kernel
    assert it.step(0.0) == Discard(ASK_AGAIN)
    assert it.kernel_says(ON_ITS_WAY, 1.0) == Discard(ASK_AGAIN)
    assert it.asks_kernel
    assert it.kernel_says(ARRIVED, 2.0) == Discard(about(3.0))
    arrived = lingering()
    arrived.kernel_says(ARRIVED, 2.0)
    assert not arrived.asks_kernel


def test_who_waits_for_a_100_closes_when_it_has_its_answer() -> None:
    it = lingering(awaits_continue=True)
    assert it.step(0.0) == Discard(0.5)
    assert it.tick(0.5) == Close()
    assert said(it) == (Outcome.UNKNOWN, None, None)
    it = lingering(awaits_continue=True)
    it.kernel_says(ARRIVED, 0.1)
    assert it.tick(0.5) == Close()
    assert said(it) == (Outcome.DELIVERED, None, None)


def test_who_did_not_wait_for_the_100_has_all_the_time() -> None:
    it = lingering(awaits_continue=True)
    it.received(10_000, 0.3)
    it.kernel_says(ON_ITS_WAY, 0.4)
    assert isinstance(it.tick(5.2), Discard)
    assert it.tick(5.3) == Hold(0.5)


# The limits.


@pytest.mark.parametrize(
    ("settings", "cap", "at"),
    [
        (Settings(idle_seconds=2.0), Cap.IDLE_SECONDS, 2.0),
        (Settings(max_seconds=3.0), Cap.MAX_SECONDS, 3.0),
        (Settings(idle_seconds=60.0, max_seconds=60.0), Cap.MIN_RATE, 5.0),
        (Settings(idle_seconds=61.0, max_seconds=60.0, min_rate=0), Cap.MAX_SECONDS, 60.0),
        (Settings(max_seconds=0), Cap.MAX_SECONDS, 0.0),
        (Settings(max_bytes=0), Cap.MAX_BYTES, 0.0),
    ],
)
def test_the_limits_in_time(settings: Settings, cap: Cap, at: float) -> None:
    it = lingering(settings)
    now = 0.0
    step = it.tick(now)
    while isinstance(step, Discard):
        assert step.seconds > 0
        now += step.seconds
        step = it.tick(now)
    assert now == about(at)
    assert step == Hold(0.5)
    assert it.tick(now + 0.5) == Close()
    assert said(it) == (Outcome.CUT, cap, None)


def test_a_trickle_is_too_slow() -> None:
    it = lingering()
    for second in range(1, 5):
        assert isinstance(it.received(239, float(second)), Discard)
    assert it.received(239, 5.0) == Hold(0.5)
    assert said(it)[1] is Cap.MIN_RATE
    it = lingering()
    for second in range(1, 25):
        assert isinstance(it.received(241, float(second)), Discard)


@pytest.mark.parametrize("left", [300, None])
def test_a_body_that_has_come_as_a_whole_is_not_slow(left: int | None) -> None:
    it = lingering(left=left)
    it.received(300, 2.0)
    it.kernel_says(ARRIVED, 3.0)
    assert isinstance(it.tick(5.0), Discard)
    assert it.tick(7.0) == Close()
    assert said(it) == (Outcome.DELIVERED, None, None)


def test_chunks_that_trickle_are_too_slow() -> None:
    it = lingering(left=None)
    for second in (1.5, 3.0, 4.5):
        assert isinstance(it.received(10, second), Discard)
    assert it.step(4.5) == Discard(about(0.5))
    assert it.tick(5.0) == Hold(0.5)
    assert said(it)[1] is Cap.MIN_RATE
    it = lingering(left=None)
    it.received(10, 3.0)
    assert isinstance(it.tick(6.0), Discard)
    assert it.received(10, 6.5) == Hold(0.5)
    assert said(it)[1] is Cap.MIN_RATE


@pytest.mark.parametrize(
    ("left", "size", "cut"),
    [
        (1000, 999, False),
        (1001, 1000, True),
        (None, 1000, True),
        # All of the body has come.
        (1000, 1000, False),
        # What comes behind it has no end either.
        (1000, 1001, True),
        (10, 1001, True),
        (10, 900, False),
    ],
)
def test_the_limit_in_bytes(left: int | None, size: int, cut: bool) -> None:
    it = lingering(Settings(max_bytes=1000), left=left)
    step = it.received(size, 0.0)
    assert isinstance(step, Hold if cut else Discard)
    assert said(it)[1] is (Cap.MAX_BYTES if cut else None)


def test_a_hold_is_not_read_and_has_its_own_time() -> None:
    it = lingering(Settings(max_bytes=100, hold_seconds=2.0))
    assert it.received(100, 3.0) == Hold(2.0)
    assert it.tick(4.0) == Hold(1.0)
    assert it.tick(5.0) == Close()


def test_without_a_hold_it_closes_at_once() -> None:
    it = lingering(Settings(max_bytes=100, hold_seconds=0))
    assert it.received(100, 3.0) == Hold(0)
    assert it.tick(3.0) == Close()


@pytest.mark.parametrize("what", ["reset", "kernel", "turned out", "stopped"])
def test_who_leaves_during_the_hold_was_cut_all_the_same(what: str) -> None:
    it = lingering(Settings(max_bytes=100))
    it.received(100, 1.0)
    match what:
        case "reset":
            step = it.reset(Mechanism.RESET, LOST, 1.1)
        case "kernel":
            step = it.kernel_says(LOST, 1.1)
        case "turned out":
            step = it.turned_out(1.1)
        case _:
            step = it.stopped(1.1)
    assert step == Close()
    assert said(it) == (Outcome.CUT, Cap.MAX_BYTES, None)


# Others.


@pytest.mark.parametrize("state", [State.SENDING, State.LINGERING])
@pytest.mark.parametrize(
    ("what", "cap"), [("turned_out", Cap.MAX_LINGERING), ("stopped", Cap.APPLICATION)]
)
def test_what_is_not_the_clients_doing(state: State, what: str, cap: Cap) -> None:
    it = in_state(state)
    assert getattr(it, what)(1.0) == Close()
    it.kernel_says(ARRIVED, 1.0)
    assert said(it) == (Outcome.CUT, cap, None)
    assert it.event(1.0).unacked == 0


def test_closed_is_closed() -> None:
    it = lingering()
    it.ended(ARRIVED, 1.0)
    for late in (it.let_go, it.tick, it.turned_out, it.stopped):
        assert late(100.0) == Close()
    assert it.received(10, 100.0) == Close()


def test_the_event() -> None:
    it = linger(left=100, now=5.0)
    it.let_go(5.0)
    it.received(70, 6.0)
    event = it.event(7.0)
    assert event.facts == FACTS
    assert (event.status, event.age_ms) == (413, 3000)
    assert (event.bytes_in, event.drained, event.expected_in) == (100, 80, 130)
    # Bytes on the wire are more than the body's: chunks have sizes, and more may come behind.
    it.received(1000, 6.0)
    event = it.event(7.0)
    assert (event.bytes_in, event.drained, event.expected_in) == (130, 110, 130)
    chunked = lingering(left=None)
    chunked.received(1000, 0.0)
    event = chunked.event(0.0)
    assert (event.bytes_in, event.drained, event.expected_in) == (1030, 1010, None)


# Any order of happenings.

CONNECTIONS = st.sampled_from([None, ARRIVED, ON_ITS_WAY, RESET, LOST])
ROUNDING = 1e-6
SPENT = {State.SENDING: 0, State.LINGERING: 1, State.HOLDING: 2, State.CLOSED: 3}


@pytest.mark.parametrize("connection", [ARRIVED, ON_ITS_WAY, None])
def test_what_had_not_arrived_when_the_peer_closed_is_in_the_event(
    connection: Connection | None,
) -> None:
    it = lingering()
    it.ended(connection, 1.0)
    assert it.event(1.0).unacked == (None if connection is None else connection.unacked)


class LingerMachine(RuleBasedStateMachine):
    """Plays a client, a server, a kernel, and a lingerer which keeps to the steps."""

    @initialize(
        limits=st.builds(
            Settings,
            max_bytes=st.sampled_from([0, 100, 1_000_000]),
            max_seconds=st.sampled_from([0, 3.0, 30.0]),
            idle_seconds=st.sampled_from([0, 1.0, 5.0]),
            hold_seconds=st.sampled_from([0, 0.5]),
            min_rate=st.sampled_from([0, 240.0]),
        ),
        left=st.sampled_from([None, 1, 500, LARGE]),
        proxied=st.booleans(),
        awaits_continue=st.booleans(),
        reads=st.booleans(),
        calm=st.sampled_from([1, 5, 15]),
    )
    def begin(
        self,
        limits: Settings,
        left: int | None,
        proxied: bool,
        awaits_continue: bool,
        reads: bool,
        calm: int,
    ) -> None:
        self.now = self.began = 100.0
        self.limits = limits
        self.calm = calm
        self.discarded = 0
        self.reads = reads
        self.linger = linger(
            limits,
            left=left,
            proxied=proxied,
            awaits_continue=awaits_continue,
            reads=reads,
            now=self.now,
        )
        self.last = self.linger.state
        self.let_go_at: float | None = None
        self.final: Any = None

    def may_read(self) -> bool:
        step = self.linger.step(self.now)
        return isinstance(step, Discard) or (isinstance(step, Wait) and step.read)

    def is_rough(self) -> bool:
        return self.calm <= 0

    @precondition(lambda self: self.linger.state is State.SENDING)
    @rule()
    def the_server_lets_go(self) -> None:
        self.let_go_at = self.now
        self.linger.let_go(self.now)
        assert self.linger.state is State.LINGERING

    @precondition(lambda self: self.may_read())
    @rule(size=st.integers(1, 5000))
    def bytes_come(self, size: int) -> None:
        self.discarded += size
        self.linger.received(size, self.now)

    @precondition(lambda self: self.is_rough() and self.may_read())
    @rule(connection=CONNECTIONS)
    def the_peer_ends(self, connection: Connection | None) -> None:
        self.linger.ended(connection, self.now)
        assert self.linger.state is not State.LINGERING
        # As the lingerer does.
        self.linger.reads = False

    @precondition(lambda self: self.is_rough() and self.may_read())
    @rule(mechanism=st.sampled_from(list(Mechanism)), connection=CONNECTIONS)
    def reading_fails(self, mechanism: Mechanism, connection: Connection | None) -> None:
        assert self.linger.reset(mechanism, connection, self.now) == Close()

    @rule(connection=st.sampled_from([None, ARRIVED, ON_ITS_WAY]))
    def the_kernel_is_asked(self, connection: Connection | None) -> None:
        self.linger.kernel_says(connection, self.now)

    @precondition(lambda self: self.is_rough())
    @rule(connection=st.sampled_from([RESET, LOST]))
    def the_kernel_knows_of_a_reset(self, connection: Connection) -> None:
        self.linger.kernel_says(connection, self.now)

    @precondition(lambda self: self.is_rough())
    @rule(stops=st.booleans())
    def the_place_is_needed(self, stops: bool) -> None:
        step = self.linger.stopped(self.now) if stops else self.linger.turned_out(self.now)
        assert step == Close()

    @rule(part=st.floats(0, 1, allow_nan=False))
    def time_passes(self, part: float) -> None:
        step = self.linger.step(self.now)
        self.now += 1.0 if isinstance(step, Close) else step.seconds * part
        self.linger.tick(self.now)

    @rule()
    def its_moment_comes(self) -> None:
        self.come(self.linger.step(self.now))

    def come(self, step: Step) -> None:
        if not isinstance(step, Close):
            self.now += step.seconds
            self.linger.tick(self.now)

    @invariant()
    def it_gets_rougher(self) -> None:
        self.calm -= 1

    @invariant()
    def it_only_goes_forward(self) -> None:
        state = self.linger.state
        assert SPENT[state] >= SPENT[self.last]
        self.last = state

    @invariant()
    def a_step_says_what_its_state_is(self) -> None:
        kinds = {
            State.SENDING: Wait,
            State.LINGERING: Discard,
            State.HOLDING: Hold,
            State.CLOSED: Close,
        }
        step = self.linger.step(self.now)
        assert isinstance(step, kinds[self.linger.state])
        if isinstance(step, Wait):
            assert self.reads or not step.read
        if not isinstance(step, Close):
            assert 0 <= step.seconds < math.inf

    @invariant()
    def it_has_limits(self) -> None:
        if self.linger.state is State.CLOSED:
            return
        limits = self.limits
        most = limits.max_seconds + (LAST_LOOK if self.let_go_at is None else 0)
        if self.linger.state is State.HOLDING:
            most += limits.hold_seconds
        since = self.began if self.let_go_at is None else self.let_go_at
        assert self.now - since <= most + ROUNDING
        assert self.discarded <= limits.max_bytes + 2 * 5000

    @invariant()
    def the_event_makes_sense(self) -> None:
        event = self.linger.event(self.now)
        assert (event.outcome is Outcome.CUT) is (event.cap is not None)
        assert event.outcome is not Outcome.RESET or event.mechanism is Mechanism.RESET
        assert event.drained <= event.bytes_in
        assert event.expected_in is None or event.bytes_in <= event.expected_in

    @invariant()
    def what_ended_it_stands(self) -> None:
        event = self.linger.event(0.0)
        if self.final is None and self.linger.state in (State.HOLDING, State.CLOSED):
            self.final = event.cap
        if self.final is not None:
            assert event.cap is self.final

    def teardown(self) -> None:
        """Given time, every connection is closed."""
        if not hasattr(self, "linger"):
            return
        for _ in range(2000):
            step = self.linger.step(self.now)
            if isinstance(step, Close):
                break
            self.come(step)
        assert self.linger.state is State.CLOSED


TestAnyOrder = LingerMachine.TestCase
TestAnyOrder.settings = hypothesis_settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None
)
