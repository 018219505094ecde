"""What the detector remembers: counts by key, windows of departures, and usual shares."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

from cleanclose.surge.departures import Departure, Fits

__all__ = ["ENOUGH", "Memory", "Mix", "Tally", "Window", "network_key", "route_key"]

ENOUGH: Final = 40
"""Earlier departures, or requests, without which nothing is usual yet."""
_KEYS: Final = 256
"""Routes, and networks, that are surely counted one by one."""
_MEMORY: Final = 1800.0
"""Seconds after which what was usual counts for 1/e."""


def network_key(departure: Departure) -> str:
    """The network that a departure is counted under."""
    return departure.network


def route_key(departure: Departure) -> str:
    """The route that a departure is counted under."""
    return departure.route


class Tally:
    """How often each key came, for the most frequent ones.

    The others are forgotten together, and each of them counts as the most frequent one of them.
    """

    __slots__ = ("_forgotten", "counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.total: float = 0.0
        self._forgotten = 0.0

    def add(self, key: str) -> None:
        """Count a key."""
        self.total += 1
        self.counts[key] = self.counts.get(key, 0.0) + 1
        self._forget()

    def merge(self, counts: Mapping[str, float], total: float, kept: float) -> None:
        """Add other counts to these."""
        self.total = self.total * kept + total
        self._forgotten *= kept
        own = {key: count * kept for key, count in self.counts.items()}
        for key, count in counts.items():
            own[key] = own.get(key, 0.0) + count
        self.counts = own
        self._forget()

    def of(self, key: str) -> float:
        """How often a key came, or may have come at most."""
        return min(self.counts.get(key, self._forgotten), self.total)

    def _forget(self) -> None:
        # In batches: it takes a sorting.
        if len(self.counts) > 2 * _KEYS:
            ordered = sorted(self.counts.items(), key=_count, reverse=True)
            self.counts = dict(ordered[:_KEYS])
            self._forgotten = max(self._forgotten, ordered[_KEYS][1])


def _count(item: tuple[str, float]) -> float:
    return item[1]


class Mix:
    """Counts by network and by route."""

    __slots__ = ("networks", "routes")

    def __init__(self) -> None:
        self.networks: Tally = Tally()
        self.routes: Tally = Tally()

    def add(self, network: str, route: str) -> None:
        """Count one of a network and a route."""
        self.networks.add(network)
        self.routes.add(route)

    @staticmethod
    def of_networks(mix: Mix) -> Tally:
        """Its counts by network."""
        return mix.networks

    @staticmethod
    def of_routes(mix: Mix) -> Tally:
        """Its counts by route."""
        return mix.routes


class Window:
    """What has come since the last look."""

    __slots__ = ("departures", "requests", "started")

    def __init__(self, now: float) -> None:
        self.started: float = now
        self.departures: list[Departure] = []
        self.requests: Mix = Mix()


class Memory:
    """What is usual: of departures, of the requests that nobody left, and the last window."""

    __slots__ = ("departures", "last", "left", "requests")

    def __init__(self) -> None:
        self.left: Mix = Mix()
        """Departures, by network and by route."""
        self.requests: Mix = Mix()
        """Requests that nobody left, likewise."""
        self.departures: deque[Departure] = deque(maxlen=_KEYS)
        """Some of the earlier departures."""
        self.last: Window | None = None
        """The window before this one, which is not usual yet."""

    def take(self, window: Window) -> None:
        """Remember a window, once it has been looked at.

        Args:
            window: The window, with the departures that no warning explains.
        """
        last, self.last = self.last, window
        if last is not None:
            # One window late: what has just begun is not usual yet.
            self._learn(last, window.started)

    def usually(self, fits: Fits) -> tuple[int, int] | None:
        """How many of the earlier departures fit, and of how many; None if it is too early."""
        earlier = self.departures
        if len(earlier) < ENOUGH:
            return None
        return sum(map(fits, earlier)), len(earlier)

    def _learn(self, window: Window, until: float) -> None:
        kept = math.exp((window.started - until) / _MEMORY)
        kept = min(0.98, max(0.8, kept))
        for tally_of, key_of in ((Mix.of_networks, network_key), (Mix.of_routes, route_key)):
            counts = Counter(map(key_of, window.departures))
            tally_of(self.left).merge(counts, len(window.departures), kept)
            requests = tally_of(window.requests)
            tally_of(self.requests).merge(requests.counts, requests.total, kept)
        self.departures.extend(window.departures[:: max(1, len(window.departures) // 64)])
