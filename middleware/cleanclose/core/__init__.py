"""The public names besides the middleware itself: events, settings, outlets, counters.

- **Events**: `Event` and its classes, the enums that they are made of, `Facts`, `Verdict`.
- **Settings**: `Settings` holds the keyword arguments that every shim takes.
- **Outlets**: an `Outlet` is any callable that takes an event. `LineOutlet` is the base of outlets
  that write lines. Everything else that an outlet needs is here as well, and our own outlets use
  nothing else: the definitions of the counters (`COUNTED`, `counts`), the fields of lines about
  departures (`fields_of`), the judgement of logged exceptions (`verdict_of_errors`), the hooks
  `on_departure`, `on_event` and `on_count`, and the helpers for forks and for the end of a process
  (`Lock`, `renew_after_fork`, `at_exit`).
- **Counters**: `snapshot` and `reset`; `kernel_figures` has the kernel's own.
- **In a handler**: `client_gone`, `current`; `TruncatedBodyError`.
- **In a bug report**: `version`.

The machinery is in the modules of this package: no framework, no I/O, no clock of its own. Names
that this module once had still work (`cleanclose.core._old_names`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cleanclose.core._old_names import look_up
from cleanclose.core.about import version
from cleanclose.core.asking import client_gone, raise_if_gone
from cleanclose.core.blame.departures import on_departure
from cleanclose.core.blame.records import errors_in, fields_of, verdict_of_errors
from cleanclose.core.blame.watch import Watch, current
from cleanclose.core.counters import (
    COUNTED,
    MEASURED,
    PREFIX,
    Counted,
    Measured,
    count_outlet_drop,
    count_outlet_error,
    count_quieted_record,
    counts,
    measurements,
    on_count,
    reset,
    snapshot,
)
from cleanclose.core.errors import TruncatedBodyError
from cleanclose.core.events import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
)
from cleanclose.core.kernel import COUNTERS as KERNEL_COUNTERS
from cleanclose.core.kernel import KernelFigures, Listener, kernel_figures
from cleanclose.core.levels import Levels, row_of_departure
from cleanclose.core.process import Lock, at_exit, renew_after_fork
from cleanclose.core.settings import Settings, SettingsOptions, SurgeThresholds
from cleanclose.core.stop import ClientLeft, Stoppable
from cleanclose.core.tell.floods import DEFAULT_FLOOD, FOLDED, Flood
from cleanclose.core.tell.lines import LOGGER_NAME, Ids, LineOutlet, StructlogOutlet, event_of_line
from cleanclose.core.tell.outlet import Outlet
from cleanclose.core.tell.reporter import on_event

__all__ = [
    "COUNTED",
    "DEFAULT_FLOOD",
    "FOLDED",
    "KERNEL_COUNTERS",
    "LOGGER_NAME",
    "MEASURED",
    "PREFIX",
    "Cap",
    "Cause",
    "ClientDeparted",
    "ClientLeft",
    "Counted",
    "DepartureSurge",
    "Event",
    "Facts",
    "Flood",
    "Ids",
    "KernelFigures",
    "Levels",
    "LineOutlet",
    "Listener",
    "Lock",
    "Measured",
    "Mechanism",
    "Outcome",
    "Outlet",
    "Phase",
    "ResponseUndelivered",
    "Settings",
    "SettingsOptions",
    "Side",
    "Stoppable",
    "StructlogOutlet",
    "SurgeThresholds",
    "TruncatedBodyError",
    "TruncatedUpload",
    "UploadDrained",
    "UpstreamReset",
    "Verdict",
    "Watch",
    "Witness",
    "at_exit",
    "client_gone",
    "count_outlet_drop",
    "count_outlet_error",
    "count_quieted_record",
    "counts",
    "current",
    "errors_in",
    "event_of_line",
    "fields_of",
    "kernel_figures",
    "measurements",
    "on_count",
    "on_departure",
    "on_event",
    "raise_if_gone",
    "renew_after_fork",
    "reset",
    "row_of_departure",
    "snapshot",
    "verdict_of_errors",
    "version",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return look_up(name)
