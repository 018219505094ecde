"""When departures stop being random: one warning, with numbers and the likely cause.

`Surge` does no I/O and reads no clock. It is told of events, and of some of the requests that came
to their end as usual. What it keeps is bounded, whatever it is told.

How it decides
--------------
Departures are gathered into a **window** of at least ``least`` departures and ``seconds`` seconds
(or an hour, if they are that rare). Of one client at most ten a second are taken, so that a
browser which closes a page with all its requests does not count as many; of all, at most
`_MOST` in a window. When the window is full, these questions are put to it:

- *Same age, same byte count, same idle time*: are there too many in one narrow band? The
  comparison is the neighbourhood of that band in the same window: however the ages are
  distributed, if it is smooth, a band that is a fraction of its neighbourhood has that fraction
  of the neighbours, give or take a factor of 3. A binomial tail, times the number of bands
  that were looked at, must be less than ``risk``. Only ages are taken of which the moment of the
  departure is known; of the others, which are seen when somebody writes, only those at the
  time-outs that are in use. Where earlier windows are known, the band must not have been
  popular in them.
- *One client, one route*: is its share of the departures larger than its share of the requests
  that nobody left explains, by more than it used to be? The latter comes from samples (ten of the
  requests that begin in a second), so that neither a new customer nor a nightly job looks like a
  fault. What is known of a client or route is weighed against the assumption that
  it is as any other, give or take a factor of 1.8. The upper end of all these uncertainties (3
  standard deviations) is what the binomial tail is computed with. An event stream lasts until
  its client leaves: so a route that is plainly unlike the others is taken as it is, and from one
  on which hardly a request has come to its end as usual nothing follows.
- *Early responses that stay undelivered*: is the share of those cut or reset, of all that were
  treated, larger than the upper end (4 standard deviations) of twice its odds before?
- *A burst at a deploy*: departures which this process itself has caused within 5 seconds, or
  those within the first 10 seconds of the process, as against the upper end of twice the rate
  at other times, by a Poisson tail.

What fits a warning that has been given is set aside before the next question is put, and in all
later windows, and does not become a part of what is usual: one episode is one warning. It ends
with three windows, or an hour, without it; the same cause is not told again within
``cool_down``.

False alarms
------------
A rate is never compared with another one, save for *burst at a deploy*: departures may come at
any rate, and with the day. With the defaults (a window takes 10 seconds or more, five questions,
``risk`` 1e-9) independent departures raise at most 8640 x 5 x 1e-9, that is 4e-5 warnings a day
and process; and the slack above is there because real ones are not independent. What a
simulation with heavy tails, clumps and a day's swing has raised, ``python -m benchmarks.surge``
says.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cleanclose.core.events import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Outcome,
    Phase,
    Side,
    UploadDrained,
    Witness,
)
from cleanclose.core.tcp_info import TcpInfo

__all__ = ["Surge", "SurgeThresholds", "binomial_tail", "idle_before", "network_of"]


_SAMPLE_SECONDS: Final = 0.1
"""The mix of requests is learnt from one request in each such time."""
_SAMPLES_AT_ONCE: Final = 5
"""Samples that may come at once, when none has come for as long."""
_SAME_CLIENT_SECONDS: Final = 0.1
"""Departures of one client closer to each other than this are one act."""
_MOST: Final = 512
"""Departures that a window takes."""
_KEYS: Final = 256
"""Routes, and networks, that are surely counted one by one."""
_LONGEST: Final = 3600.0
"""Seconds after which a window is looked at even if it is not full."""
_MEMORY: Final = 1800.0
"""Seconds after which what was usual counts for 1/e."""
_ENOUGH: Final = 40
"""Earlier departures, or requests, without which nothing is usual yet."""
_LEAST_SHARE: Final = 0.25
"""A smaller part of the departures is no surge."""
_UNLIKE: Final = 0.36
"""How unlike each other clients, or routes, are: the variance of the logarithm of how much more
often than on average they are left. (One in a thousand is left 6 times as often.)"""
_ENDED_AS_USUAL: Final = 5
"""Requests on a route, of the samples, before which nothing is said about it."""
_PLAINLY: Final = 3.0
"""Standard deviations beyond which a route is of another kind. With fewer, two windows of a fault
would make it one."""
_QUIET_WINDOWS: Final = 3
"""Windows without it end an episode."""
_SLOWEST: Final = 1.0
"""Seconds below which equal ages, or idle times, are nobody's time-out."""
_LATEST: Final = 7200.0
_KNOWN: Final = (
    5,
    10,
    15,
    20,
    29,
    30,
    45,
    60,
    75,
    90,
    100,
    120,
    180,
    230,
    240,
    300,
    350,
    600,
    3600,
)
"""Time-outs in use, in seconds."""
_AGE_HINTS: Final = {
    5: "the default of many clients",
    15: "Envoy's route timeout",
    29: "the limit of AWS API Gateway",
    30: "Heroku's router; Google Cloud's backend service; the default of many clients",
    60: "nginx proxy_read_timeout; idle timeout of an AWS application load balancer",
    75: "nginx keepalive_timeout",
    100: "Cloudflare",
    230: "Azure App Service",
    240: "Azure Load Balancer",
    350: "AWS network load balancer",
}
_IDLE_HINTS: Final = {
    5: "keep-alive of uvicorn, Node.js and Apache",
    60: "idle timeout of an AWS application load balancer; nginx upstream keepalive_timeout",
    75: "nginx keepalive_timeout",
    90: "Go's IdleConnTimeout",
    240: "Azure Load Balancer",
    350: "AWS network load balancer",
}
_PRECISE: Final = frozenset({Witness.RECEIVE, Witness.STREAM, Witness.INPUT})
"""Witnesses that are there at the very moment, if the moment is known at all."""
_STOP_SECONDS: Final = 5.0
_START_SECONDS: Final = 10.0
_START_KNOWN: Final = 30.0
"""Seconds after which there is something to compare the first ones with."""
_BURST: Final = 10
"""Fewer at once are no burst, however quiet it has been."""
_RECENT: Final = 64
_MINUTES: Final = 60
"""Minutes with such departures that are remembered."""
_PAGE: Final = 4096
_PIECE: Final = 65536
"""What servers and applications read at once: byte counts come in multiples of it by themselves."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SurgeThresholds:
    """When departures count as a surge.

    Args:
        least: How many departures, or treated early responses, are looked at together at least;
            from 20 to 500. Default 40.
        seconds: How many seconds are looked at together at least; above 0. Default 10.
        risk: The probability with which a look at random departures may call them a surge;
            from 1e-30 to 1e-3. Default 1e-9.
        cool_down: For how many seconds after the end of an episode the same cause is not told
            again; 0 or more. Default 900.

    Raises:
        ValueError: A value has the wrong type or is out of its range. The message names it and
            the range.
    """

    least: int = 40
    seconds: float = 10.0
    risk: float = 1e-9
    cool_down: float = 900.0

    def __post_init__(self) -> None:
        _check_least(self.least)
        for name, lowest, highest, wanted in (
            ("seconds", math.ulp(0.0), math.inf, "above 0"),
            ("risk", 1e-30, 1e-3, "from 1e-30 to 1e-3"),
            ("cool_down", 0.0, math.inf, "of 0 or more"),
        ):
            value: object = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not (lowest <= value <= highest and math.isfinite(value))
            ):
                raise ValueError(f"{name} must be a finite number {wanted}, not {value!r}")


def _check_least(least: object) -> None:
    if isinstance(least, bool) or not isinstance(least, int) or not 20 <= least <= 500:
        raise ValueError(f"least must be a whole number from 20 to 500, not {least!r}")


class _Departure(NamedTuple):
    network: str
    route: str
    age: float
    """Seconds until it left, or until that was seen."""
    is_precise: bool
    """Whether it is the first."""
    bytes_in: int
    """Of a body that was cut off; 0 for none."""
    idle: float
    """Seconds that the connection had been idle, if it left at once; -1 if that is not known."""


_Fits = Callable[[_Departure], bool]


@dataclasses.dataclass(slots=True)
class _Finding:
    """What one question has found in a window."""

    cause: Cause
    count: int
    of: int
    usual: float | None
    fits: _Fits
    since: float | None = None
    """Since when departures were looked at; None for the window's beginning."""
    seconds: float = 0.0
    route: str | None = None
    network: str | None = None
    seconds_each: float | None = None
    bytes_each: int | None = None
    hint: str | None = None


