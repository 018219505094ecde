"""Where events go, and why none of it can disturb a request."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, Protocol

import structlog

from cleanclose.core.counters import PROCESS, Counters
from cleanclose.core.events import DepartureSurge, Event, Facts, UpstreamReset
from cleanclose.core.levels import Levels
from cleanclose.core.surge import Surge

__all__ = ["Outlet", "Reporter", "StructlogOutlet"]

LOGGER_NAME: Final = "cleanclose"


class Outlet(Protocol):
    """Something that receives events. It is called in the request's own thread or task."""

    def __call__(self, event: Event, /) -> None:
        """Receive one event. Whatever it raises is counted and reported once."""


class StructlogOutlet:
    """The default outlet: one structlog event each, named after the event.

    Where the application has configured structlog, its configuration decides. Where it has not,
    the event goes to the standard library's logger ``cleanclose`` as ``name key=value …``, so
    that debug events stay silent until somebody asks for them: structlog's own default would
    print each one.

    Args:
        levels: How loud each event is. Default: the table as it stands.
    """

    def __init__(self, levels: Levels | None = None) -> None:
        self._levels = levels or Levels()
        self._configured: Any = structlog.get_logger(LOGGER_NAME)
        self._plain: Any = structlog.wrap_logger(
            logging.getLogger(LOGGER_NAME),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[
                structlog.stdlib.filter_by_level,
                _as_logging_arguments,
            ],
            context_class=dict,
            cache_logger_on_first_use=False,
        )

    def __call__(self, event: Event, /) -> None:
        """Log the event at its level."""
        logger = self._configured if structlog.is_configured() else self._plain
        fields = event.fields()
        if isinstance(event, UpstreamReset) and event.restored:
            # Nobody else will show it.
            fields["exc_info"] = event.exception
        logger.log(self._levels.of(event), event.name, **fields)


_RENDER: Final = structlog.processors.KeyValueRenderer(key_order=["event"])


def _as_logging_arguments(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str, str], dict[str, Any]]:
    exc_info = event.pop("exc_info", None)
    # An argument of its own: a field may have a per cent sign.
    return ("%s", str(_RENDER(logger, method, event))), {"exc_info": exc_info}


class Reporter:
    """Counts an event, then hands it to the outlets.

    Args:
        outlets: The outlets, called in this order. None: one `StructlogOutlet`.
        levels: How loud each event is, for that one.
        counters: What counts. Default: this process's counters.
        surge: What tells when departures stop being random. None: nothing does.
        clock: A clock that only goes forward, in seconds.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet] | None = None,
        *,
        levels: Levels | None = None,
        counters: Counters = PROCESS,
        surge: Surge | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._surge = surge
        self._clock = clock
        self.sample_at = math.inf if surge is None else 0.0
        """A request that begins at this time or later is to be told of with `request_over`."""
        self._outlets = tuple(outlets) if outlets is not None else (StructlogOutlet(levels),)
        self._counters = counters
        self._reported: set[int] = set()

    def report(self, event: Event | None) -> None:
        """Count and pass on an event. Never raises on an outlet's account.

        Args:
            event: The event, or None where there is nothing to say.
        """
        if event is None:
            return
        self._counters.count(event)
        for outlet in self._outlets:
            try:
                outlet(event)
            except Exception as error:  # noqa: BLE001 - the request must not hear of it
                self._failed(outlet, error)
        if self._surge is not None and not isinstance(event, DepartureSurge):
            for surge in self._see(self._surge, event):
                self.report(surge)

    def request_over(self, facts: Facts) -> None:
        """One of the samples of what requests there are: see `sample_at`. Never raises.

        Args:
            facts: What is known of it.
        """
        surge = self._surge
        if surge is None:
            return
        try:
            surge.request_over(facts, self._clock())
            self.sample_at = surge.sample_at
        except Exception as error:  # noqa: BLE001 - the request must not hear of it
            self._failed(surge, error)

    def _see(self, surge: Surge, event: Event) -> list[DepartureSurge]:
        try:
            return surge.see(event, self._clock())
        except Exception as error:  # noqa: BLE001 - the request must not hear of it
            self._failed(surge, error)
            return []

    def _failed(self, outlet: object, error: Exception) -> None:
        self._counters.count_outlet_error()
        if id(outlet) not in self._reported:
            self._reported.add(id(outlet))
            logging.getLogger(LOGGER_NAME).error("An outlet failed: %r", outlet, exc_info=error)
