"""Counters: always on, in this process, exact, whatever the logs show.

The names are those of the Prometheus text format, so that a snapshot can be read, summed over
processes and compared with a scrape without a translation table.
"""

from __future__ import annotations

import threading
from typing import Final

from cleanclose.core.events import Cap, Event, Outcome, UploadDrained

__all__ = ["Counters", "reset", "snapshot"]

_OUTLET_ERRORS: Final = "cleanclose_outlet_errors_total"
_DRAINED_BYTES: Final = "cleanclose_drained_bytes_total"


def _early(outcome: Outcome) -> str:
    return f'cleanclose_early_responses_total{{outcome="{outcome}"}}'


def _cut(cap: Cap) -> str:
    return f'cleanclose_cut_uploads_total{{cap="{cap}"}}'


class Counters:
    """A set of counters. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Set every counter to 0: for tests, and for a process that has just been forked."""
        names = [_early(outcome) for outcome in Outcome]
        names += [_cut(cap) for cap in Cap]
        names += [_DRAINED_BYTES, _OUTLET_ERRORS]
        with self._lock:
            self._values = dict.fromkeys(names, 0)

    def count(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            if isinstance(event, UploadDrained):
                self._values[_early(event.outcome)] += 1
                self._values[_DRAINED_BYTES] += event.drained
                if event.cap is not None:
                    self._values[_cut(event.cap)] += 1

    def count_outlet_error(self) -> None:
        """Count an outlet that raised."""
        with self._lock:
            self._values[_OUTLET_ERRORS] += 1

    def snapshot(self) -> dict[str, int]:
        """All counters, taken at one moment. A copy."""
        with self._lock:
            return dict(self._values)


PROCESS: Final = Counters()
"""This process's counters: the one piece of global state."""


def snapshot() -> dict[str, int]:
    """This process's counters by name, in the notation of the Prometheus text format."""
    return PROCESS.snapshot()


def reset() -> None:
    """Set this process's counters to 0 (for tests)."""
    PROCESS.reset()
