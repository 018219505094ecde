"""Counters: always on, in this process, exact, whatever the logs show.

The names are those of the Prometheus text format, so that a snapshot can be read, summed over
processes and compared with a scrape without a translation table.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from cleanclose.core.events import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
)
from cleanclose.core.listening import listen
from cleanclose.core.outside import contained
from cleanclose.core.process import Lock

__all__ = [
    "COUNTED",
    "MEASURED",
    "PREFIX",
    "Counted",
    "Counters",
    "Measured",
    "count_outlet_drop",
    "count_outlet_error",
    "count_quieted_record",
    "counts",
    "measurements",
    "on_count",
    "reset",
    "snapshot",
]

PREFIX: Final = "cleanclose"
"""What the names of all counters begin with."""

Labels = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Counted:
    """The definition of one counter, which all outlets of metrics share.

    Args:
        name: Its name, without prefix, unit and suffix.
        meaning: What it counts, in a sentence.
        unit: A base unit (``bytes``, ``seconds``), or the noun for one of it.
        labels: The names of its labels. Their values are from closed sets.
        series: The values of the labels that it has from the start, at 0.
    """

    name: str
    meaning: str
    unit: str
    labels: tuple[str, ...] = ()
    series: tuple[Labels, ...] = ((),)

    @property
    def full_name(self) -> str:
        """The name by Prometheus' conventions: prefix, base unit, ``_total``."""
        return "_".join([PREFIX, self.name, *_base_unit(self.unit), "total"])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measured:
    """The definition of one distribution, for outlets of metrics. It is not in a snapshot.

    Args:
        name: Its name, without prefix and unit.
        meaning: What it is, in a sentence.
        unit: A base unit.
        labels: The names of its labels. Their values are from closed sets.
        series: The values of the labels that it has from the start.
        bounds: The upper bounds of the buckets, in that unit.
    """

    name: str
    meaning: str
    unit: str
    labels: tuple[str, ...]
    series: tuple[Labels, ...]
    bounds: tuple[float, ...]

    @property
    def full_name(self) -> str:
        """The name by Prometheus' conventions: prefix, base unit."""
        return "_".join([PREFIX, self.name, *_base_unit(self.unit)])


def _base_unit(unit: str) -> list[str]:
    return [unit] if unit in ("bytes", "seconds") else []


_SEEN_PHASES: Final = (
    Phase.REQUEST_BODY,
    Phase.HANDLER,
    Phase.RESPONSE_START,
    Phase.RESPONSE_BODY,
    Phase.WEBSOCKET,
)
"""The phases in which an exchange's own witnesses can see a peer leave."""

_NO_YES: Final = (("false",), ("true",))

