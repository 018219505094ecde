"""How often random departures raise a warning, and how soon the seven patterns do.

``python -m benchmarks.surge`` simulates days of traffic and tells `cleanclose.surge.Surge` of it,
on a clock of its own. Nothing is sent anywhere.

The random departures are made as unlike coin tosses as real ones are: few routes and networks
have most of the requests, and some are left far more often than others; ages, byte counts and
idle times have heavy tails, with the steps which servers' and applications' buffers make; handlers
that take a constant time; an event stream, which nearly all of its clients leave, and which has a
day of its own; pages that ask every five seconds; browsers that close several requests at once; a
day's swing of the traffic, with a job that runs by night only; a constant part of early responses
that is lost; and a time limit of the application's own that is reached now and then.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Final

from rich.console import Console
from rich.table import Table

from cleanclose.core import (
    Cause,
    ClientDeparted,
    DepartureSurge,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    Side,
    SurgeThresholds,
    UploadDrained,
    Verdict,
    Witness,
)
from cleanclose.surge import Surge

__all__ = ["PATTERNS", "Day", "Traffic", "delay", "main", "random_day"]

DAY: Final = 86400.0
RATES: Final = (0.001, 0.01, 0.1, 0.5)
LEVELS: Final = (1.0, 10.0, 100.0)
"""Requests per second."""
_ROUTES: Final = 30
_CLIENTS: Final = 4000
_CLUMP: Final = 0.25
"""The part of the departures that has another one of the same client right behind it."""
_EARLY: Final = 0.02
"""The part of the requests that is answered early."""
_STREAM: Final = _ROUTES + 1
"""The route of an event stream."""
_STREAMS: Final = 0.4
"""The part of the departures, on average, that is an event stream's."""
_STREAMS_THAT_END: Final = 0.02

Told = ClientDeparted | UploadDrained


def _verdict(phase: Phase, *, late: bool = False, side: Side = Side.CLIENT) -> Verdict:
    witness = Witness.WRITE if late else Witness.RECEIVE
    return Verdict(side=side, phase=phase, mechanism=Mechanism.RESET, witnesses=(witness,))


