"""Counts each event and passes it to the outlets, without ever disturbing a request."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from cleanclose.core.blame.watch import Watch
from cleanclose.core.conduct import End
from cleanclose.core.counters import PROCESS, Counters
from cleanclose.core.events import DepartureSurge, Event, Facts
from cleanclose.core.levels import Levels
from cleanclose.core.listening import listen
from cleanclose.core.outside import contained
from cleanclose.core.tell.lines import LOGGER_NAME, StructlogOutlet
from cleanclose.core.tell.outlet import Outlet, callables

__all__ = ["LISTENERS", "Detector", "Reporter", "on_event"]


class Detector(Protocol):
    """Looks for a property that many departures share, as `cleanclose.surge.Surge` does."""

    @property
    def sample_at(self) -> float:
        """Ask `request_begins` about a request that begins at this time or later."""
        ...

    def request_begins(self, now: float) -> bool:
        """Whether the request that begins now is one of the samples."""
        ...

    def request_over(self, facts: Facts, now: float) -> None:
        """A request that is a sample is over, and its client has not left."""

    def see(self, event: Event, now: float) -> Sequence[DepartureSurge]:
        """Note an event that was sent, and return the warnings that follow from it."""
        ...


LISTENERS: Final[list[Outlet]] = []
"""Outlets of the process: called after those of each reporter."""


def on_event(outlet: Outlet) -> Callable[[], None]:
    """Listen to the events of all middleware in this process, whatever its outlets are.

    Args:
        outlet: Called with each event, after the outlets. Registering it twice has no effect.

    Returns:
        A function that ends this; it may be called more than once.

    Raises:
        TypeError: It cannot be called, or would have to be awaited.
    """
    callables("outlets", (outlet,))
    return listen(LISTENERS, outlet)


class Reporter:
    """Counts an event, then hands it to the outlets, and to `LISTENERS`.

    Args:
        outlets: The outlets, called in this order. None: one `StructlogOutlet`.
        levels: How loud each event is, for that one.
        counters: What counts. Default: this process's counters.
        surge: Says when departures stop being random. None: nothing does.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: One of the outlets cannot be called, or would have to be awaited.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet] | None = None,
        *,
        levels: Levels | None = None,
        counters: Counters = PROCESS,
        surge: Detector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._surge = surge
        self._clock = clock
        self.sample_at: float = math.inf if surge is None else 0.0
        """Call `request_begins` for a request that begins at this time or later."""
        self._outlets: tuple[Outlet, ...] = (
            (StructlogOutlet(levels),) if outlets is None else callables("outlets", outlets)
        )
        self._counters = counters
        self._reported: set[int] = set()

    def __getstate__(self) -> dict[str, object]:
        """For copy and pickle: state of this process begins anew."""
        sample_at = math.inf if self._surge is None else 0.0
        return {**self.__dict__, "_reported": set[int](), "sample_at": sample_at}

    def __deepcopy__(self, memo: dict[int, Any]) -> Reporter:
        """Make a reporter to the same outlets, which are not copied."""
        copied = copy.copy(self)
        copied._surge = copy.deepcopy(self._surge, memo)
        return copied

    def report(self, event: Event | None) -> None:
        """Count and pass on an event. Never raises on an outlet's account.

        Args:
            event: The event, or None where there is nothing to say.
        """
        if event is None:
            return
        self._counters.count(event)
        for outlet in (*self._outlets, *LISTENERS):
            with contained(partial(self._failed, outlet)):
                outlet(event)
        if self._surge is not None and not isinstance(event, DepartureSurge):
            for surge in self._see(self._surge, event):
                self.report(surge)

    def exchange_over(self, watch: Watch, now: float, error: BaseException | None = None) -> End:
        """An exchange is over: report all that there is to say about it, in its order.

        Args:
            watch: The exchange.
            now: The time.
            error: What the application raised, if it did.

        Returns:
            What becomes of the error; its events have been reported.
        """
        if watch.delivery is not None:
            self.report(watch.delivery.event(now))
        end = self.app_ended(watch, now, error)
        if watch.is_sample:
            self.request_over(watch)
        return end

    def app_ended(self, watch: Watch, now: float, error: BaseException | None = None) -> End:
        """The same where the delivery's end and the sample's have their own moments.

        Args:
            watch: The exchange.
            now: The time.
            error: What the application raised, if it did.

        Returns:
            What becomes of the error; its events have been reported.
        """
        end = watch.app_ended(now, error)
        for event in end.events:
            self.report(event)
        return end

    def request_begins(self, watch: Watch) -> None:
        """A request begins that may become a sample of the requests that come; see `sample_at`.

        Args:
            watch: The request. Call `request_over` for it if it is marked as a sample.
        """
        if self._surge is not None:
            watch.is_sample = self._surge.request_begins(watch.started)
            self.sample_at = self._surge.sample_at

    def request_over(self, watch: Watch) -> None:
        """A request that is a sample is over, however it has ended. Never raises.

        Args:
            watch: The request.
        """
        surge = self._surge
        # If its client has left, there is an event instead.
        if surge is None or watch.departure is not None:
            return
        with contained(partial(self._failed, surge)):
            surge.request_over(watch.facts(), self._clock())

    def _see(self, surge: Detector, event: Event) -> Sequence[DepartureSurge]:
        found: list[DepartureSurge] = []
        with contained(partial(self._failed, surge)):
            found += surge.see(event, self._clock())
        return found

    def _failed(self, outlet: object, error: BaseException) -> None:
        self._counters.count_outlet_error()
        if id(outlet) not in self._reported:
            self._reported.add(id(outlet))
            # A filter of the application may raise as well, and logging does not catch that.
            with contained():
                logging.getLogger(LOGGER_NAME).error("An outlet failed: %r", outlet, exc_info=error)
