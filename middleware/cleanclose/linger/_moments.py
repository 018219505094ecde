"""When the lingering connections need attention, and not because of anything their clients do."""

from __future__ import annotations

import heapq
import itertools
import math

from cleanclose.linger._entry import Entry

__all__ = ["Moments"]


class Moments:
    """A heap with the next moment of each connection. The caller has the lingerer's lock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()

    def plan(self, entry: Entry, now: float, seconds: float) -> bool:
        """Plan a connection's next moment.

        Args:
            entry: The connection.
            now: The time.
            seconds: How far away the moment is.

        Returns:
            Whether it is earlier than what had been planned; otherwise nothing changes.
        """
        due = now + seconds
        if due >= entry.due:
            return False
        entry.due = due
        heapq.heappush(self._heap, (due, next(self._numbers), entry))
        return True

    def first(self) -> float | None:
        """The next moment of any connection; None if there is none."""
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].due:
            # The connection is gone, or an earlier moment has been planned since.
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> Entry | None:
        """A connection whose moment has come. It has no other one until it is planned again."""
        first = self.first()
        if first is None or first > now:
            return None
        entry = heapq.heappop(self._heap)[2]
        entry.due = math.inf
        return entry