class Traffic:
    """Requests and departures as they come to one process.

    Args:
        rate: The part of the requests that is left.
        level: Requests per second on average.
        seed: For the same traffic again.
        balancers: How many addresses the requests come from, if they are a proxy's; 0 for the
            clients' own.
    """

    def __init__(self, rate: float, level: float, seed: int, *, balancers: int = 0) -> None:
        self.rate = rate
        self.level = level
        self.random = rng = random.Random(seed)
        routes = [1 / (number + 1) for number in range(_ROUTES)]
        clients = [1 / (number + 1) ** 1.05 for number in range(balancers or _CLIENTS)]
        if balancers:
            clients = [1.0] * balancers
        self._routes = list(itertools.accumulate(routes))
        self._clients = list(itertools.accumulate(clients))
        self._unlike_routes = [rng.lognormvariate(0, 0.8) for _ in routes]
        self._left_routes = list(itertools.accumulate(map(mul, self._unlike_routes, routes)))
        self._unlike_clients = [rng.lognormvariate(0, 0.6) for _ in clients]
        self._left_clients = list(itertools.accumulate(map(mul, self._unlike_clients, clients)))
        # As many are left as there are departures.
        self._scale = sum(routes) / self._left_routes[-1] * sum(clients) / self._left_clients[-1]
        self._patience = [rng.lognormvariate(0.5, 1) for _ in routes]
        self._takes = [rng.choice((0.05, 0.2, 1.2, 2.5, 4.0)) for _ in routes]
        self._facts: dict[tuple[int, int], Facts] = {}

    def _pick(self, weights: Sequence[float]) -> int:
        return bisect(weights, self.random.random() * weights[-1])

    def facts(self, client: int, route: int) -> Facts:
        """The facts of a request."""
        found = self._facts.get((client, route))
        if found is None:
            address = f"10.{client >> 8 & 255}.{client & 255}.{1 + client % 200}"
            found = self._facts[client, route] = Facts(
                framework="asgi",
                server="uvicorn",
                method="GET",
                client=address,
                route=f"/route/{route}",
            )
        return found

    def request(self, now: float) -> Facts:
        """A request."""
        return self.facts(*self._request(now))

    def _request(self, now: float) -> tuple[int, int]:
        route = self._pick(self._routes)
        if _is_night(now) and self.random.random() < 0.3:
            route = _ROUTES
        return self._pick(self._clients), route

    def completed(self, now: float) -> Facts | None:
        """A request, unless its client leaves."""
        if self.random.random() < self.rate * _streams(now):
            client, route, chance = self._pick(self._clients), _STREAM, 1 - _STREAMS_THAT_END
        else:
            client, route = self._request(now)
            chance = self.rate * self._unlike_clients[client] * self._scale
            if route < _ROUTES:
                chance *= self._unlike_routes[route]
        return None if self.random.random() < chance else self.facts(client, route)

    def departure(self, now: float) -> ClientDeparted:
        """A random departure."""
        rng = self.random
        route = self._pick(self._left_routes)
        if _is_night(now) and rng.random() < 0.3:
            route = _ROUTES
        if rng.random() < _streams(now):
            route = _STREAM
        facts = self.facts(self._pick(self._left_clients), route)
        return self.departure_of(facts, route)

    def departure_of(self, facts: Facts, route: int) -> ClientDeparted:
        """A random departure from a request."""
        rng = self.random
        kind = rng.random()
        age = rng.lognormvariate(0, 1.2) * self._patience[route % _ROUTES]
        phase, bytes_in, late, side = Phase.HANDLER, 0, False, Side.CLIENT
        if kind < 0.2:
            phase = Phase.REQUEST_BODY
            bytes_in = int(math.exp(rng.uniform(6, 17)))
            if route % 2:
                bytes_in -= bytes_in % 65536
        elif kind < 0.5:
            phase, late = Phase.RESPONSE_BODY, True
            age = self._takes[route % _ROUTES] * rng.uniform(1, 1.01)
        elif kind < 0.51:
            side, age = Side.SERVER, 8.0
        idle = None
        if rng.random() < 0.4:
            idle = 5 + rng.random() / 50 if rng.random() < 0.5 else rng.lognormvariate(1, 1.5)
            age = min(age, rng.random())
        return ClientDeparted(
            facts=facts,
            age_ms=age * 1000 + 1,
            verdict=_verdict(phase, late=late, side=side),
            bytes_in=bytes_in,
            expected_in=1 << 30 if bytes_in else None,
            wasted_seconds=None if late else 0.001,
            idle_seconds=idle,
        )

    def early(self, now: float) -> UploadDrained:
        """An early response; as many are lost as there are departures."""
        lost = self.random.random() < self.rate
        return UploadDrained(
            facts=self.request(now),
            age_ms=100.0,
            outcome=Outcome.RESET if lost else Outcome.DELIVERED,
        )


def _is_night(now: float) -> bool:
    return now % DAY < DAY / 8


def _swing(now: float) -> float:
    return 1 + 0.7 * math.sin(2 * math.pi * (now % DAY) / DAY)


def _streams(now: float) -> float:
    return _STREAMS * _swing(now + DAY / 3)


