"""How many may have something at once, so that no client address can have all of it."""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Places"]


class Places:
    """The places of requests that are drained. Any thread and any event loop may use them.

    Whoever gets no place is answered at once.

    Args:
        most: How many there are; 0 or more.
        share: How many of them one client address may have; None for half of them.
    """

    def __init__(self, most: int, *, share: int | None = None) -> None:
        self.most = most
        self._share = max(1, most // 2) if share is None else share
        # Reentrant: the cyclic collector may give a place back in the middle of anything.
        self._lock = threading.RLock()
        self._taken: Counter[str] = Counter()
        self._all = 0

    @classmethod
    def for_workers(cls, threads: int | None, *, most: int, greenlets: bool = False) -> Places:
        """The places of a blocking server, where a drain holds a worker.

        It is for proxies that a worker waits, and all the clients of one have its address: they may
        have all of the places.

        Args:
            threads: How many requests the process serves at once; None if that is not known:
                then it counts as one.
            most: The limit that was set (`cleanclose.core.Settings.max_draining`).
            greenlets: Whether a request is served by a greenlet of its own, which costs nothing
                while it waits: then only ``most`` counts.
        """
        if greenlets:
            return cls(most)
        most = min(most, (threads or 1) // 2)
        return cls(most, share=most)

    def take(self, address: str | None) -> bool:
        """Take a place.

        Args:
            address: The client's; None if it is not known.

        Returns:
            Whether there was one.
        """
        key = address or ""
        with self._lock:
            if self._all >= self.most or self._taken[key] >= self._share:
                return False
            self._taken[key] += 1
            self._all += 1
            return True

    def give_back(self, address: str | None) -> None:
        """Give a place back that `take` gave."""
        key = address or ""
        with self._lock:
            self._all -= 1
            self._taken[key] -= 1
            if self._taken[key] <= 0:
                del self._taken[key]
