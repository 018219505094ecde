"""A limited number of places, shared so that no client address can take all of them."""

from __future__ import annotations

from collections import Counter

from cleanclose.core.process import Lock, renew_after_fork

__all__ = ["Places"]


class Places:
    """The places of requests that are drained. Any thread and any event loop may use them.

    A request without a place is answered at once.

    Args:
        most: How many there are; 0 or more.
        share: How many of them one client address may have; None for half of them.
    """

    def __init__(self, most: int, *, share: int | None = None) -> None:
        self.most: int = most
        self._limit = most
        self._share = max(1, most // 2) if share is None else share
        self._lock = Lock()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Free all places in a child, which serves none of its parent's requests."""
        self._taken: Counter[str] = Counter()
        self._all = 0

    def __reduce__(self) -> tuple[type[Places], tuple[int], dict[str, int]]:
        """For copy and pickle: the same number of places, all free."""
        return type(self), (self._limit,), {"most": self.most, "_share": self._share}

    def hold_workers(self, threads: int | None) -> None:
        """A drain holds a worker here: leave half of them free.

        Only a request shows how many there are. Workers wait only for proxies. All clients of a
        proxy have its address, so one address may have all of the places.

        Args:
            threads: How many requests the process serves at once; None if that is not known, which
                counts as one.
        """
        self.most = self._share = min(self._limit, (threads or 1) // 2)

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

    @property
    def taken(self) -> int:
        """How many are taken at this moment."""
        return self._all

    def give_back(self, address: str | None) -> None:
        """Give a place back that `take` gave."""
        key = address or ""
        with self._lock:
            # A greenlet that a child inherits gives back a place that its parent gave it.
            self._all = max(0, self._all - 1)
            self._taken[key] -= 1
            if self._taken[key] <= 0:
                del self._taken[key]
