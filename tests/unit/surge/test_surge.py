"""The detector by itself, on a clock of its own."""

from __future__ import annotations

import dataclasses
import math
import random
import tracemalloc
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.surge import Traffic, delay, random_day
from cleanclose.core import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Outcome,
    Phase,
    Settings,
    Side,
    SurgeThresholds,
    Witness,
)
from cleanclose.core.blame.watch import Watch
from cleanclose.core.counters import Counters
from cleanclose.core.tcp_info import TcpInfo, TcpState, idle_before
from cleanclose.core.tell.reporter import Reporter
from cleanclose.surge import Surge, make_reporter
from cleanclose.surge.departures import Finding, network_of, nothing
from cleanclose.surge.episodes import Episodes
from cleanclose.surge.statistics import binomial_tail
from tests.harness.collector import gets_through
from tests.harness.made import FACTS, departed, drained, facts

HOUR = 3600.0


def seen(
    *, age: float = 0.3, phase: Phase = Phase.HANDLER, known: bool = True, **more: Any
) -> ClientDeparted:
    """A client has left after so many seconds; the seconds of its handler may be known."""
    return departed(phase, age_ms=age * 1000, wasted_seconds=1e-6 if known else None, **more)


class Clock:
    """Tells a detector of one thing after the other."""

    def __init__(self, surge: Surge | None = None) -> None:
        self.surge = surge or Surge()
        self.now = 1000.0
        self.told: list[DepartureSurge] = []
        self.random = random.Random(3)

    def see(self, *events: Event, every: float = 0.3) -> list[DepartureSurge]:
        before = len(self.told)
        for event in events:
            self.now += every
            if self.surge.request_begins(self.now):
                self.surge.request_over(self.any().facts, self.now)
            self.told += self.surge.see(event, self.now)
        return self.told[before:]

    def any(self) -> ClientDeparted:
        return seen(
            age=self.random.lognormvariate(0, 1),
            client=f"10.0.{self.random.randrange(30)}.7",
            route=self.random.choice("abcde"),
        )

    def mix(self, count: int = 150) -> list[DepartureSurge]:
        return self.see(*(self.any() for _ in range(count)))


def ages(age: float, count: int = 80, **more: Any) -> list[ClientDeparted]:
    return [
        seen(age=age, client=f"10.0.{number % 30}.7", route="abcde"[number % 5], **more)
        for number in range(count)
    ]


@pytest.mark.parametrize("level", [0.5, 20.0])
@pytest.mark.parametrize("rate", [0.001, 0.5])
@pytest.mark.parametrize("balancers", [0, 2])
def test_random_departures_are_silent(rate: float, level: float, balancers: int) -> None:
    seconds = 10 * HOUR if level < 1 else HOUR / 4
    day = random_day(Traffic(rate, level, 11, balancers=balancers), seconds=seconds)
    assert day.told > 100
    assert not day.warnings


@pytest.mark.parametrize("cause", Cause)
def test_a_pattern_is_told_and_nothing_else(cause: Cause) -> None:
    seconds, told = delay(cause, Traffic(0.01, 10.0, 2), per_second=5)
    assert told == [cause]
    assert seconds is not None
    assert seconds < 60


def test_an_episode_is_told_once_and_again_after_the_cool_down() -> None:
    clock = Clock(Surge(SurgeThresholds(cool_down=60)))
    clock.mix()
    (told,) = clock.see(*ages(30.0, 2000))
    assert told.cause is Cause.SAME_AGE
    assert not clock.mix(400)
    # Over, and told again when it is back.
    (again,) = clock.see(*ages(30.0, 200))
    assert again.seconds_each == 30.0


def test_within_the_cool_down_it_is_not_told_again() -> None:
    clock = Clock()
    clock.mix()
    assert clock.see(*ages(30.0, 100))
    clock.mix(400)
    assert not clock.see(*ages(30.0, 200))


