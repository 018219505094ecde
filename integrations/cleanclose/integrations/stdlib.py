"""The standard library's logging: events as records, and quiet logs.

`StdlibOutlet` writes events without structlog.

A filter on the loggers of servers, frameworks and asyncio lowers the level of the records which
are proven to tell of a client's departure, and of nothing else. The shims install it
(``quiet_logs=True``, the default).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MethodType, TracebackType
from typing import Any, Final

from cleanclose.core import Flood, Levels, Mechanism, Phase, Side, Verdict, Witness, judge, mark
from cleanclose.core.counters import PROCESS
from cleanclose.core.floods import DEFAULT_FLOOD
from cleanclose.core.levels import row_of_departure
from cleanclose.core.outlets import LOGGER_NAME, Ids, LineOutlet
from cleanclose.core.records import fields_of, verdict_of_record
from cleanclose.core.watch import DEPARTURE_LISTENERS

__all__ = [
    "LOGGERS",
    "DepartureFilter",
    "StdlibOutlet",
    "asyncio_handler",
    "install_quiet_logs",
    "uninstall_quiet_logs",
]

_OWNERS: Final[Mapping[str, str]] = {
    "aiohttp.server": "aiohttp",
    "aiohttp.web": "aiohttp",
    "asyncio": "asyncio",
    "daphne.http_protocol": "daphne",
    "daphne.server": "daphne",
    "daphne.ws_protocol": "daphne",
    "django.channels.server": "daphne",
    "django.request": "django",
    "django.server": "django",
    "falcon": "falcon",
    "gunicorn.error": "gunicorn",
    "hypercorn.error": "hypercorn",
    "litestar": "litestar",
    "tornado.application": "tornado",
    "tornado.general": "tornado",
    "uvicorn.error": "uvicorn",
    "waitress": "waitress",
    "websockets.server": "websockets",
    "werkzeug": "werkzeug",
}
"""Each logger, and the package whose own lines are looked at.

Some of these loggers are used by applications as well. What an application says about a
departure in its own words is its own to decide.
"""

LOGGERS: Final = tuple(_OWNERS)
"""The loggers on which servers, frameworks and asyncio report what happens to a request."""

_NO_PACKAGE_OF_ITS_OWN: Final = frozenset({"asyncio"})
"""Loggers on which any file's lines are looked at: uvloop, which is no Python, logs there too."""

_APPS: Final[Mapping[str, str]] = {"flask.app.Flask": "flask", "quart.app.Quart": "quart"}
"""Applications with a logger of their own name, and the package which logs there."""

_INNER: Final = ("app", "wsgi_app", "asgi_app", "application")

_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message"})
"""What a record has already: as ``extra`` these would raise (`logging.Logger.makeRecord`)."""


