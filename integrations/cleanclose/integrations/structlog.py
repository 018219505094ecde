"""structlog: processors for an application's own chain.

`QuietLogs` lowers your own log lines about a client that left. `ecs` and `GoogleCloud` rename an
event's fields for Elastic and Google Cloud.

The log filter (`cleanclose.quiet`) looks at records that servers and frameworks log with
`logging`. `QuietLogs` does the same for tracebacks that an application logs through structlog.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, Final, cast

import structlog

from cleanclose.core import (
    FOLDED,
    Event,
    Levels,
    count_quieted_record,
    fields_of,
    row_of_departure,
    verdict_of_errors,
)
from cleanclose.integrations.schemas import (
    ECS_VERSION,
    ecs_fields,
    ecs_level,
    google_fields,
    google_severity,
)

__all__ = ["GoogleCloud", "QuietDepartures", "QuietLogs", "ecs"]

_LEVELS: Final = {
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}
"""The methods whose events may be lowered. What an application calls critical stays critical."""


class QuietLogs:
    """A processor that lowers an event if all of its exceptions come from a departed client.

    Such an event has the ``level`` of the departure's event, ``original_level``, no ``exc_info``
    and no ``stack_info``, and the verdict in ``cleanclose_side``, ``cleanclose_phase``,
    ``cleanclose_mechanism`` and ``cleanclose_witnesses``. It is dropped if that level is off.

    Put it after the processors that add the level and the context, and before those that format
    the exception (``format_exc_info``, ``dict_tracebacks``, ``ExceptionRenderer``) or wrap
    the event for a formatter. Events without an exception pass.

    With `structlog.stdlib.LoggerFactory` an event that is not dropped is still handed to the
    standard library by the method that the application has called: its ``level`` says ``debug``,
    its record is an ``ERROR``.

    Among the processors of a `structlog.stdlib.ProcessorFormatter` it drops nothing, because there
    that would be an error of logging itself. Use the log filter for those records.

    Args:
        levels: How loud departures are. Default: the table as it stands.
        min_level: The level below which a lowered event is dropped, as one of logging's numbers.
            Default: the wrapped logger decides (``isEnabledFor``); if it has no such method,
            nothing is dropped. Set it if you use `structlog.make_filtering_bound_logger`, which has
            compared the level before.

    Raises:
        ValueError: ``min_level`` is not a number of 0 or more.
    """

    def __init__(self, levels: Levels | None = None, *, min_level: int | None = None) -> None:
        if min_level is not None and not _is_level(min_level):
            raise ValueError(
                f"min_level must be one of logging's numbers, 0 or more, not {min_level!r}"
            )
        self._levels = levels or Levels()
        self._min_level = min_level

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Look at an event.

        Raises:
            structlog.DropEvent: The event's new level is off.
        """
        name = event_dict.get("level", method_name)
        original = _LEVELS.get(name) if isinstance(name, str) else None
        if original is None:
            return event_dict
        errors = list(_errors_in(event_dict))
        verdict = verdict_of_errors(errors) if errors else None
        if verdict is None:
            return event_dict
        level = self._levels.of_row(row_of_departure(verdict))
        if level >= original:
            return event_dict
        count_quieted_record()
        if "_record" not in event_dict and not self._is_on(logger, level):
            raise structlog.DropEvent
        event_dict.pop("exc_info", None)
        event_dict.pop("stack_info", None)
        event_dict.update(fields_of(verdict))
        event_dict["original_level"] = name
        event_dict["level"] = logging.getLevelName(level).lower()
        return event_dict

    def _is_on(self, logger: Any, level: int) -> bool:
        if self._min_level is not None:
            return level >= self._min_level
        is_enabled_for = getattr(logger, "isEnabledFor", None)
        return bool(is_enabled_for(level)) if callable(is_enabled_for) else True


QuietDepartures = QuietLogs
"""The old name of `QuietLogs`."""