def test_behind_one_episode_another_pattern_is_seen() -> None:
    clock = Clock()
    clock.mix()
    assert [event.cause for event in clock.see(*ages(30.0, 200))] == [Cause.SAME_AGE]
    cut = seen(phase=Phase.REQUEST_BODY, bytes_in=1 << 20, expected_in=1 << 24)
    both = [event for pair in zip(ages(30.0, 100), [cut] * 100, strict=True) for event in pair]
    assert [event.cause for event in clock.see(*both)] == [Cause.SAME_BYTES]


@pytest.mark.parametrize("after", [30.0, 45.0])
def test_who_keeps_one_episode_alive_hides_no_other_of_the_same_cause(after: float) -> None:
    clock = Clock()
    clock.mix()
    (told,) = clock.see(*ages(after, 100))
    assert told.seconds_each == after
    # It goes on while a proxy begins to cut others.
    both = [event for pair in zip(ages(after, 200), ages(60.0, 200), strict=True) for event in pair]
    (real,) = clock.see(*both)
    assert (real.cause, real.seconds_each) == (Cause.SAME_AGE, 60.0)
    assert not clock.see(*both)


@pytest.mark.parametrize("name", ["client", "route"])
def test_one_client_or_route_hides_no_other(name: str) -> None:
    def of(*values: str) -> list[ClientDeparted]:
        return [
            dataclasses.replace(event, facts=dataclasses.replace(event.facts, **{name: value}))
            for event in (clock.any() for _ in range(150))
            for value in values
        ]

    def expected(value: str) -> str:
        return network_of(value) if name == "client" else value

    first, second = ("10.9.1.1", "10.9.2.2") if name == "client" else ("a", "b")
    clock = Clock()
    clock.mix(600)
    told = clock.see(*of(first))
    assert [event.network or event.facts.route for event in told] == [expected(first)]
    more = clock.see(*of(first, second, second))
    assert [event.network or event.facts.route for event in more] == [expected(second)]


def test_episodes_that_are_remembered_are_few() -> None:
    episodes = Episodes(900.0)
    for number in range(1000):
        found = Finding(
            cause=Cause.SAME_BYTES, count=50, of=50, usual=None, fits=nothing, about=number
        )
        assert episodes.tell(Cause.SAME_BYTES, found, float(number))
    assert len(episodes._of_cause[Cause.SAME_BYTES]) <= 16  # pyright: ignore[reportPrivateUsage]


def test_a_known_time_out_is_named() -> None:
    clock = Clock()
    (told,) = clock.see(*ages(60.01, 60))
    assert told.seconds_each == 60.0
    assert told.usual_share is None
    assert "nginx" in str(told.likely_cause)
    assert told.facts == facts(client=None)


def test_ages_that_are_only_seen_at_a_write_are_those_of_the_handlers() -> None:
    clock = Clock()
    clock.mix()
    assert not clock.see(*ages(2.5, 300, known=False))
    assert not clock.see(*ages(2.5, 300, witness=Witness.WRITE))
    # But nobody's handler takes just as long as a proxy waits.
    (told,) = clock.see(*ages(30.2, 100, witness=Witness.WRITE))
    assert told.seconds_each == 30.0


def test_what_has_always_been_so_is_no_news() -> None:
    """A page that asks every five seconds is always idle for five seconds."""
    clock = Clock()
    idle = [
        dataclasses.replace(event, idle_seconds=5.0 + number % 7 / 100)
        for number, event in enumerate(ages(0.01, 300))
    ]
    assert not clock.see(*idle)


def test_uploads_end_where_the_pieces_do_that_are_read() -> None:
    clock = Clock()
    sizes = [65536 * (1 + clock.random.randrange(3)) for _ in range(300)]
    cut = ages(0.3, 300, phase=Phase.REQUEST_BODY, expected_in=1 << 24)
    pieces = zip(cut, sizes, strict=True)
    assert not clock.see(*(dataclasses.replace(event, bytes_in=size) for event, size in pieces))


def test_a_new_customer_is_no_fault() -> None:
    """Whoever makes most of the requests has most of the departures."""
    clock = Clock()
    clock.mix()
    theirs = seen(client="198.51.100.1")
    for _ in range(300):
        clock.surge.request_over(theirs.facts, clock.now + 0.1)
        clock.see(seen(client="198.51.100.1", age=clock.random.lognormvariate(0, 1)))
    assert not clock.told


