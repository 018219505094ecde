"""What broke on the application's own side: which library, and what that mostly means."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, cast

__all__ = [
    "LIKELY_CAUSES",
    "LOST",
    "chain",
    "leaves",
    "library_of",
    "likely_cause_of",
    "lost_upstream",
]

_RESETS: Final = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENOTCONN}
)


def _always(error: Any) -> bool:
    return True


def _has_no_sqlstate(error: Any) -> bool:
    # What the database itself says has one; what libpq says of the connection has none.
    return getattr(error, "sqlstate", None) is None and getattr(error, "pgcode", None) is None


def _is_lost_to_mysql(error: Any) -> bool:
    # CR_SERVER_GONE_ERROR, CR_SERVER_LOST, CR_SERVER_LOST_EXTENDED of MySQL's client errors.
    return bool(error.args) and error.args[0] in (2006, 2013, 2055)


LOST: Final[Mapping[str, Callable[[Any], bool]]] = {
    "aiohttp.client_exceptions.ClientOSError": _always,
    "aiohttp.client_exceptions.ClientPayloadError": _always,
    "aiohttp.client_exceptions.ServerDisconnectedError": _always,
    "asyncpg.exceptions.ConnectionDoesNotExistError": _always,
    "httpcore.ReadError": _always,
    "httpcore.RemoteProtocolError": _always,
    "httpcore.WriteError": _always,
    "httpx.ReadError": _always,
    "httpx.RemoteProtocolError": _always,
    "httpx.WriteError": _always,
    "pika.exceptions.ConnectionClosed": _always,
    "pika.exceptions.ConnectionWrongStateError": _always,
    "pika.exceptions.StreamLostError": _always,
    "psycopg.OperationalError": _has_no_sqlstate,
    "psycopg.errors.AdminShutdown": _always,
    "psycopg2.OperationalError": _has_no_sqlstate,
    "psycopg2.errors.AdminShutdown": _always,
    "pymongo.errors.AutoReconnect": _always,
    "pymysql.err.OperationalError": _is_lost_to_mysql,
    "redis.exceptions.ConnectionError": _always,
    "tornado.iostream.StreamClosedError": _always,
    "tornado.simple_httpclient.HTTPStreamClosedError": _always,
    "tornado.websocket.WebSocketClosedError": _always,
    "urllib3.exceptions.ProtocolError": _always,
    "websockets.exceptions.ConnectionClosedError": _always,
}
"""Classes, by module and name, which say that a client library lost its connection, and what
else has to hold where the same class says other things as well."""

LIKELY_CAUSES: Final[Mapping[str, str]] = {
    # pika's BlockingConnection answers heartbeats only while it is inside a call of its own.
    # A connection that lies idle between two requests misses them, and the broker closes it.
    "pika.exceptions.StreamLostError": "missed heartbeats",
    "pika.exceptions.AMQPHeartbeatTimeout": "missed heartbeats",
    "pika.exceptions.ConnectionClosedByBroker": "closed by the broker",
}
"""What an error most often means, by module and name of its class."""


def lost_upstream(
    error: BaseException, is_clients: Callable[[BaseException], bool]
) -> BaseException | None:
    """The exception in an error's chain which says that a connection was lost; None if none does.

    Args:
        error: An error which is not the client's.
        is_clients: Whether an exception in its chain is the client's all the same: that one says
            nothing about an upstream.
    """
    for each in chain(error):
        if (_is_reset(each) or _says_lost(each)) and not is_clients(each):
            return each
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, all that it was raised from or during, and the leaves of its groups.

    Args:
        error: Where to begin. Each exception comes once.
    """
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.extend(leaves(each))
        if each.__cause__ is not None:
            waiting.append(each.__cause__)
        elif each.__context__ is not None and not each.__suppress_context__:
            waiting.append(each.__context__)


def leaves(error: BaseException) -> tuple[BaseException, ...]:
    """What an exception group holds, which may be groups again; nothing for any other error."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    # The group's own type parameter is unknown to every checker.
    return tuple(cast("BaseExceptionGroup[BaseException]", error).exceptions)


def likely_cause_of(error: BaseException) -> str | None:
    """What such an error most often means, if it is known."""
    for each in chain(error):
        for name in _names(each):
            if name in LIKELY_CAUSES:
                return LIKELY_CAUSES[name]
    return None


def library_of(error: BaseException) -> str | None:
    """The library that an error came through: the package of its class, or of its last frame.

    Args:
        error: The error.

    Returns:
        The name of a top-level package that is not Python's own; None where there is none, as
        for a plain socket used by a script.
    """
    for each in chain(error):
        package = type(each).__module__.partition(".")[0]
        if _is_library(package):
            return package
    for each in chain(error):
        for package in _packages(each.__traceback__):
            if _is_library(package):
                return package
    return None


def _packages(traceback: TracebackType | None) -> Iterator[str]:
    """The packages that an error passed, the innermost first, as far as they are installed."""
    modules: list[tuple[str, str]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        modules.append((traceback.tb_frame.f_globals.get("__name__", ""), code.co_filename))
        traceback = traceback.tb_next
    for module, file in reversed(modules):
        # The application's own modules are no library.
        if "site-packages" in file or "dist-packages" in file:
            yield module.partition(".")[0]


def _is_library(package: str) -> bool:
    return bool(package) and package not in sys.stdlib_module_names and package != "cleanclose"


def _is_reset(error: BaseException) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError) or (
        isinstance(error, OSError) and error.errno in _RESETS
    )


def _says_lost(error: BaseException) -> bool:
    return any(name in LOST and LOST[name](error) for name in _names(error))


def _names(error: BaseException) -> Iterator[str]:
    return (f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
