"""Counters: always on, in this process, exact, whatever the logs show.

The names are those of the Prometheus text format, so that a snapshot can be read, summed over
processes and compared with a scrape without a translation table.
"""

from __future__ import annotations

import threading
from typing import Final

from cleanclose.core.events import (
    Cap,
    ClientDeparted,
    Event,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    Verdict,
)

__all__ = ["Counters", "reset", "snapshot"]

_OUTLET_ERRORS: Final = "cleanclose_outlet_errors_total"
_OUTLET_DROPS: Final = "cleanclose_outlet_dropped_events_total"
_FOLDED: Final = "cleanclose_folded_events_total"
_DRAINED_BYTES: Final = "cleanclose_drained_bytes_total"
_UNDELIVERED: Final = "cleanclose_responses_undelivered_total"
_WASTED_SECONDS: Final = "cleanclose_wasted_seconds_total"
_QUIETED: Final = "cleanclose_quieted_records_total"


def _early(outcome: Outcome) -> str:
    return f'cleanclose_early_responses_total{{outcome="{outcome}"}}'


def _cut(cap: Cap) -> str:
    return f'cleanclose_cut_uploads_total{{cap="{cap}"}}'


def _departure(verdict: Verdict) -> str:
    return (
        f'cleanclose_departures_total{{side="{verdict.side}",phase="{verdict.phase}",'
        f'mechanism="{verdict.mechanism}"}}'
    )


def _truncated(*, accepted: bool) -> str:
    return f'cleanclose_truncated_uploads_total{{accepted="{str(accepted).lower()}"}}'


def _upstream(*, restored: bool) -> str:
    return f'cleanclose_upstream_resets_total{{restored="{str(restored).lower()}"}}'


_SEEN_PHASES: Final = (
    Phase.REQUEST_BODY,
    Phase.HANDLER,
    Phase.RESPONSE_START,
    Phase.RESPONSE_BODY,
    Phase.WEBSOCKET,
)
"""The phases in which an exchange's own witnesses can see a peer leave."""


class Counters:
    """A set of counters. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Set every counter to 0: for tests, and for a process that has just been forked."""
        names = [_early(outcome) for outcome in Outcome]
        names += [_cut(cap) for cap in Cap]
        names += [
            _departure(Verdict(side=Side.CLIENT, phase=phase, mechanism=mechanism))
            for phase in _SEEN_PHASES
            for mechanism in Mechanism
        ]
        for yes in (False, True):
            names += [_truncated(accepted=yes), _upstream(restored=yes)]
        names += [_DRAINED_BYTES, _UNDELIVERED, _WASTED_SECONDS, _QUIETED, _OUTLET_ERRORS]
        names += [_OUTLET_DROPS, _FOLDED]
        with self._lock:
            self._values = dict.fromkeys(names, 0)

    def count(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            match event:
                case UploadDrained():
                    self._add(_early(event.outcome))
                    self._add(_DRAINED_BYTES, event.drained)
                    if event.cap is not None:
                        self._add(_cut(event.cap))
                case ClientDeparted():
                    self._add(_departure(event.verdict))
                    self._add(_WASTED_SECONDS, event.wasted_seconds or 0)
                    if isinstance(event, TruncatedUpload):
                        self._add(_truncated(accepted=event.accepted))
                    elif isinstance(event, ResponseUndelivered):
                        self._add(_UNDELIVERED)
                case UpstreamReset():
                    self._add(_upstream(restored=event.restored))
                case _:
                    pass

    def count_quieted_record(self) -> None:
        """Count a log record whose level was lowered."""
        with self._lock:
            self._add(_QUIETED)

    def count_outlet_error(self) -> None:
        """Count an outlet that raised."""
        with self._lock:
            self._add(_OUTLET_ERRORS)

    def count_outlet_drop(self) -> None:
        """Count an event for which an outlet's queue had no room."""
        with self._lock:
            self._add(_OUTLET_DROPS)

    def count_folded_event(self) -> None:
        """Count an event without a line of its own."""
        with self._lock:
            self._add(_FOLDED)

    def snapshot(self) -> dict[str, float]:
        """All counters, taken at one moment. A copy."""
        with self._lock:
            return dict(self._values)

    def _add(self, name: str, amount: float = 1) -> None:
        self._values[name] = self._values.get(name, 0) + amount


PROCESS: Final = Counters()
"""This process's counters: the one piece of global state."""


def snapshot() -> dict[str, float]:
    """This process's counters by name, in the notation of the Prometheus text format."""
    return PROCESS.snapshot()


def reset() -> None:
    """Set this process's counters to 0 (for tests)."""
    PROCESS.reset()