def _arrivals(traffic: Traffic, until: float) -> Iterator[tuple[float, Told]]:
    """The warnings, in the order of time."""
    rng = traffic.random
    most = 1.7
    per_second = traffic.level * (traffic.rate * (1 - _CLUMP) + _EARLY) * most
    early = _EARLY / (traffic.rate * (1 - _CLUMP) + _EARLY)
    waiting: list[tuple[float, Told]] = []
    now = 0.0
    while True:
        now += rng.expovariate(per_second)
        while waiting and waiting[0][0] <= now:
            yield waiting.pop(0)
        if now >= until:
            return
        if rng.random() * most > _swing(now):
            continue
        if rng.random() < early:
            yield now, traffic.early(now)
            continue
        departure = traffic.departure(now)
        yield now, departure
        after = now
        while rng.random() < _CLUMP:
            after += rng.expovariate(2)
            waiting.append((after, replace(departure, age_ms=departure.age_ms + rng.random())))
            waiting.sort(key=lambda entry: entry[0])


@dataclass(frozen=True, slots=True)
class Day:
    """What came of a simulated time."""

    told: int
    """Events that the detector has seen."""
    warnings: list[tuple[float, DepartureSurge]]


def random_day(traffic: Traffic, *, seconds: float = DAY, risk: float = 1e-9) -> Day:
    """Random departures only.

    Args:
        traffic: The traffic.
        seconds: How long.
        risk: See `cleanclose.core.SurgeThresholds`.
    """
    surge = Surge(SurgeThresholds(risk=risk))
    warnings: list[tuple[float, DepartureSurge]] = []
    told = 0
    for now, event in _arrivals(traffic, seconds):
        _sample(surge, traffic, now)
        told += 1
        warnings += [(now, warning) for warning in surge.see(event, now)]
    return Day(told, warnings)


def _sample(surge: Surge, traffic: Traffic, now: float, share: float = 0.0) -> None:
    """Report the requests that a shim would have reported by now.

    Args:
        surge: The detector.
        traffic: The requests.
        now: The time.
        share: The part of the requests that is a pattern's. They are all left.
    """
    while True:
        at = surge.sample_at
        # The first time it is asked, nothing is known of the time before.
        first = max(at, now - 5.0) + traffic.random.expovariate(traffic.level * _swing(now))
        if first > now:
            return
        surge.request_begins(first)
        if traffic.random.random() >= share and (facts := traffic.completed(first)) is not None:
            surge.request_over(facts, first)


# The patterns.


def _staged(traffic: Traffic, now: float, **more: object) -> ClientDeparted:
    event = traffic.departure_of(traffic.request(now), 0)
    return replace(
        event,
        verdict=_verdict(Phase.HANDLER),
        wasted_seconds=0.001,
        bytes_in=0,
        idle_seconds=None,
        age_ms=traffic.random.lognormvariate(0, 1) * 1000 + 1,
        **more,  # type: ignore[arg-type]
    )


def _route(traffic: Traffic, now: float) -> Told:
    event = _staged(traffic, now)
    return replace(event, facts=replace(event.facts, route="/route/7"))


def _one_client(traffic: Traffic, now: float) -> Told:
    event = _staged(traffic, now)
    return replace(event, facts=replace(event.facts, client="192.0.2.9"))


def _same_bytes(traffic: Traffic, now: float) -> Told:
    event = _staged(traffic, now)
    return replace(
        event, verdict=_verdict(Phase.REQUEST_BODY), bytes_in=1 << 20, expected_in=1 << 24
    )


def _same_age(traffic: Traffic, now: float) -> Told:
    return replace(_staged(traffic, now), age_ms=60_000 + traffic.random.random() * 50)


def _idle_reuse(traffic: Traffic, now: float) -> Told:
    return replace(
        _staged(traffic, now), age_ms=2.0, idle_seconds=75 + traffic.random.random() / 10
    )


def _deploy(traffic: Traffic, now: float) -> Told:
    return replace(_staged(traffic, now), verdict=_verdict(Phase.HANDLER, side=Side.SERVER))


def _undelivered(traffic: Traffic, now: float) -> Told:
    return replace(traffic.early(now), outcome=Outcome.RESET)