def _is_level(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _errors_in(event_dict: MutableMapping[str, Any]) -> Iterator[BaseException]:
    for name, value in event_dict.items():
        if isinstance(value, BaseException):
            yield value
        elif name == "exc_info" and isinstance(value, tuple):
            _, error, _ = cast(
                "tuple[type[BaseException] | None, BaseException | None, TracebackType | None]",
                value,
            )
            if error is not None:
                yield error
        elif name == "exc_info" and value:
            error = sys.exception()
            if error is not None:
                yield error


_OF_A_LINE: Final = frozenset(
    {
        "@timestamp",
        "event",
        "exc_info",
        "exception",
        "level",
        "logger",
        "log_level",
        "stack",
        "stack_info",
        "timestamp",
    }
)
"""Keys that structlog's processors put into an event. They are not fields of ours."""


def ecs(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> dict[str, Any]:
    """A processor: the names of the Elastic Common Schema, for every event.

    ``event`` becomes ``message``, ``level`` ``log.level``, ``logger`` ``log.logger``,
    ``timestamp`` ``@timestamp``, and ``exception`` ``error.stack_trace``; an event of
    cleanclose's has its fields by `cleanclose.integrations.schemas.ecs_fields`, all others keep
    theirs.

    Put it last but one: before the renderer, and after the processors that add the level and the
    time and format exceptions (``format_exc_info``). It does what
    ``ecs_logging.StructlogFormatter`` does: use one of them.
    """
    line, fields = _parts(event_dict)
    name = line.get("event")
    mapped: dict[str, Any] = {}
    timestamp = line.get("@timestamp", line.get("timestamp"))
    if timestamp is not None:
        mapped["@timestamp"] = timestamp
    mapped["log.level"] = ecs_level(_level(line, method_name))
    mapped["message"] = name
    mapped["ecs.version"] = ECS_VERSION
    if "logger" in line:
        mapped["log.logger"] = line["logger"]
    mapped.update(ecs_fields(str(name), fields) if _is_ours(name, fields) else fields)
    stack = line.get("exception", line.get("stack"))
    if stack is not None:
        mapped["error.stack_trace"] = stack
    _keep_unformatted(line, mapped)
    return mapped


class GoogleCloud:
    """A processor: the names that Google's Cloud Logging knows, for every event.

    ``event`` becomes ``message``, ``level`` ``severity``, ``timestamp`` ``time``, and
    ``exception`` ``stack_trace``; an event of cleanclose's has its fields by
    `cleanclose.integrations.schemas.google_fields`, all others keep theirs.

    Put it where `ecs` would go.

    Args:
        project: The project's id, without which Cloud Logging does not link to the trace.
    """

    def __init__(self, project: str | None = None) -> None:
        self._fields = google_fields(project)

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> dict[str, Any]:
        """Rename an event's fields."""
        line, fields = _parts(event_dict)
        name = line.get("event")
        mapped: dict[str, Any] = {
            "severity": google_severity(_level(line, method_name)),
            "message": name,
        }
        timestamp = line.get("@timestamp", line.get("timestamp"))
        if timestamp is not None:
            mapped["time"] = timestamp
        if "logger" in line:
            mapped["logger"] = line["logger"]
        mapped.update(self._fields(str(name), fields) if _is_ours(name, fields) else fields)
        stack = line.get("exception", line.get("stack"))
        if stack is not None:
            mapped["stack_trace"] = stack
        _keep_unformatted(line, mapped)
        return mapped


def _parts(event_dict: MutableMapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split an event into what every line has, and its own fields."""
    line = {key: value for key, value in event_dict.items() if key in _OF_A_LINE}
    return line, {key: value for key, value in event_dict.items() if key not in line}


def _level(line: dict[str, Any], method_name: str) -> str:
    return str(line.get("level", line.get("log_level", method_name)))


def _is_ours(name: object, fields: dict[str, Any]) -> bool:
    return "framework" in fields and (name == FOLDED or name in set(_names(Event)))


def _names(event: type[Event]) -> Iterator[str]:
    for cls in event.__subclasses__():
        yield cls.name
        yield from _names(cls)


def _keep_unformatted(line: dict[str, Any], mapped: dict[str, Any]) -> None:
    # A later processor formats it.
    mapped.update((key, line[key]) for key in ("exc_info", "stack_info") if key in line)