@pytest.mark.parametrize("ends", [0.0, 0.03])
@pytest.mark.parametrize("others", [0, 20])
@pytest.mark.parametrize("from_the_start", [True, False])
def test_an_event_stream_is_no_fault(ends: float, others: int, from_the_start: bool) -> None:
    """All of its clients leave it, or nearly all, by day more of them than by night."""
    clock = Clock()
    stream = dataclasses.replace(FACTS, client="10.0.3.7", route="/events")
    if not from_the_start:
        clock.mix()
    for share in (0.6, 0.97, 0.3, 0.9, 1.0):
        for _ in range(300):
            event = clock.any()
            if clock.random.random() < share:
                event = dataclasses.replace(
                    event, facts=dataclasses.replace(event.facts, route="/events")
                )
                if clock.random.random() < ends:
                    clock.surge.request_over(stream, clock.now)
            for _ in range(others):
                clock.surge.request_over(clock.any().facts, clock.now)
            clock.see(event)
    assert not clock.told


def test_a_route_that_breaks_is_told_beside_an_event_stream() -> None:
    clock = Clock()

    def departures(broken: float) -> list[ClientDeparted]:
        weights = [0.5, *(0.1 for _ in "acde"), 0.1 + broken]
        routes = clock.random.choices(["/events", *"acdeb"], weights, k=300)
        return [
            dataclasses.replace(event, facts=dataclasses.replace(event.facts, route=route))
            for event, route in ((clock.any(), route) for route in routes)
        ]

    assert not clock.see(*departures(0.0))
    (surge,) = clock.see(*departures(6.0))
    assert surge.cause is Cause.ROUTE
    assert surge.facts.route == "b"


def test_requests_of_one_page_are_one_departure() -> None:
    clock = Clock()
    clock.mix()
    # Six at once, twenty times.
    for _ in range(20):
        clock.see(*ages(30.0, 1))
        clock.see(*[seen(age=30.0, client="10.0.99.7")] * 6, every=0.001)
    for event in clock.told:
        assert event.count <= 40


def test_time_limits_at_a_constant_rate_are_no_burst() -> None:
    clock = Clock()
    assert not clock.see(*[seen(side=Side.SERVER)] * 3000, every=0.2)


def test_a_stop_is_a_burst() -> None:
    clock = Clock()
    clock.mix(1000)
    (told,) = clock.see(*[seen(side=Side.SERVER)] * 40, every=0.01)
    assert told.cause is Cause.DEPLOY
    assert told.seconds == 5


def test_a_stop_that_cuts_responses_short_is_one_too() -> None:
    clock = Clock()
    clock.mix(1000)
    (told,) = clock.see(*[drained(Outcome.CUT, cap=Cap.APPLICATION)] * 40, every=0.01)
    assert told.cause is Cause.DEPLOY


def test_many_at_the_start_are_told_once_it_is_known_what_is_usual() -> None:
    clock = Clock()
    clock.see(*(clock.any() for _ in range(90)), every=0.1)
    assert not clock.told
    clock.see(*(clock.any() for _ in range(6)), every=6)
    assert [event.cause for event in clock.told] == [Cause.DEPLOY]


def test_early_responses_that_were_always_lost_are_no_news() -> None:
    clock = Clock()
    outcomes = [Outcome.RESET, Outcome.RESET, Outcome.DELIVERED]
    assert not clock.see(*(drained(outcomes[number % 3]) for number in range(1000)))
    assert not clock.see(*[drained(Outcome.UNKNOWN)] * 500)


