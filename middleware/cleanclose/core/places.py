"""How many exchanges read at once, and in which order the others get their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Place", "Places"]


class Place:
    """One exchange's place: admitted or not, and if so reading or still waiting for its turn."""

    __slots__ = ("_inside", "_places", "_wake", "admitted", "reading")

    def __init__(self, places: Places, wake: Callable[[], None]) -> None:
        self._places = places
        self._wake = wake
        self._inside = False
        self.admitted = False
        self.reading = False

    def stop_reading(self) -> None:
        """Let the next one read; stay inside. Without effect when it was not reading."""
        self._places.change(self, inside=self._inside)

    def leave(self) -> None:
        """Give the place back. May be called more than once."""
        self._places.change(self, inside=False)

    # The lock of Places guards what follows; only Places calls it.

    def admit(self, *, reading: bool) -> None:
        """Come in."""
        self.admitted = self._inside = True
        self.reading = reading

    def release(self, *, inside: bool) -> tuple[bool, bool]:
        """Give up the turn, and perhaps the place; return whether each was given up."""
        was_inside, was_reading = self._inside, self.reading
        self._inside, self.reading = inside, False
        return was_inside and not inside, was_reading

    def call(self) -> None:
        """Get the turn."""
        self.reading = True
        self._wake()


class Places:
    """The places of one middleware object. Any thread and any event loop may use it.

    Args:
        reading: How many may read at once; at least 1.
        inside: How many may be inside at once, reading or waiting; at least ``reading``.
        others: Whether somebody else is served while all of these places are taken, be it for
            ever.
    """

    def __init__(self, *, reading: int, inside: int, others: bool = True) -> None:
        self.others = others
        self._lock = threading.RLock()
        self._most_reading = reading
        self._most_inside = inside
        self._reading = 0
        self._inside = 0
        self._waiting: deque[Place] = deque()

    @classmethod
    def for_workers(
        cls,
        threads: int | None,
        *,
        most: int,
        greenlets: bool = False,
        unbounded: bool = False,
        multithread: bool = False,
    ) -> Places:
        """The places of a blocking server, where an exchange that waits or reads holds a worker.

        Half of the workers at most, so that others are served meanwhile; nobody waits.

        Args:
            threads: How many requests the process serves at once; None if that is not known:
                then one exchange at a time.
            most: The limit that was set (`cleanclose.core.Settings.max_draining`).
            greenlets: Whether a request is served by a greenlet of its own, which costs nothing
                while it waits: then only ``most`` counts.
            unbounded: Whether nothing but the client may end a reading: then one at a time, and
                only if there are other workers.
            multithread: Whether there are several threads, where their number is not known.
        """
        others = greenlets or (multithread if threads is None else threads > 1)
        places = most if greenlets else min(most, max(1, (threads or 1) // 2))
        if unbounded:
            places = 1
        return cls(reading=places, inside=places, others=others)

    def enter(self, wake: Callable[[], None]) -> Place:
        """Ask for a place.

        Args:
            wake: Called, from whatever thread makes room, when a place that had to wait may
                read. It must return at once and must not raise.

        Returns:
            A place: not ``admitted`` if there are too many already; ``reading`` if it may read
            at once.
        """
        place = Place(self, wake)
        with self._lock:
            if self._inside >= self._most_inside:
                return place
            self._inside += 1
            may_read = self._reading < self._most_reading
            place.admit(reading=may_read)
            if may_read:
                self._reading += 1
            else:
                self._waiting.append(place)
        return place

    def change(self, place: Place, *, inside: bool) -> None:
        """Take a place's turn away, and with ``inside=False`` the place itself."""
        called: Place | None = None
        with self._lock:
            left, was_reading = place.release(inside=inside)
            if left:
                self._inside -= 1
            if was_reading:
                if self._waiting:
                    called = self._waiting.popleft()
                else:
                    self._reading -= 1
            elif left and place in self._waiting:
                self._waiting.remove(place)
            if called is not None:
                called.call()