PATTERNS: Final[dict[Cause, Callable[[Traffic, float], Told]]] = {
    Cause.ROUTE: _route,
    Cause.ONE_CLIENT: _one_client,
    Cause.SAME_BYTES: _same_bytes,
    Cause.SAME_AGE: _same_age,
    Cause.IDLE_REUSE: _idle_reuse,
    Cause.DEPLOY: _deploy,
    Cause.UNDELIVERED: _undelivered,
}


def delay(cause: Cause, traffic: Traffic, *, per_second: float) -> tuple[float | None, list[Cause]]:
    """How long a pattern goes on before its warning.

    Args:
        cause: Which pattern.
        traffic: What else goes on, from an hour before.
        per_second: Departures of the pattern per second; on top of the random ones.

    Returns:
        Seconds from its beginning, None without a warning in ten minutes; and every cause
        that was warned of.
    """
    surge = Surge()
    begins, ends = 3600.0, 4200.0
    random_ones = _arrivals(traffic, ends)
    following = next(random_ones, None)
    told: list[Cause] = []
    found: float | None = None
    pattern = begins
    while following is not None or pattern < ends:
        event: Told
        if following is not None and following[0] <= pattern:
            now, event = following
            following = next(random_ones, None)
        elif pattern < ends:
            now, event = pattern, PATTERNS[cause](traffic, pattern)
            pattern += traffic.random.expovariate(per_second)
        else:
            break
        share = per_second / (per_second + traffic.level) if now > begins else 0.0
        _sample(surge, traffic, now, share)
        for warning in surge.see(event, now):
            told.append(warning.cause)
            if warning.cause is cause and found is None:
                found = now - begins
    return found, told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 if random departures raised a warning."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.surge", description="False alarms, and how soon the true ones."
    )
    parser.add_argument("--quick", action="store_true", help="one seed, up to 10 requests/s")
    parser.add_argument("--seeds", type=int, default=3, help="days of each kind (default 3)")
    parser.add_argument(
        "--risk", type=float, default=1e-9, help="the detector's own (default 1e-9)"
    )
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    levels = LEVELS[:2] if options.quick else LEVELS
    seeds = range(1 if options.quick else options.seeds)
    table = Table(title="24 simulated hours of random departures: warnings", title_justify="left")
    for title in ("", "requests/s", *(f"{rate:.1%}" for rate in RATES), "events", "us/event"):
        table.add_column(title, justify="right" if title else "left")
    raised = 0
    causes: Counter[Cause] = Counter()
    for balancers, name in ((0, "clients' own addresses"), (2, "two balancers' addresses")):
        for level in levels:
            cells: list[str] = []
            told, began = 0, time.perf_counter()
            for rate in RATES:
                warnings = 0
                for seed in seeds:
                    traffic = Traffic(rate, level, seed, balancers=balancers)
                    day = random_day(traffic, risk=options.risk)
                    told += day.told
                    warnings += len(day.warnings)
                    causes.update(warning.cause for _, warning in day.warnings)
                raised += warnings
                cells.append(f"{warnings} in {len(seeds)} d")
            cost = (time.perf_counter() - began) / max(1, told) * 1e6
            table.add_row(name, f"{level:g}", *cells, f"{told:,}", f"{cost:.0f}")
    console.print(table)
    if causes:
        console.print(dict(causes))
    delays = Table(
        title="Seconds until the warning of a pattern, at 10 requests/s with 1 % random departures",
        title_justify="left",
    )
    for title in ("", "1/s", "5/s", "other warnings"):
        delays.add_column(title, justify="right" if title.endswith("/s") else "left")
    for cause in Cause:
        others: set[Cause] = set()
        cells = []
        for per_second in (1.0, 5.0):
            seconds, every = delay(cause, Traffic(0.01, 10.0, 1), per_second=per_second)
            cells.append("-" if seconds is None else f"{seconds:.0f}")
            others |= set(every) - {cause}
        delays.add_row(cause.value, *cells, ", ".join(sorted(others)))
    console.print(delays)
    return 1 if raised else 0


if __name__ == "__main__":
    sys.exit(main())
