"""structlog: the log lines of your own about a client that left, quietly.

The log filter (`cleanclose.integrations.stdlib`) looks at what servers and frameworks log by
`logging`. This is the same for tracebacks that an application logs through structlog.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, Final, cast

import structlog

from cleanclose.core import Levels
from cleanclose.core.counters import PROCESS
from cleanclose.core.levels import row_of_departure
from cleanclose.core.records import fields_of, verdict_of_errors

__all__ = ["QuietDepartures"]

_LEVELS: Final = {
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}
"""The methods whose events are looked at. What is called critical stays so."""


class QuietDepartures:
    """A processor that lowers events whose exceptions are a departed client's, all of them.

    Such an event has the ``level`` of the departure's event, ``original_level``, no ``exc_info``
    and no ``stack_info``, and the verdict in ``cleanclose_side``, ``cleanclose_phase``,
    ``cleanclose_mechanism`` and ``cleanclose_witnesses``. If its new level is off, it is dropped.

    Its place is behind the processors which add the level and the context, and before those which
    format the exception (``format_exc_info``, ``dict_tracebacks``, ``ExceptionRenderer``) or wrap
    the event for a formatter. Events which have no exception any more pass.

    With `structlog.stdlib.LoggerFactory` an event that is not dropped is still handed to the
    standard library by the method that the application has called: its ``level`` says ``debug``,
    its record is an ``ERROR``.

    Among the processors of a `structlog.stdlib.ProcessorFormatter` nothing is dropped: there it
    would be an error of logging itself. The log filter is for those records.

    Args:
        levels: How loud departures are. Default: the table as it stands.
        min_level: The level below which a lowered event is dropped, as one of logging's numbers.
            Default: what the wrapped logger says (``isEnabledFor``); if it cannot say, none is
            dropped. Give it if you use `structlog.make_filtering_bound_logger`, which has asked
            for the level before.

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
        PROCESS.count_quieted_record()
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