class StdlibOutlet(LineOutlet):
    """An outlet that logs each event with the standard library, without structlog.

    The message is the event's name, the fields are attributes of the record (``extra``): what a
    formatter for JSON takes from there is the event.

    Args:
        levels: How loud each event is. Default: the table as it stands.
        logger: The logger's name.
        flood: From when on lines of the same kind are folded. None: never.
        ids: Where else to look for ids; see `cleanclose.core.outlets.LineOutlet`.
        mapping: Other names for the fields: called with the event's name and the fields, it
            returns what the record has instead. See `cleanclose.integrations.schemas`.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: ``flood`` is no `cleanclose.core.Flood`, or one of ``ids`` or ``mapping``
            cannot be called.
    """

    def __init__(
        self,
        levels: Levels | None = None,
        *,
        logger: str = LOGGER_NAME,
        flood: Flood | None = DEFAULT_FLOOD,
        ids: Iterable[Ids] = (),
        mapping: Callable[[str, Mapping[str, object]], Mapping[str, object]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(levels, flood=flood, ids=ids, clock=clock)
        if mapping is not None and not callable(mapping):
            raise TypeError(f"mapping must be callable or None, not {mapping!r}")
        self._logger = logging.getLogger(logger)
        self._mapping = mapping

    def is_on(self, level: int) -> bool:
        """Whether the logger is enabled for the level."""
        return self._logger.isEnabledFor(level)

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Log one record."""
        given = fields if self._mapping is None else self._mapping(name, fields)
        extra = {f"{key}_" if key in _RECORD else key: value for key, value in given.items()}
        self._logger.log(level, name, extra=extra, exc_info=error)


class DepartureFilter(logging.Filter):
    """Lowers the level of records which tell of a client's departure and of nothing else.

    For loggers, not for handlers: a handler has compared the levels before it asks its filters.

    The record then has the level of the departure's event, ``original_level`` (a number), no
    traceback, and the verdict in ``cleanclose_side``, ``cleanclose_phase``,
    ``cleanclose_mechanism`` and ``cleanclose_witnesses``. If its logger is not enabled for the
    new level, the record ends here. ``CRITICAL`` records, and those below ``WARNING``, pass as
    they are; and so does every record if something goes wrong here.

    Args:
        levels: How loud departures are. Default: the table as it stands.
    """

    def __init__(self, levels: Levels | None = None) -> None:
        super().__init__()
        self.levels = levels or Levels()
        self.owners: dict[str, str | None] = {}
        """For each logger the package whose lines alone are looked at; None: everybody's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower a record, if it is to be lowered.

        Returns:
            Whether it goes on to the handlers.
        """
        if not logging.WARNING <= record.levelno < logging.CRITICAL:
            return True
        try:
            if not _is_by(self.owners.get(record.name), record.pathname):
                return True
            verdict = verdict_of_record(record)
            if verdict is None:
                return True
            level = self.levels.of_row(row_of_departure(verdict))
            if level >= record.levelno:
                return True
            _lower(record, level, verdict)
            return logging.getLogger(record.name).isEnabledFor(level)
        except Exception:  # noqa: BLE001 - logging must work, whatever is logged
            return True


def _lower(record: logging.LogRecord, level: int, verdict: Verdict) -> None:
    record.__dict__.update(fields_of(verdict), original_level=record.levelno)
    record.levelno = level
    record.levelname = logging.getLevelName(level)
    record.exc_info = record.exc_text = record.stack_info = None
    PROCESS.count_quieted_record()


def _is_by(package: str | None, file: str) -> bool:
    if package is None:
        return True
    module = sys.modules.get(package)
    home: str | None = getattr(module, "__file__", None)
    return home is not None and file.startswith(os.path.dirname(home) + os.sep)


class _Installation:
    """The filter, and the loggers that have it or will get it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._filter = DepartureFilter()
        self._missing: dict[str, str | None] = {}

    def add(self, levels: Levels | None, owners: Mapping[str, str | None]) -> None:
        with self._lock:
            self._filter.levels = levels or Levels()
            self._filter.owners.update(owners)
            self._missing.update(owners)
            for name in owners:
                if isinstance(logging.root.manager.loggerDict.get(name), logging.Logger):
                    self._attach(name)
            if self._missing and self.attach_missing not in DEPARTURE_LISTENERS:
                DEPARTURE_LISTENERS.append(self.attach_missing)

    def attach_missing(self) -> None:
        """Now somebody may log about a departure: the loggers that did not exist get the filter.

        A logger which is made before the application has configured logging would be disabled
        by that (``disable_existing_loggers``), with all that is logged there ever after. So
        none is made before, and none of a package that is not in use.
        """
        if not self._missing:
            return
        with self._lock:
            for name, package in list(self._missing.items()):
                if package is None or package in sys.modules:
                    self._attach(name)

    def remove(self) -> None:
        with self._lock:
            for name in self._filter.owners:
                logger = logging.root.manager.loggerDict.get(name)
                if isinstance(logger, logging.Logger):
                    logger.removeFilter(self._filter)
            self._filter.owners.clear()
            self._missing.clear()
            if self.attach_missing in DEPARTURE_LISTENERS:
                DEPARTURE_LISTENERS.remove(self.attach_missing)

    def _attach(self, name: str) -> None:
        logging.getLogger(name).addFilter(self._filter)
        del self._missing[name]


_INSTALLATION: Final = _Installation()


def install_quiet_logs(
    levels: Levels | None = None,
    loggers: Collection[str] = LOGGERS,
    *,
    app: object = None,
) -> None:
    """Let the records that others log about a client's departure have its event's level.

    The shims call this unless ``quiet_logs=False``. It may be called again, and adds to what is
    there; the levels of the last call are in force. Filters stay on their loggers when logging
    is configured later (`logging.config.dictConfig` and ``fileConfig`` leave them alone).

    Args:
        levels: How loud departures are. Default: the table as it stands.
        loggers: The names of the loggers. A filter does not see what is logged to a logger's
            children: each has to be named. On the names in `LOGGERS` only the lines of the
            package that the logger belongs to are looked at, on all others everybody's.
        app: An application whose own logger gets the filter too, for its framework's lines:
            a Flask or Quart object, or what holds one (its ``wsgi_app``, a middleware with an
            attribute ``app``).

    Raises:
        ValueError: ``loggers`` is not a collection of names.
    """
    if not _are_names(loggers):
        raise ValueError(f"loggers must be a collection of names, not {loggers!r}")
    owners = {name: _owner(name) for name in loggers}
    _INSTALLATION.add(levels, owners | _loggers_of(app))


def uninstall_quiet_logs() -> None:
    """Take the filter away from all loggers. Without effect where it is not installed."""
    _INSTALLATION.remove()


def _are_names(value: Collection[object]) -> bool:
    return not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _owner(name: str) -> str | None:
    return None if name in _NO_PACKAGE_OF_ITS_OWN else _OWNERS.get(name)


def _loggers_of(app: object) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    seen: set[int] = set()
    waiting = [app]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        for cls in type(each).__mro__:
            package = _APPS.get(f"{cls.__module__}.{cls.__qualname__}")
            if package is not None:
                # Its attribute `logger` would make the logger, and give it a handler.
                found[str(getattr(each, "name"))] = package  # noqa: B009 - it is object here
        if isinstance(each, MethodType):
            waiting.append(each.__self__)
        inner = _attributes(each)
        waiting.extend(inner.get(name) for name in _INNER)
    return found


def _attributes(each: object) -> Mapping[str, object]:
    try:
        # Not by getattr: a proxy would ask the object that it stands for, or raise.
        attributes: Mapping[str, object] = object.__getattribute__(each, "__dict__")
    except AttributeError:
        return {}
    return attributes


# Raw asyncio servers.

_LOST: Final = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ESHUTDOWN}
)
_OF_THE_SERVER: Final = "Unhandled exception in client_connected_cb"
"""What `asyncio.StreamReaderProtocol` says about its server's side, and only about that."""

_Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def asyncio_handler(
    loop: asyncio.AbstractEventLoop, levels: Levels | None = None
) -> Callable[[], None]:
    """Quiet departures on a server that was made with `asyncio.start_server`, without a shim.

    When such a server's callback ends with its own client's departure, the loop's exception
    handler gets an error with a traceback. This one stands before it: if the exception came out
    of the reader or the writer of the very connection which the callback was called for, the
    record has the level of a departure. All else goes to the handler that was there before, or
    to the loop's default.

    Args:
        loop: The loop. It has one handler, and this one remembers the other.
        levels: How loud departures are. Default: the table as it stands.

    Returns:
        A function that takes the handler away again. If somebody has set another one meanwhile,
        which may call this one, it stays and lets everything pass.
    """
    handler = _LoopHandler(loop.get_exception_handler(), levels or Levels())
    loop.set_exception_handler(handler)

    def uninstall() -> None:
        handler.active = False
        if loop.get_exception_handler() is handler:
            loop.set_exception_handler(handler.earlier)

    return uninstall


class _LoopHandler:
    def __init__(self, earlier: _Handler | None, levels: Levels) -> None:
        self.earlier = earlier
        self.active = True
        self._levels = levels

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        verdict = _verdict_of_context(context) if self.active else None
        level = logging.ERROR
        if verdict is not None:
            level = self._levels.of_row(row_of_departure(verdict))
        if verdict is not None and level < logging.ERROR:
            PROCESS.count_quieted_record()
            extra = {"original_level": logging.ERROR, **fields_of(verdict)}
            logging.getLogger("asyncio").log(level, "%s", context["message"], extra=extra)
        elif self.earlier is None:
            loop.default_exception_handler(context)
        else:
            self.earlier(loop, context)


def _verdict_of_context(context: Mapping[str, Any]) -> Verdict | None:
    error: object = context.get("exception")
    transport: object = context.get("transport")
    if context.get("message") != _OF_THE_SERVER or transport is None:
        return None
    # asyncio raises these from nothing. What has a cause was raised again, by the application.
    if not isinstance(error, Exception) or not _is_lost(error) or error.__cause__ is not None:
        return None
    witness = _came_out_of(transport, error.__traceback__)
    if witness is None:
        return None
    mechanism = Mechanism.of(error)
    if isinstance(error, asyncio.IncompleteReadError):
        mechanism = Mechanism.EOF
    verdict = Verdict(
        side=Side.CLIENT, phase=Phase.HANDLER, mechanism=mechanism, witnesses=(witness,)
    )
    # The same rule for what stands behind it: an upstream that was lost as well is not hidden.
    mark(error, verdict)
    judged = judge(error, None, Phase.HANDLER)
    return judged if judged.side is Side.CLIENT else None


def _is_lost(error: Exception) -> bool:
    if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _LOST


def _came_out_of(transport: object, traceback: TracebackType | None) -> Witness | None:
    """Whether an exception came out of this connection's own reader or writer.

    From there on inwards only asyncio's own code may stand: `StreamReader.readexactly` is no
    witness for what a callback of the application's raises inside of it.
    """
    witness: Witness | None = None
    while traceback is not None:
        frame = traceback.tb_frame
        own = str(frame.f_globals.get("__name__", "")).partition(".")[0] == "asyncio"
        if not own:
            witness = None
        elif witness is None:
            stream: object = frame.f_locals.get("self")
            if getattr(stream, "_transport", None) is transport:
                if isinstance(stream, asyncio.StreamReader):
                    witness = Witness.RECEIVE
                elif isinstance(stream, asyncio.StreamWriter):
                    witness = Witness.SEND
        traceback = traceback.tb_next
    return witness