@pytest.mark.parametrize("risk", [1e-9, 1e-3])
def test_what_is_kept_is_bounded(risk: float) -> None:
    surge = Surge(SurgeThresholds(risk=risk))
    rng = random.Random(1)

    def flood(count: int, start: float) -> None:
        for number in range(count):
            now = start + number / 50
            address = f"{rng.randrange(1 << 64):x}::1"[-30:]
            event = seen(
                client=rng.choice(
                    [
                        f"{rng.randrange(223)}.{rng.randrange(256)}.{rng.randrange(256)}.1",
                        # What a proxy's header says may be taken for an address.
                        f"{rng.randrange(1 << 64):x}" * 2000,
                    ]
                ),
                route=f"/{address}" * 50,
                phase=Phase.REQUEST_BODY,
                bytes_in=rng.randrange(1, 1 << 30),
                age=rng.random() * 100,
                idle_seconds=rng.random() * 100,
            )
            surge.request_over(event.facts, now)
            surge.see(event, now)

    flood(4000, 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood(6000, 1000.0)
        assert tracemalloc.get_traced_memory()[0] - before < 1_500_000
    finally:
        tracemalloc.stop()


TIMES = st.floats(0, 1e6, allow_nan=False)
COUNTS = st.integers(0, 1 << 40)
EVENTS = st.one_of(
    st.builds(
        seen,
        age=st.floats(0, 1e5),
        client=st.one_of(
            st.sampled_from(["10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%eth0", "testclient"]),
            st.text(max_size=20),
        ),
        route=st.text(max_size=300),
        side=st.sampled_from(Side),
        witness=st.sampled_from(Witness),
        phase=st.sampled_from(Phase),
        known=st.booleans(),
        bytes_in=COUNTS,
        expected_in=st.none() | COUNTS,
        idle_seconds=st.none() | TIMES,
    ),
    st.builds(drained, st.sampled_from(Outcome), cap=st.none() | st.sampled_from(Cap)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(EVENTS, st.integers(1, 120), st.floats(0, 100)), max_size=25),
    st.booleans(),
)
def test_nothing_makes_it_raise_and_no_cause_is_told_without_end(
    runs: list[tuple[Event, int, float]], sampled: bool
) -> None:
    thresholds = SurgeThresholds(least=20, seconds=1.0, risk=1e-3, cool_down=1e9)
    surge = Surge(thresholds)
    now = 0.0
    told: list[Cause] = []
    for event, times, pause in runs:
        for _ in range(times):
            now += pause
            if sampled and surge.request_begins(now):
                surge.request_over(event.facts, now)
            told += [warning.cause for warning in surge.see(event, now)]
    # Each finding of a cause is told once, and so many of them are remembered.
    assert max(Counter(told).values(), default=0) <= 16


@given(st.data())
def test_the_tail_is_exact_above_the_mean_and_1_below(data: st.DataObject) -> None:
    of = data.draw(st.integers(1, 1000))
    count = data.draw(st.integers(0, of))
    thousandths = data.draw(st.integers(1, 999))
    tail = binomial_tail(count, of, thousandths / 1000)
    if count * 1000 <= of * thousandths:
        assert tail == 1
        return
    exact = Fraction(
        sum(
            math.comb(of, number) * thousandths**number * (1000 - thousandths) ** (of - number)
            for number in range(count, of + 1)
        ),
        1000**of,
    )
    assert tail == pytest.approx(float(exact), rel=1e-6, abs=1e-300)


class Known(Watch):
    """A request of which everything is known."""

    @property
    def status(self) -> int:
        return 200

    def facts(self) -> Facts:
        return FACTS


class Samples(Surge):
    """Keeps count of what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def request_over(self, facts: Facts, now: float) -> None:
        self.count += 1
        super().request_over(facts, now)


def test_long_and_short_requests_are_as_likely_to_be_samples() -> None:
    surge = Samples()
    reporter = Reporter([], counters=Counters(), surge=surge)
    begun = [Known(5.0 + number / 100) for number in range(8)] + [Known(5.2)]
    for watch in begun:
        if watch.started >= reporter.sample_at:
            reporter.request_begins(watch)
    # The first ones make up for those of the half second before, in which nobody came.
    assert [watch.is_sample for watch in begun] == [*[True] * 6, False, False, True]
    for watch in reversed(begun):
        watch.response_completed()
        if watch.is_sample:
            reporter.request_over(watch)
    assert surge.count == 7


def test_a_loop_that_is_held_has_as_many_samples() -> None:
    counts: list[int] = []
    for held in (0.01, 0.25, 0.5):
        surge = Surge()
        begun = [math.ceil(number / 50 / held) * held for number in range(3000)]
        counts.append(sum(now >= surge.sample_at and surge.request_begins(now) for now in begun))
    assert counts == pytest.approx([600] * 3, abs=10)


def test_who_is_left_is_no_sample() -> None:
    surge = Samples()
    reporter = Reporter([], counters=Counters(), surge=surge)
    left = Known(5.0)
    reporter.request_begins(left)
    left.peer_gone(Witness.RECEIVE, 6.0)
    reporter.request_over(left)
    assert left.is_sample
    assert surge.count == 0


def test_the_reporter_asks_and_tells() -> None:
    told: list[Event] = []
    counters = Counters()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.3
        return now

    reporter = Reporter([told.append], counters=counters, surge=Surge(), clock=clock)
    assert reporter.sample_at == 0.0
    reporter.request_begins(Known(0.3))
    assert reporter.sample_at == pytest.approx(0.1)
    for event in ages(30.0, 60):
        reporter.report(event)
    (surge,) = (event for event in told if isinstance(event, DepartureSurge))
    assert surge.cause is Cause.SAME_AGE
    assert counters.snapshot()['cleanclose_departure_surges_total{cause="same_age"}'] == 1


def test_the_collector_may_end_an_exchange_while_another_one_is_told_of() -> None:
    reporter = Reporter([], counters=Counters(), surge=Surge())
    event = seen()
    assert gets_through(lambda: reporter.report(event))


def test_without_a_detector_nobody_asks_for_samples() -> None:
    assert Reporter([]).sample_at == math.inf
    Reporter([]).request_over(Known(0.0))


@pytest.mark.parametrize(
    ("wanted", "sampled"), [(False, False), (True, True), (SurgeThresholds(least=20), True)]
)
def test_a_shims_reporter_has_a_detector_if_the_settings_want_one(
    wanted: bool | SurgeThresholds, sampled: bool
) -> None:
    reporter = make_reporter([], Settings(surge=wanted))
    assert (reporter.sample_at == 0.0) is sampled


def test_the_thresholds_of_the_settings_are_the_detectors() -> None:
    told: list[Event] = []
    clock = Clock()
    few = make_reporter([told.append], Settings(surge=SurgeThresholds(least=500)))
    for event in ages(30.0, 200):
        few.report(event)
        clock.see(event)
    assert clock.told
    assert not any(isinstance(event, DepartureSurge) for event in told)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"least": 19}, "least must be a whole number from 20 to 500"),
        ({"least": True}, "least"),
        ({"seconds": 0}, "seconds must be a finite number above 0"),
        ({"risk": 0.5}, "risk must be a finite number from 1e-30 to 1e-3"),
        ({"cool_down": math.inf}, "cool_down must be a finite number of 0 or more"),
        ({"cool_down": "9"}, "cool_down"),
    ],
)
def test_thresholds_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurgeThresholds(**wrong)


def test_the_setting_is_checked() -> None:
    wrong: Any = 3
    with pytest.raises(ValueError, match="surge must be True, False or SurgeThresholds"):
        Settings(surge=wrong)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("", ""),
        (None, ""),
    ],
)
def test_networks(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_idle_time_comes_from_the_kernel() -> None:
    first = TcpInfo(state=TcpState.ESTABLISHED, silent_for=2.5, acked_bytes=0)
    assert idle_before(first, 0.1) is None
    info = TcpInfo(state=TcpState.ESTABLISHED, silent_for=2.5, acked_bytes=1)
    assert idle_before(info, 0.1) == pytest.approx(2.4)
    # Something has been sent since the request began.
    assert idle_before(info, 3) is None
    assert idle_before(TcpInfo(state=TcpState.ESTABLISHED), 0.1) is None
    assert idle_before(None, 0.1) is None
