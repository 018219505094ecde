"""Any order of happenings, any times: what must hold holds."""

from __future__ import annotations

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cleanclose.core import (
    CHUNKED,
    Cap,
    Connection,
    Continue,
    Done,
    Exchange,
    Facts,
    Hold,
    Keep,
    Mechanism,
    Outcome,
    Place,
    Places,
    Read,
    Respond,
    Server,
    Settings,
    State,
    Step,
)

ROUNDING = 1e-9
"""Seconds by which a sum of floats may be off."""


class ExchangeMachine(RuleBasedStateMachine):
    """Plays an application, a client, a server and a shim which keeps to the steps."""

    @initialize(
        length=st.sampled_from([CHUNKED, 1, 500, 100_000]),
        expects=st.booleans(),
        sends=st.sampled_from(list(Continue)),
        occupied=st.integers(0, 2),
        max_bytes=st.sampled_from([0, 100, 1_000_000]),
        blocking=st.booleans(),
        kind=st.sampled_from(["plain", "reads_first", "ends_at_length", "end_waits", "deaf"]),
    )
    def begin(
        self,
        length: int,
        expects: bool,
        sends: Continue,
        occupied: int,
        max_bytes: int,
        blocking: bool,
        kind: str,
    ) -> None:
        self.now = 0.0
        self.length = length
        self.left = 10_000 if length == CHUNKED else length
        self.limits = Settings(max_bytes=max_bytes)
        self.places = Places(reading=1, inside=2)
        self.others: list[Place] = [self.places.enter(lambda: None) for _ in range(occupied)]
        self.exchange = Exchange(
            self.limits,
            self.places,
            server=Server(
                "any",
                sends,
                reads_first=kind == "reads_first",
                ends_at_length=kind == "ends_at_length",
                end_waits=kind == "end_waits",
                heeds_close=kind != "deaf",
            ),
            facts=Facts(framework="asgi", server="any", method="POST"),
            length=length,
            expects_continue=expects,
            wake=lambda: None,
            now=0.0,
            blocking=blocking,
        )
        self.lazy_expect = expects and sends is not Continue.EAGER
        self.late_expect = expects and sends is Continue.LATE
        self.app_has_read = False
        self.begun = False
        self.failed = False
        self.responds = 0
        self.completed_at: float | None = None
        self.turn_at: float | None = None
        self.done_event: object = None
        self.told = False

    # The shim keeps to the steps.

    def obey(self, step: Step) -> None:
        while isinstance(step, Respond):
            self.responds += 1
            step = self.exchange.responded(self.now)
        if isinstance(step, Read):
            assert self.exchange.response_complete or self.failed
            assert not self.exchange.body_complete
            if self.turn_at is None:
                self.turn_at = self.now
            if self.lazy_expect and not self.app_has_read:
                assert self.responds >= 1 or self.exchange.state is State.LINGERING
                assert not self.late_expect

    # The application.

    @precondition(lambda self: not self.exchange.response_complete and not self.failed)
    @rule(size=st.integers(0, 200))
    def app_reads(self, size: int) -> None:
        self.app_has_read = True
        self.obey(self.exchange.app_read(self.now))
        self.receive(size)

    @precondition(lambda self: not self.begun and not self.failed)
    @rule(status=st.sampled_from([200, 204, 401, 413]), length=st.sampled_from([None, 0, 10]))
    def app_begins(self, status: int, length: int | None) -> None:
        self.begun = True
        self.obey(self.exchange.response_started(status, length, self.now))

    @precondition(
        lambda self: self.begun and not self.exchange.response_complete and not self.failed
    )
    @rule(size=st.sampled_from([0, 10, 100_000]))
    def app_sends(self, size: int) -> None:
        self.obey(self.exchange.response_piece(size, self.now))

    @precondition(
        lambda self: self.begun and not self.exchange.response_complete and not self.failed
    )
    @rule(size=st.sampled_from([0, 10, 100_000]))
    def app_completes(self, size: int) -> None:
        self.completed_at = self.now
        self.obey(self.exchange.response_completed(self.now, size))

    @precondition(lambda self: not self.failed)
    @rule()
    def app_fails(self) -> None:
        self.failed = True
        self.obey(self.exchange.app_failed(self.now))
        assert self.exchange.treated or not isinstance(self.exchange.step(self.now), Read)

    @rule()
    def app_ends(self) -> None:
        self.obey(self.exchange.app_ended(self.now))

    # The client and the clock.

    def receive(self, size: int) -> None:
        size = min(size, self.left)
        self.left -= size
        self.obey(self.exchange.body_received(size, self.left == 0, self.now))

    @precondition(lambda self: isinstance(self.exchange.step(self.now), Read))
    @rule(size=st.integers(0, 5000))
    def a_piece_comes(self, size: int) -> None:
        self.receive(size)

    @rule(mechanism=st.sampled_from(list(Mechanism)))
    def the_peer_leaves(self, mechanism: Mechanism) -> None:
        self.obey(self.exchange.peer_gone(mechanism, self.now))

    @precondition(lambda self: self.exchange.treated)
    @rule(
        unacked=st.sampled_from([0, 10]),
        peer_closed=st.booleans(),
        reset=st.booleans(),
        buffered=st.booleans(),
    )
    def the_kernel_tells(
        self, unacked: int, peer_closed: bool, reset: bool, buffered: bool
    ) -> None:
        state = Connection(unacked=unacked, peer_closed=peer_closed, reset=reset)
        self.obey(self.exchange.connection_state(state, self.now, buffered=buffered))
        self.told = True
        assert not (reset and self.exchange.treated)

    @precondition(lambda self: isinstance(self.exchange.step(self.now), Read))
    @rule()
    def the_body_makes_no_sense(self) -> None:
        self.obey(self.exchange.body_malformed(self.now))

    @rule()
    def a_place_is_given_back(self) -> None:
        if self.others:
            self.others.pop(0).leave()
        self.obey(self.exchange.tick(self.now))

    @rule(seconds=st.floats(0, 40, allow_nan=False))
    def time_passes(self, seconds: float) -> None:
        """The shim comes back when its step's time is up, or when something happens before."""
        step = self.exchange.step(self.now)
        match step:
            case Read(most) | Hold(most) | Keep(most):
                self.now += min(seconds, most)
            case _:
                self.now += seconds
        self.obey(self.exchange.tick(self.now))

    @rule()
    def cancelled(self) -> None:
        self.obey(self.exchange.abandoned(self.now))
        assert self.exchange.state is State.DONE

    # What must hold.

    @invariant()
    def no_respond_is_left_undone(self) -> None:
        assert not isinstance(self.exchange.step(self.now), Respond)

    @invariant()
    def nothing_is_answered_again_and_again(self) -> None:
        # Once to let a streaming response go, once for its last piece; and where that one waits,
        # once for what may be behind it.
        assert self.responds <= 3

    @invariant()
    def no_wait_is_without_a_limit(self) -> None:
        step = self.exchange.step(self.now)
        if isinstance(step, Read | Hold | Keep):
            seconds = step.seconds if isinstance(step, Hold) else step.at_most_seconds
            # (now + limit) - now is a rounding more than the limit, now and then.
            assert 0 <= seconds <= self.limits.max_seconds + ROUNDING

    @invariant()
    def all_waits_together_have_a_limit(self) -> None:
        # Waiting for a turn, reading and holding: each has its own.
        if self.completed_at is not None and self.exchange.treated:
            limits = self.limits
            most = 2 * limits.max_seconds + limits.hold_seconds + limits.respond_after
            assert self.now - self.completed_at <= most + ROUNDING

    @invariant()
    def no_more_than_max_bytes_and_a_piece_is_read(self) -> None:
        event = self.exchange.event(self.now)
        if event is not None:
            assert event.drained <= self.limits.max_bytes + 5000
            assert event.bytes_in >= event.drained

    @invariant()
    def the_event_makes_sense(self) -> None:
        event = self.exchange.event(self.now)
        if event is None:
            return
        assert self.exchange.response_complete or self.failed
        assert (event.outcome is Outcome.CUT) is (event.cap is not None)
        if self.exchange.body_complete and event.outcome is Outcome.DELIVERED:
            assert event.cap is None
        assert event.cap is None or event.cap in Cap
        assert self.told or event.unacked is None

    @invariant()
    def done_is_done(self) -> None:
        if self.exchange.state is not State.DONE:
            return
        assert isinstance(self.exchange.step(self.now), Done)
        event = self.exchange.event(0.0)
        if self.done_event is None:
            self.done_event = event
        elif event is not None:
            assert event == self.done_event

    def teardown(self) -> None:
        """However it went: given time, every exchange ends and gives its place back."""
        if not hasattr(self, "exchange"):
            return
        for place in self.others:
            place.leave()
        self.obey(self.exchange.tick(self.now))
        self.obey(self.exchange.app_ended(self.now))
        for _ in range(10):
            step = self.exchange.step(self.now)
            match step:
                case Read(most) | Hold(most) | Keep(most):
                    self.now += most
                case _:
                    break
            self.obey(self.exchange.tick(self.now))
        assert self.exchange.state is State.DONE
        both = [self.places.enter(lambda: None) for _ in range(2)]
        assert [place.admitted for place in both] == [True, True]
        assert both[0].reading


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = hypothesis_settings(max_examples=400, stateful_step_count=30, deadline=None)