EARLY_RESPONSES: Final = Counted(
    name="early_responses",
    meaning="Early responses that were treated, by what became of them.",
    unit="response",
    labels=("outcome",),
    series=tuple((outcome.value,) for outcome in Outcome),
)
CUT_UPLOADS: Final = Counted(
    name="cut_uploads",
    meaning="Early responses behind which a limit ended the discarding of the upload.",
    unit="upload",
    labels=("cap",),
    series=tuple((cap.value,) for cap in Cap),
)
DEPARTURES: Final = Counted(
    name="departures",
    meaning="Exchanges whose peer left before they were complete.",
    unit="departure",
    labels=("side", "phase", "mechanism"),
    series=tuple(
        (side.value, phase.value, mechanism.value)
        for side in (Side.CLIENT, Side.SERVER)
        for phase in _SEEN_PHASES
        for mechanism in Mechanism
        # As far as is known in advance, this process ends an exchange only by a cancellation.
        if side is Side.CLIENT or mechanism is Mechanism.CANCELLED
    ),
)
TRUNCATED_UPLOADS: Final = Counted(
    name="truncated_uploads",
    meaning="Departures in the middle of an upload that was taken for the whole.",
    unit="upload",
    labels=("accepted",),
    series=_NO_YES,
)
UPSTREAM_RESETS: Final = Counted(
    name="upstream_resets",
    meaning="Errors of upstreams that passed the middleware.",
    unit="reset",
    labels=("restored",),
    series=_NO_YES,
)
SURGES: Final = Counted(
    name="departure_surges",
    meaning="Warnings that departures are no longer random, by what they have in common.",
    unit="surge",
    labels=("cause",),
    series=tuple((cause.value,) for cause in Cause),
)
DRAINED_BYTES: Final = Counted(
    name="drained", meaning="Bytes of request bodies that were discarded.", unit="bytes"
)
UNDELIVERED: Final = Counted(
    name="responses_undelivered",
    meaning="Departures whose unsafe request was carried out all the same.",
    unit="response",
)
WASTED_SECONDS: Final = Counted(
    name="wasted",
    meaning="Seconds that handlers went on working after their peer had gone.",
    unit="seconds",
)
STOPPED: Final = Counted(
    name="stopped",
    meaning="Departures whose work was cut short, because nobody waited for it any more.",
    unit="request",
    labels=("overdue",),
    series=_NO_YES,
)
QUIETED_RECORDS: Final = Counted(
    name="quieted_records", meaning="Log records whose level was lowered.", unit="record"
)
OUTLET_ERRORS: Final = Counted(name="outlet_errors", meaning="Exceptions of outlets.", unit="error")
DROPPED_EVENTS: Final = Counted(
    name="outlet_dropped_events",
    meaning="Events for which an outlet's queue had no room.",
    unit="event",
)
FOLDED_EVENTS: Final = Counted(
    name="folded_events",
    meaning="Events without a line of their own, because others said the same.",
    unit="event",
)

COUNTED: Final = (
    EARLY_RESPONSES,
    CUT_UPLOADS,
    DEPARTURES,
    TRUNCATED_UPLOADS,
    UPSTREAM_RESETS,
    SURGES,
    DRAINED_BYTES,
    UNDELIVERED,
    WASTED_SECONDS,
    STOPPED,
    QUIETED_RECORDS,
    OUTLET_ERRORS,
    DROPPED_EVENTS,
    FOLDED_EVENTS,
)
"""Everything that is counted."""

_SECONDS: Final = (
    *(0.1, 0.5, 1.0, 2.5, 5.0, 10.0),
    # Each usual time-out of proxies and load balancers has a bucket of its own: 30, 60, 75 and 100
    # seconds.
    *(29.0, 31.0, 59.0, 61.0, 74.0, 76.0, 99.0, 101.0, 300.0),
)

DEPARTURE_AGE: Final = Measured(
    name="departure_age",
    meaning="Seconds from the start of a request to the end of its exchange, if its peer left.",
    unit="seconds",
    labels=("phase",),
    series=tuple((phase.value,) for phase in _SEEN_PHASES),
    bounds=_SECONDS,
)
EARLY_RESPONSE_DURATION: Final = Measured(
    name="early_response_duration",
    meaning="Seconds from the start of a request to the end of its exchange, if it was answered "
    "early.",
    unit="seconds",
    labels=("outcome",),
    series=EARLY_RESPONSES.series,
    bounds=_SECONDS,
)

MEASURED: Final = (DEPARTURE_AGE, EARLY_RESPONSE_DURATION)
"""Everything that is measured."""


