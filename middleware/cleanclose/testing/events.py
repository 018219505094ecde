"""Keep the events of this process, for tests that look at them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

from cleanclose.core.events import Event
from cleanclose.core.tell.reporter import on_event

__all__ = ["CapturedEvents", "capture_events"]

AnEvent = TypeVar("AnEvent", bound=Event)


class CapturedEvents:
    """An outlet that keeps what it receives. Any thread may use it.

    `capture_events` returns one; you can also pass one to a middleware as one of its ``outlets``.
    Iterating over it gives the events in the order in which they came.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event, /) -> None:
        """Receive one event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Event]:
        with self._changed:
            return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<CapturedEvents {[event.name for event in self]}>"

    def of(self, kind: type[AnEvent]) -> list[AnEvent]:
        """The events of a class, or of one derived from it, so far."""
        return [event for event in self if isinstance(event, kind)]

    def wait_for(
        self, kind: type[AnEvent], count: int = 1, *, timeout: float = 10.0
    ) -> list[AnEvent]:
        """Wait until there are so many events of a class.

        An event comes when its exchange is over: that of an early response when its connection is
        closed.

        Args:
            kind: The class, such as `cleanclose.core.ClientDeparted`.
            count: How many of them. Default 1.
            timeout: For how many seconds at most. Default 10.

        Returns:
            All of them, so that a test sees if there are more.

        Raises:
            AssertionError: They have not come. The message lists the events that have.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.of(kind)) >= count, timeout):
                raise AssertionError(
                    f"{len(self.of(kind))} of {count} {kind.__name__} after {timeout:g} s, in "
                    f"{list(self._events)}"
                )
            return self.of(kind)

    async def arrived(
        self, kind: type[AnEvent], count: int = 1, *, timeout: float = 10.0
    ) -> list[AnEvent]:
        """Like `wait_for`, for a test that runs in the serving loop, which goes on meanwhile."""
        return await asyncio.to_thread(self.wait_for, kind, count, timeout=timeout)


@contextlib.contextmanager
def capture_events() -> Generator[CapturedEvents]:
    """Keep the events of all middleware in this process, whatever its outlets are.

    The outlets still receive them. For a server in another process, a test has to read that
    process's log.
    """
    captured = CapturedEvents()
    stop = on_event(captured)
    try:
        yield captured
    finally:
        stop()
