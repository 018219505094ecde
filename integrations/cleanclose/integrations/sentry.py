"""Sentry: no event for a client that left, always one for an upstream that reset.

Two pieces. `before_send` drops proven departures of clients, by the same verdict as
everywhere here. `SentryOutlet` captures upstream resets, including those that a server would have
hidden; Sentry's own ``DedupeIntegration`` makes one event of each.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, cast

import sentry_sdk
from sentry_sdk.utils import event_from_exception

from cleanclose.core import (
    Event,
    Levels,
    Side,
    UpstreamReset,
    current,
    errors_in,
    event_of_line,
    row_of_departure,
    verdict_of_errors,
)

__all__ = ["BeforeSend", "SentryOutlet", "before_send"]

Processor = Callable[[Any, dict[str, Any]], Any]


class BeforeSend:
    """A ``before_send`` for `sentry_sdk.init`.

    It drops an event if every exception in it, and in its log line, comes from a departed client,
    and if the departure's level is below ``ERROR``, as it is by default. It keeps events of the
    level ``fatal`` (``CRITICAL``). A `SentryOutlet` captures the exception of an upstream's reset
    itself; where there is one, two lines about that reset are dropped as well: that of a
    `cleanclose.core.LineOutlet`, and tornado's "Cannot send error response after headers written".
    Everything else goes on, untouched.

    Args:
        then: A ``before_send`` of your own, for all other events. Default: none.
        levels: How loud departures are. Default: the table as it stands.

    Raises:
        TypeError: ``then`` cannot be called.
    """

    def __init__(self, then: Processor | None = None, *, levels: Levels | None = None) -> None:
        if then is not None and not callable(then):
            raise TypeError(f"then must be callable or None, not {then!r}")
        self._then = then
        self._levels = levels or Levels()

    def __call__(self, event: Any, hint: dict[str, Any]) -> Any:
        """Look at an event.

        Returns:
            The event; None if it is dropped.
        """
        # What the application calls critical stays critical.
        is_critical = event.get("level") == "fatal"
        if (not is_critical and self._is_departure(hint)) or _is_told(hint):
            return None
        return event if self._then is None else self._then(event, hint)

    def _is_departure(self, hint: dict[str, Any]) -> bool:
        errors = _errors(hint)
        if not errors:
            return False
        verdict = verdict_of_errors(errors)
        if verdict is None:
            return False
        return self._levels.of_row(row_of_departure(verdict)) < logging.ERROR


_OF_TORNADO: Final = ("tornado.general", "Cannot send error response after headers written")

before_send: Final = BeforeSend()
"""A filter with the defaults."""


_OUTLETS: Final[weakref.WeakSet[SentryOutlet]] = weakref.WeakSet()
"""The outlets that exist: if there is one, it reports an upstream's reset."""


class SentryOutlet:
    """An outlet that captures the exception of each upstream's reset.

    The event has the tags ``cleanclose.phase``, ``cleanclose.mechanism`` and, where it is known,
    ``cleanclose.library`` and ``cleanclose.route``, and the likely cause among its contexts. All
    other events pass.
    """

    def __init__(self) -> None:
        _OUTLETS.add(self)

    def __reduce__(self) -> tuple[type[SentryOutlet], tuple[()]]:
        """For copy and pickle: a copy is one more of them."""
        return type(self), ()

    def __call__(self, event: Event, /) -> None:
        """Capture an upstream's reset."""
        if not isinstance(event, UpstreamReset) or event.exception is None:
            return
        client = sentry_sdk.get_client()
        if not client.is_active():
            return
        captured, hint = event_from_exception(
            event.exception,
            client_options=client.options,
            mechanism={"type": "cleanclose", "handled": False},
        )
        tags = {
            "cleanclose.phase": event.verdict.phase.value,
            "cleanclose.mechanism": event.verdict.mechanism.value,
            "cleanclose.library": event.library,
            "cleanclose.route": event.facts.route,
        }
        data: dict[str, Any] = cast("dict[str, Any]", captured)
        data["tags"] = {key: value for key, value in tags.items() if value is not None}
        data["contexts"] = {"cleanclose": {**event.fields()}}
        sentry_sdk.capture_event(captured, hint=hint)


def _errors(hint: dict[str, Any]) -> list[BaseException]:
    exc_info = hint.get("exc_info")
    if isinstance(exc_info, tuple):
        exc_info = cast("tuple[object, ...]", exc_info)[1]
    if not isinstance(exc_info, BaseException):
        return []
    record = hint.get("log_record")
    return [exc_info, *(errors_in(record) if isinstance(record, logging.LogRecord) else ())]


def _is_told(hint: dict[str, Any]) -> bool:
    """Whether an event is only a log line about a reset whose exception has its own event."""
    record = hint.get("log_record")
    if not _OUTLETS or not isinstance(record, logging.LogRecord) or record.exc_info:
        return False
    if event_of_line() == UpstreamReset.name:
        return True
    if (record.name, record.msg) != _OF_TORNADO:
        return False
    # RequestHandler.send_error logs it while the exception is being handled.
    error, watch = sys.exception(), current()
    return error is not None and watch is not None and watch.judge(error).side is Side.UPSTREAM