def counts(event: Event) -> Iterable[tuple[Counted, Labels, float]]:
    """What an event adds to the counters: which counter, the values of its labels, how much."""
    match event:
        case UploadDrained():
            yield EARLY_RESPONSES, (event.outcome.value,), 1
            yield DRAINED_BYTES, (), event.drained
            if event.cap is not None:
                yield CUT_UPLOADS, (event.cap.value,), 1
        case ClientDeparted():
            verdict = event.verdict
            yield (
                DEPARTURES,
                (verdict.side.value, verdict.phase.value, verdict.mechanism.value),
                1,
            )
            yield WASTED_SECONDS, (), event.wasted_seconds or 0
            if event.stopped:
                yield STOPPED, (str(bool(event.overdue)).lower(),), 1
            if isinstance(event, TruncatedUpload):
                yield TRUNCATED_UPLOADS, (str(event.accepted).lower(),), 1
            elif isinstance(event, ResponseUndelivered):
                yield UNDELIVERED, (), 1
        case UpstreamReset():
            yield UPSTREAM_RESETS, (str(event.restored).lower(),), 1
        case DepartureSurge():
            yield SURGES, (event.cause.value,), 1
        case _:
            pass


def measurements(event: Event) -> Iterable[tuple[Measured, Labels, float]]:
    """What an event adds to the distributions: which one, the values of its labels, the value."""
    match event:
        case UploadDrained():
            yield EARLY_RESPONSE_DURATION, (event.outcome.value,), event.age_ms / 1000
        case ClientDeparted():
            yield DEPARTURE_AGE, (event.verdict.phase.value,), event.age_ms / 1000
        case _:
            pass


# The labels' values are from closed sets.
@functools.cache
def _key(counted: Counted, values: Labels) -> str:
    if not values:
        return counted.full_name
    pairs = zip(counted.labels, values, strict=True)
    labels = ",".join(f'{label}="{value}"' for label, value in pairs)
    return f"{counted.full_name}{{{labels}}}"


class Counters:
    """A set of counters. Thread-safe.

    Attributes:
        listeners: Called for each count without an event: a quieted record, an outlet's error, a
            dropped or folded event. What they raise is ignored.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[Counted], None]] = []
        self._lock = Lock()
        self._values: dict[str, float] = {}
        self.reset()

    def __reduce__(self) -> str | tuple[Any, ...]:
        """For copy and pickle: the counters of a process stay its own, and have no copies."""
        return "PROCESS" if self is PROCESS else super().__reduce__()

    def reset(self) -> None:
        """Set every counter to 0: for tests, and for a process that has just been forked."""
        names = [_key(counted, values) for counted in COUNTED for values in counted.series]
        with self._lock:
            self._values = dict.fromkeys(names, 0)

    def count(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            for counted, values, amount in counts(event):
                self._add(_key(counted, values), amount)

    def count_quieted_record(self) -> None:
        """Count a log record whose level was lowered."""
        self._count_one(QUIETED_RECORDS)

    def count_outlet_error(self) -> None:
        """Count an outlet that raised."""
        self._count_one(OUTLET_ERRORS)

    def count_outlet_drop(self) -> None:
        """Count an event for which an outlet's queue had no room."""
        self._count_one(DROPPED_EVENTS)

    def count_folded_event(self) -> None:
        """Count an event without a line of its own."""
        self._count_one(FOLDED_EVENTS)

    def _count_one(self, counted: Counted) -> None:
        with self._lock:
            self._add(counted.full_name)
        for listener in self.listeners:
            with contained():
                listener(counted)

    def snapshot(self) -> dict[str, float]:
        """A copy of all counters, taken at one moment."""
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


def count_outlet_error() -> None:
    """Count an exception that an outlet has handled itself, for example in its own thread."""
    PROCESS.count_outlet_error()


def count_outlet_drop() -> None:
    """Count an event for which an outlet's queue had no room."""
    PROCESS.count_outlet_drop()


def count_quieted_record() -> None:
    """Count somebody else's log line whose level was lowered."""
    PROCESS.count_quieted_record()


def on_count(listener: Callable[[Counted], None]) -> Callable[[], None]:
    """Listen to what this process counts without an event, one call for each.

    Args:
        listener: Called with what was counted: a quieted record, an outlet's error, an event that
            was dropped or folded. What it raises is ignored. Registering it twice has no effect.

    Returns:
        A function that ends this; it may be called more than once.
    """
    return listen(PROCESS.listeners, listener)