@dataclasses.dataclass(slots=True)
class _Episode:
    """A surge that has been told."""

    fits: _Fits
    least: float
    """The share of a window from which on it is still there."""
    last_seen: float
    quiet: int = 0
    over: bool = False


class _Tally:
    """How often each key came, for the most frequent ones.

    The others are forgotten together, and each of them counts as the most frequent one of them.
    """

    __slots__ = ("_forgotten", "counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.total = 0.0
        self._forgotten = 0.0

    def add(self, key: str) -> None:
        self.total += 1
        self.counts[key] = self.counts.get(key, 0.0) + 1
        self._forget()

    def merge(self, counts: Mapping[str, float], total: float, kept: float) -> None:
        """Add other counts to what is kept of these."""
        self.total = self.total * kept + total
        self._forgotten *= kept
        own = {key: count * kept for key, count in self.counts.items()}
        for key, count in counts.items():
            own[key] = own.get(key, 0.0) + count
        self.counts = own
        self._forget()

    def of(self, key: str) -> float:
        return min(self.counts.get(key, self._forgotten), self.total)

    def _forget(self) -> None:
        # In batches: it takes a sorting.
        if len(self.counts) > 2 * _KEYS:
            ordered = sorted(self.counts.items(), key=_count, reverse=True)
            self.counts = dict(ordered[:_KEYS])
            self._forgotten = max(self._forgotten, ordered[_KEYS][1])


def _count(item: tuple[str, float]) -> float:
    return item[1]


class _Mix:
    """Counts by network and by route."""

    __slots__ = ("networks", "routes")

    def __init__(self) -> None:
        self.networks = _Tally()
        self.routes = _Tally()

    def add(self, network: str, route: str) -> None:
        self.networks.add(network)
        self.routes.add(route)

    @staticmethod
    def of_networks(mix: _Mix) -> _Tally:
        return mix.networks

    @staticmethod
    def of_routes(mix: _Mix) -> _Tally:
        return mix.routes


class _Window:
    """What has come since the last look."""

    __slots__ = ("departures", "requests", "started")

    def __init__(self, now: float) -> None:
        self.started = now
        self.departures: list[_Departure] = []
        self.requests = _Mix()


class Surge:
    """Tells when departures stop being random. Any thread may use it.

    Args:
        thresholds: When departures count as a surge. Default: `SurgeThresholds`.
    """

    def __init__(self, thresholds: SurgeThresholds | None = None) -> None:
        self._thresholds = thresholds or SurgeThresholds()
        self._lock = threading.RLock()
        self.sample_at = 0.0
        """`request_begins` is to be asked about a request that begins at this time or later."""
        self._started: float | None = None
        self._early = 0
        self._later = 0
        self._looked_at_start = False
        self._window: _Window | None = None
        self._last: _Window | None = None
        self._clients: dict[str, float] = {}
        self._usual = _Mix()
        self._usual_requests = _Mix()
        self._usual_departures: deque[_Departure] = deque(maxlen=_KEYS)
        self._responses = _Responses(0.0)
        self._cuts = _Cuts()
        self._episodes: dict[Cause, _Episode] = {}

    def request_begins(self, now: float) -> bool:
        """Whether this request is one of the samples of what requests there are.

        Decided when it begins: later, short ones would be more likely to be chosen.

        Args:
            now: The time, in seconds on any clock that only goes forward.
        """
        with self._lock:
            if now < self.sample_at:
                return False
            # A loop that was held begins many at once: they make up for the samples it missed.
            self.sample_at = max(self.sample_at, now - _SAMPLES_AT_ONCE * _SAMPLE_SECONDS)
            self.sample_at += _SAMPLE_SECONDS
            return True

    def request_over(self, facts: Facts, now: float) -> None:
        """A request that is a sample is over, and its client has not left.

        Args:
            facts: What is known of it.
            now: The time, on the clock of `request_begins`.
        """
        with self._lock:
            self._begin(now).requests.add(network_of(facts.client), _route(facts))

    def see(self, event: Event, now: float) -> list[DepartureSurge]:
        """An event has been sent.

        Args:
            event: The event. Those which tell of nobody's departure are ignored.
            now: The time, on the clock of `request_begins`.

        Returns:
            The warnings that follow from it; nearly always none.
        """
        with self._lock:
            findings: list[_Finding]
            if isinstance(event, UploadDrained):
                findings = self._see_response(event, now)
            elif isinstance(event, ClientDeparted):
                findings = self._see_departure(event, now)
            else:
                return []
            return [self._event(finding, event.facts, now) for finding in findings]

    # What comes.

    def _begin(self, now: float) -> _Window:
        if self._started is None:
            self._started = now
            self._responses = _Responses(now)
        if self._window is None:
            self._window = _Window(now)
        return self._window

    def _see_response(self, event: UploadDrained, now: float) -> list[_Finding]:
        self._begin(now)
        if event.cap is Cap.APPLICATION:
            return self._see_cut(now)
        if event.outcome is Outcome.UNKNOWN:
            return []
        responses = self._responses
        responses.of += 1
        responses.failed += event.outcome is not Outcome.DELIVERED
        if now - responses.started < self._length(responses.of):
            return []
        finding = responses.too_many(self._thresholds.risk)
        if finding is not None:
            finding.seconds = now - responses.started
        self._responses = _Responses(now, responses, learn=finding is None)
        return self._tell(Cause.UNDELIVERED, finding, now)

    def _see_departure(self, event: ClientDeparted, now: float) -> list[_Finding]:
        window = self._begin(now)
        if event.verdict.side is Side.SERVER:
            return self._see_cut(now)
        if event.verdict.side is not Side.CLIENT:
            return []
        if not self._is_first_of_client(event.facts.client or "", now):
            return []
        found = self._see_start(now)
        if len(window.departures) < _MOST:
            window.departures.append(_departure(event))
        if now - window.started >= self._length(len(window.departures)):
            found += self._look(window, now)
        return found

    def _length(self, count: int) -> float:
        return self._thresholds.seconds if count >= self._thresholds.least else _LONGEST

    def _is_first_of_client(self, client: str, now: float) -> bool:
        # A proxy's header may be as long as it likes.
        client = client[:64]
        before = self._clients.get(client)
        if before is not None and now - before < _SAME_CLIENT_SECONDS:
            return False
        if len(self._clients) >= _MOST and client not in self._clients:
            self._clients.clear()
        self._clients[client] = now
        return True

    # This process's own doing.

    def _see_cut(self, now: float) -> list[_Finding]:
        count, usual = self._cuts.seen(now, self._started or now)
        if count < _BURST or _poisson_tail(count, usual) * _RECENT >= self._thresholds.risk:
            return []
        finding = _Finding(
            cause=Cause.DEPLOY,
            count=count,
            of=count,
            usual=None,
            fits=_nothing,
            seconds=_STOP_SECONDS,
            hint="this process has cut them: it is being stopped, or a time limit around the "
            "application ran out for all of them at once",
        )
        return self._tell(Cause.DEPLOY, finding, now)

    def _see_start(self, now: float) -> list[_Finding]:
        if self._looked_at_start or self._started is None:
            return []
        age = now - self._started
        if age < _START_SECONDS:
            self._early += 1
            return []
        self._later += 1
        if age < _START_KNOWN:
            return []
        self._looked_at_start = True
        rate = _upper_count(self._later) / (age - _START_SECONDS)
        if _poisson_tail(self._early, 2 * rate * _START_SECONDS) >= self._thresholds.risk:
            return []
        finding = _Finding(
            cause=Cause.DEPLOY,
            count=self._early,
            of=self._early + self._later,
            usual=None,
            fits=_nothing,
            seconds=age,
            hint="in the first seconds of this process",
        )
        return self._tell(Cause.DEPLOY, finding, now)

    # A full window.

    def _look(self, window: _Window, now: float) -> list[_Finding]:
        self._window = _Window(now)
        told: list[_Finding] = []
        rest = window.departures
        for cause, episode in self._episodes.items():
            if cause in _OF_WINDOWS and not episode.over:
                before = len(rest)
                rest = [departure for departure in rest if not episode.fits(departure)]
                share = (before - len(rest)) / max(1, len(window.departures))
                self._go_on(episode, share >= episode.least, now)
        for question in (
            self._same_bytes,
            self._same_age,
            self._same_idle,
            self._one_client,
            self._one_route,
        ):
            finding = question(rest, window)
            if finding is not None:
                since = window.started if finding.since is None else finding.since
                finding.seconds = now - since
                rest = [departure for departure in rest if not finding.fits(departure)]
                told += self._tell(finding.cause, finding, now)
        last, self._last = self._last, window
        window.departures = rest
        if last is not None:
            # One window late: what has just begun is not usual yet.
            self._learn(last, window.started)
        return told

    def _learn(self, window: _Window, until: float) -> None:
        kept = math.exp((window.started - until) / _MEMORY)
        kept = min(0.98, max(0.8, kept))
        for tally_of, key_of in ((_Mix.of_networks, _network), (_Mix.of_routes, _route_of)):
            counts = Counter(map(key_of, window.departures))
            tally_of(self._usual).merge(counts, len(window.departures), kept)
            requests = tally_of(window.requests)
            tally_of(self._usual_requests).merge(requests.counts, requests.total, kept)
        self._usual_departures.extend(window.departures[:: max(1, len(window.departures) // 64)])

    def _same_bytes(self, rest: Sequence[_Departure], window: _Window) -> _Finding | None:
        values = Counter(departure.bytes_in for departure in rest if departure.bytes_in)
        if not values:
            return None
        value, count = values.most_common(1)[0]
        near = sum(
            number for other, number in values.items() if value / 1.5 <= other <= value * 1.5
        )
        cells = value * (1.5 - 1 / 1.5) / _PIECE if value % _PAGE == 0 else 32.0
        chance = min(0.5, 2 / max(cells, 1.0))
        if cells < 2 or not self._is_dense(count, near, chance, len(values), len(rest)):
            return None

        def fits(departure: _Departure) -> bool:
            return departure.bytes_in == value

        usual = self._usually(fits)
        if not self._is_new(count, len(rest), usual):
            return None
        return _Finding(
            cause=Cause.SAME_BYTES,
            count=count,
            of=len(rest),
            usual=None if usual is None else usual[0] / usual[1],
            fits=fits,
            bytes_each=value,
            hint="a limit for bodies in front of this process; or, of a few packets, an MTU that "
            "some link on the way does not take",
        )

    def _same_age(self, rest: Sequence[_Departure], window: _Window) -> _Finding | None:
        precise = [departure.age for departure in rest if departure.is_precise]
        found = self._densest(precise, len(rest))
        if found is None:
            every = [departure.age for departure in rest]
            found = self._densest(every, len(rest))
            if found is None or _known(found[0]) is None:
                return None
        middle, count = found
        fits = _band(_age, middle)
        usual = self._usually(fits)
        if not self._is_new(count, len(rest), usual):
            return None
        known = _known(middle)
        return _Finding(
            cause=Cause.SAME_AGE,
            count=count,
            of=len(rest),
            usual=None if usual is None else usual[0] / usual[1],
            fits=fits,
            seconds_each=middle if known is None else float(known),
            hint=_hint("a time-out in front of this process", _AGE_HINTS, known),
        )

    def _same_idle(self, rest: Sequence[_Departure], window: _Window) -> _Finding | None:
        found = self._densest([departure.idle for departure in rest], len(rest))
        if found is None:
            return None
        middle, count = found
        fits = _band(_idle, middle)
        usual = self._usually(fits)
        # Pages that ask every five seconds are always idle for as long.
        if usual is None or not self._is_new(count, len(rest), usual):
            return None
        known = _known(middle)
        return _Finding(
            cause=Cause.IDLE_REUSE,
            count=count,
            of=len(rest),
            usual=usual[0] / usual[1],
            fits=fits,
            seconds_each=middle if known is None else float(known),
            hint=_hint(
                "somebody forgets idle connections that another one still uses", _IDLE_HINTS, known
            ),
        )

    def _one_client(self, rest: Sequence[_Departure], window: _Window) -> _Finding | None:
        found = self._too_many(_network, rest, window, _Mix.of_networks)
        if found is None:
            return None
        network, count, of, usual, since = found

        def fits(departure: _Departure) -> bool:
            return departure.network == network

        return _Finding(
            cause=Cause.ONE_CLIENT,
            count=count,
            of=of,
            usual=usual,
            fits=fits,
            since=since,
            network=network,
            hint="one client, or one network, and nobody else",
        )

    def _one_route(self, rest: Sequence[_Departure], window: _Window) -> _Finding | None:
        found = self._too_many(_route_of, rest, window, _Mix.of_routes)
        if found is None:
            return None
        route, count, of, usual, since = found
        asked = [self._usual_requests, window.requests]
        if self._last is not None:
            asked.append(self._last.requests)
        if sum(mix.routes.of(route) for mix in asked) < _ENDED_AS_USUAL:
            return None

        def fits(departure: _Departure) -> bool:
            return departure.route == route

        return _Finding(
            cause=Cause.ROUTE,
            count=count,
            of=of,
            usual=usual,
            fits=fits,
            since=since,
            route=route,
            hint="it has become slow, or fails in a way that makes clients give up",
        )

    # The statistics.

    def _is_dense(self, count: int, near: int, chance: float, bands: int, of: int) -> bool:
        return (
            count >= _LEAST_SHARE * of
            and binomial_tail(count, near, chance) * bands < self._thresholds.risk
        )

    def _densest(self, values: Iterable[float], of: int) -> tuple[float, int] | None:
        """The narrow band with the most values, if there are too many in it.

        Returns:
            Its middle, and how many.
        """
        ordered = sorted(value for value in values if _SLOWEST <= value <= _LATEST)
        best, most, first = 0.0, 0, 0
        for last, value in enumerate(ordered):
            while value > ordered[first] + _width(ordered[first]):
                first += 1
            if last - first + 1 > most:
                best, most = ordered[(first + last) // 2], last - first + 1
        if not most:
            return None
        near = sum(best / 1.5 <= value <= best * 1.5 for value in ordered)
        chance = min(0.5, 3 * math.log1p(_width(best) / best) / math.log(2.25))
        if not self._is_dense(most, near, chance, len(ordered), of):
            return None
        return best, most

    def _usually(self, fits: _Fits) -> tuple[int, int] | None:
        """How many of the earlier departures fit, and of how many; None if it is too early."""
        earlier = self._usual_departures
        if len(earlier) < _ENOUGH:
            return None
        return sum(map(fits, earlier)), len(earlier)

    def _is_new(self, count: int, of: int, usual: tuple[int, int] | None) -> bool:
        if usual is None:
            return True
        upper = _twice_the_odds(_upper_share(*usual))
        return binomial_tail(count, of, upper) < self._thresholds.risk

    def _too_many(
        self,
        key_of: Callable[[_Departure], str],
        rest: Sequence[_Departure],
        window: _Window,
        tally_of: Callable[[_Mix], _Tally],
    ) -> tuple[str, int, int, float, float] | None:
        """The key which more departures have than its requests explain.

        Looked for in the window, and in this one and the last one together: little is known of
        most keys, and then it takes more of them.

        Returns:
            The key, how many have it, of how many, the share that was to be expected, and
            since when they were looked at.
        """
        since = window.started
        keys = [key for departure in rest if (key := key_of(departure))]
        requests = tally_of(window.requests)
        found = self._too_many_of(keys, requests, tally_of)
        if found is None and self._last is not None:
            both = _Tally()
            for part in (requests, tally_of(self._last.requests)):
                both.merge(part.counts, part.total, 1.0)
            keys += [key for departure in self._last.departures if (key := key_of(departure))]
            found = self._too_many_of(keys, both, tally_of)
            since = self._last.started
        return None if found is None else (*found, since)

    def _too_many_of(
        self, keys: Sequence[str], requests: _Tally, tally_of: Callable[[_Mix], _Tally]
    ) -> tuple[str, int, int, float] | None:
        usual, usual_requests = tally_of(self._usual), tally_of(self._usual_requests)
        of = len(keys)
        known = min(usual.total, requests.total, usual_requests.total)
        if of < self._thresholds.least // 2 or known < _ENOUGH - 0.5:
            return None
        counts = Counter(keys)
        key, count = counts.most_common(1)[0]
        if count < 2 * _LEAST_SHARE * of:
            return None
        asked, asked_error = _log_odds(requests.of(key), requests.total)
        # How much more often than others it was left before, shrunk to "as often" ...
        left, before = usual.of(key), usual_requests.of(key)
        ratio = math.log((left + 1) / (usual.total * before / usual_requests.total + 1))
        error = 1 / (left + 1) + 1 / (before + 1)
        weight = _UNLIKE / (_UNLIKE + error)
        expected, spread = asked + weight * ratio, asked_error + weight * error
        is_route = tally_of is _Mix.of_routes
        if is_route and ratio > _PLAINLY * math.sqrt(_UNLIKE + error):
            # ... unless it is a route of another kind: all of an event stream's clients leave it.
            left_odds, left_error = _log_odds(left, usual.total)
            before_odds, before_error = _log_odds(before, usual_requests.total)
            expected = asked + left_odds - before_odds
            spread = asked_error + left_error + before_error
        spread = 3 * math.sqrt(spread + 0.35**2)
        upper = 1 / (1 + math.exp(-min(expected + spread, 700.0)))
        if binomial_tail(count, of, upper) * len(counts) >= self._thresholds.risk:
            return None
        return key, count, of, 1 / (1 + math.exp(-expected))

    # What has been told.

    def _tell(self, cause: Cause, finding: _Finding | None, now: float) -> list[_Finding]:
        episode = self._episodes.get(cause)
        if episode is not None and not episode.over:
            self._go_on(episode, finding is not None, now)
        if finding is None:
            return []
        if episode is not None and (
            not episode.over or now - episode.last_seen < self._thresholds.cool_down
        ):
            return []
        self._episodes[cause] = _Episode(
            fits=finding.fits, least=finding.count / max(1, finding.of) / 4, last_seen=now
        )
        return [finding]

    @staticmethod
    def _go_on(episode: _Episode, is_there: bool, now: float) -> None:
        if is_there and now - episode.last_seen <= 2 * _LONGEST:
            episode.last_seen, episode.quiet = now, 0
            return
        episode.quiet += 1
        episode.over = episode.quiet >= _QUIET_WINDOWS or now - episode.last_seen > _LONGEST

    def _event(self, finding: _Finding, last: Facts, now: float) -> DepartureSurge:
        return DepartureSurge(
            facts=Facts(
                framework=last.framework,
                server=last.server,
                method=last.method,
                route=finding.route,
            ),
            age_ms=round(finding.seconds * 1000, 3),
            seconds=round(finding.seconds, 3),
            cause=finding.cause,
            count=finding.count,
            of=finding.of,
            share=round(finding.count / max(1, finding.of), 3),
            usual_share=None if finding.usual is None else round(finding.usual, 3),
            seconds_each=None if finding.seconds_each is None else round(finding.seconds_each, 2),
            bytes_each=finding.bytes_each,
            network=finding.network,
            likely_cause=finding.hint,
        )


class _Responses:
    """Early responses since the last look, and before."""

    __slots__ = ("failed", "last", "of", "started", "usual")

    def __init__(self, now: float, before: _Responses | None = None, *, learn: bool = True) -> None:
        self.started = now
        self.failed = 0
        self.of = 0
        self.usual = (0.0, 0.0)
        self.last = (0, 0)
        if before is not None:
            # One window late, as with departures.
            failed, of = (kept * 0.9 for kept in before.usual)
            self.usual = (failed + before.last[0], of + before.last[1])
            self.last = (before.failed, before.of) if learn else (0, 0)

    def too_many(self, risk: float) -> _Finding | None:
        """Whether more of them were lost than before."""
        failed, of = self.usual
        if of < _ENOUGH or self.failed < _LEAST_SHARE * self.of:
            return None
        upper = _twice_the_odds(_upper_share(failed, of))
        if binomial_tail(self.failed, self.of, upper) >= risk:
            return None
        return _Finding(
            cause=Cause.UNDELIVERED,
            count=self.failed,
            of=self.of,
            usual=failed / of,
            fits=_nothing,
            hint="a proxy in front of this process, or the clients, stop before they have the "
            "response",
        )


class _Cuts:
    """Departures which this process has caused."""

    __slots__ = ("minutes", "recent")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.minutes: deque[list[float]] = deque(maxlen=_MINUTES)
        """The minute, and how many."""

    def seen(self, now: float, started: float) -> tuple[int, float]:
        """Another one.

        Returns:
            How many there were within `_STOP_SECONDS`, and how many there might have been by
            what is usual.
        """
        minute = now // 60
        if not self.minutes or self.minutes[-1][0] != minute:
            self.minutes.append([minute, 0])
        self.minutes[-1][1] += 1
        self.recent.append(now)
        count = sum(now - time <= _STOP_SECONDS for time in self.recent)
        known = min(now - started, self._known(minute)) - _STOP_SECONDS
        if known <= 0:
            return count, math.inf
        before = max(0.0, sum(number for _, number in self.minutes) - count)
        return count, 2 * _upper_count(before) / known * _STOP_SECONDS

    def _known(self, minute: float) -> float:
        """Seconds that the minutes stand for: without end as long as none was thrown away."""
        if len(self.minutes) < _MINUTES:
            return math.inf
        return (minute - self.minutes[0][0]) * 60


def idle_before(info: TcpInfo | None, age: float) -> float | None:
    """For how many seconds a connection had been idle when a request came.

    Args:
        info: What the kernel says of the connection.
        age: Seconds since the request's start.

    Returns:
        The seconds; None if it cannot be told: something was sent since the request's start, the
        request is the connection's first one, or the kernel does not tell.
    """
    if info is None or info.silent_for is None or not info.acked_bytes:
        return None
    idle = info.silent_for - age
    return round(idle, 3) if idle > 0 else None


def network_of(client: str | None) -> str:
    """The network that a client's address belongs to: its /24, or for IPv6 its /64.

    Args:
        client: The address. What is none (a UNIX socket's path) is a network of its own.

    Returns:
        The network; empty if there is no address.
    """
    if not client:
        return ""
    # By hand where that is safe: nearly all of them, and it is done for every departure.
    first, _, rest = client.rpartition(".")
    if first and ":" not in client and rest.isdecimal() and first.count(".") == 2:
        return f"{first[:60]}.0/24"
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64]
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return network_of(str(mapped))
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _route(facts: Facts) -> str:
    return "" if facts.route is None else facts.route[:200]


def _departure(event: ClientDeparted) -> _Departure:
    facts, verdict = event.facts, event.verdict
    age = event.age_ms / 1000
    is_known = event.wasted_seconds is not None
    if event.wasted_seconds is not None:
        age -= event.wasted_seconds
    is_precise = is_known and verdict.witnesses[:1] != () and verdict.witnesses[0] in _PRECISE
    is_cut_off = verdict.phase is Phase.REQUEST_BODY and event.bytes_in != event.expected_in
    at_once = event.idle_seconds is not None and age <= _SLOWEST
    return _Departure(
        network=network_of(facts.client),
        route=_route(facts),
        age=age,
        is_precise=is_precise,
        bytes_in=event.bytes_in if is_cut_off else 0,
        idle=event.idle_seconds if at_once and event.idle_seconds is not None else -1.0,
    )


def _nothing(departure: _Departure) -> bool:
    return False


def _network(departure: _Departure) -> str:
    return departure.network


def _route_of(departure: _Departure) -> str:
    return departure.route


def _age(departure: _Departure) -> float:
    return departure.age


def _idle(departure: _Departure) -> float:
    return departure.idle


def _width(value: float) -> float:
    """How far apart equal times may be: a fiftieth, and not less than a busy machine is late."""
    return max(0.1, value / 50)


def _band(of: Callable[[_Departure], float], middle: float) -> _Fits:
    """Whether a departure's time is the same as this one, with room for stragglers."""
    room = 2 * _width(middle)

    def fits(departure: _Departure) -> bool:
        return abs(of(departure) - middle) <= room

    return fits


def _known(seconds: float) -> int | None:
    return next((known for known in _KNOWN if abs(seconds - known) <= _width(known)), None)


def _hint(text: str, hints: Mapping[int, str], known: int | None) -> str:
    example = None if known is None else hints.get(known)
    return text if example is None else f"{text}; {known} s: {example}"


def _log_odds(count: float, of: float) -> tuple[float, float]:
    """The logarithm of the odds, and the square of its error."""
    yes, no = count + 0.5, of - count + 0.5
    return math.log(yes / no), 1 / yes + 1 / no


def _upper_share(count: float, of: float, z: float = 4.0) -> float:
    """The upper end of Wilson's interval for a share (Wilson, 1927)."""
    share, part = count / of, z * z / of
    middle = share + part / 2
    return min(
        1.0, (middle + z * math.sqrt(share * (1 - share) / of + part / (4 * of))) / (1 + part)
    )


def _upper_count(count: float, z: float = 3.0) -> float:
    """The same for a count: the upper end of the score interval of a Poisson mean."""
    return count + z * z / 2 + z * math.sqrt(count + z * z / 4)


def _twice_the_odds(share: float) -> float:
    return 2 * share / (1 + share)


def binomial_tail(count: int, of: int, chance: float) -> float:
    """The probability of ``count`` or more successes, of so many; 1 for not more than the mean.

    Args:
        count: How many.
        of: Of how many.
        chance: The probability of each.
    """
    # Below the mean it is next to 1, and the first term too small for a float.
    if count <= of * chance:
        return 1.0
    if count > of or chance <= 0:
        return 0.0
    log_term = (
        math.lgamma(of + 1)
        - math.lgamma(count + 1)
        - math.lgamma(of - count + 1)
        + count * math.log(chance)
        + (of - count) * math.log1p(-chance)
    )
    term = total = math.exp(log_term)
    odds = chance / (1 - chance)
    for number in range(count, of):
        term *= (of - number) / (number + 1) * odds
        total += term
    return min(1.0, total)


def _poisson_tail(count: int, mean: float) -> float:
    """The probability of ``count`` or more, of so many on average; 1 for not more than these."""
    if count <= mean or math.isinf(mean):
        return 1.0
    if mean <= 0:
        return 0.0
    term = total = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    # Each term is less than mean / count times the one before.
    number = count
    while term > total * 1e-12:
        number += 1
        term *= mean / number
        total += term
    return min(1.0, total)


_OF_WINDOWS: Final = frozenset(
    {Cause.SAME_BYTES, Cause.SAME_AGE, Cause.IDLE_REUSE, Cause.ONE_CLIENT, Cause.ROUTE}
)
"""Causes that full windows are asked for."""
