"""What broke on the application's own side: which library, and the usual cause."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar

from cleanclose.core.blame.provenance import (
    RESET_ERRNOS,
    chain,
    frames_of,
    name_of,
    package_of,
    passed_call,
)

__all__ = [
    "LIKELY_CAUSES",
    "LOST",
    "library_of",
    "likely_cause_of",
    "lost_upstream",
]

Answer = TypeVar("Answer")


def _always(error: Any) -> bool:
    return True


def _has_no_sqlstate(error: Any) -> bool:
    # Errors from the database itself have one; libpq's errors about the connection have none.
    if getattr(error, "sqlstate", None) is not None or getattr(error, "pgcode", None) is not None:
        return False
    # psycopg_pool uses subclasses for a pool without a free place.
    if any(name.startswith("psycopg_pool.") for name in _names(error)):
        return False
    # Never connected: connect() reports an unknown host, service or port. psycopg has words of its
    # own for that; psycopg2 has libpq's.
    return not passed_call(error, ("psycopg", "psycopg2"), "connect") and not str(error).startswith(
        (
            "connection failed",
            "connection timeout",
            "connection to server",
            "could not connect",
            "could not translate",
            "definition of service",
            "invalid ",
        )
    )


def _is_used_after(error: Any) -> bool:
    # asyncpg's words, and those of psycopg2. asyncpg has no other words for a connection that broke
    # while it was idle.
    return str(error) in ("connection is closed", "connection already closed")


def _code(error: Any) -> object:
    return error.args[0] if error.args else None


# CR_SERVER_GONE_ERROR, CR_SERVER_LOST, CR_SERVER_LOST_EXTENDED of MySQL's client errors;
# ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED (MariaDB) and ER_CLIENT_INTERACTION_TIMEOUT (MySQL) of
# its server's.
_LOST_TO_MYSQL: Final = frozenset({2006, 2013, 2055, 1053, 1927, 4031})


def _is_lost_to_mysql(error: Any) -> bool:
    return _code(error) in _LOST_TO_MYSQL


def _is_closed_mysql(error: Any) -> bool:
    # The whole text of pymysql's error for a connection that it has closed, mostly after an error.
    return tuple(error.args) == (0, "")


def _has_no_errno(error: Any) -> bool:
    # If it has an errno, that decides: it may be a refused connection.
    return getattr(error, "errno", None) is None


def _says_closed(error: Any) -> bool:
    # The same class says that the peer broke the protocol.
    text = str(error)
    return any(word in text for word in ("disconnected", "closed", "ConnectionTerminated"))


def _is_lost_to_urllib3(error: Any) -> bool:
    # The same class says that the response was malformed.
    return any(
        _is_reset(each)
        or each == "Response ended prematurely"
        or "http.client.IncompleteRead" in _names(each)
        for each in error.args
    )


def _is_lost_to_requests(error: Any) -> bool:
    # The same class says that a connection could not be made.
    return any(
        _is_reset(each)
        or ("urllib3.exceptions.ProtocolError" in _names(each) and _is_lost_to_urllib3(each))
        for each in error.args
    )


def _was_connected_to_redis(error: Any) -> bool:
    # The same class, and subclasses, say that there was no place in the pool or on the server, no
    # access, or no data yet.
    name = "redis.exceptions.ConnectionError"
    text = str(error)
    return next(iter(_names(error))) == name and any(word in text for word in _REDIS_WORDS)


_REDIS_WORDS: Final = (
    "closed by server",
    "closed on remote end",
    "Connection lost",
    "while reading from",
    "while writing to",
)


def _was_connected_to_mongodb(error: Any) -> bool:
    # Subclasses, and its other texts, say that no server was found in time, or that a different one
    # answers now. A reset is its cause, and is judged by itself.
    name = "pymongo.errors.AutoReconnect"
    return next(iter(_names(error))) == name and "connection closed" in str(error)


def _was_connected_to_smtp(error: Any) -> bool:
    return str(error) != "please run connect() first"


def _is_of_a_connection(error: Any) -> bool:
    # The application may feed a StreamReader itself: its end is then not a connection's end.
    for frame in frames_of(error):
        reader: object = frame.f_locals.get("self")
        if package_of(frame) == "asyncio" and hasattr(reader, "_transport"):
            return getattr(reader, "_transport") is not None  # noqa: B009 - it is object here
    return False


def _was_connected_to_amqp(error: Any) -> bool:
    # Subclasses say that the broker is short of memory, or that a consumer was cancelled.
    return _NO_LOSS_TO_AMQP.isdisjoint(_names(error)) and "timed out" not in str(error)


_NO_LOSS_TO_AMQP: Final = frozenset(
    {
        "amqp.exceptions.Blocked",
        "amqp.exceptions.ConsumerCancelled",
        "amqp.exceptions.ResourceError",
    }
)


def _was_let_in_by_rabbitmq(error: Any) -> bool:
    # The broker also closes before that, for example if there is no such virtual host.
    return not passed_call(error, ("aiormq",), "connect") and not passed_call(
        error, ("pika",), "_create_connection"
    )


def _is_closed_stream(error: Any) -> bool:
    # Tornado's class for anything that closed a stream, for example a refused connection.
    real: object = getattr(error, "real_error", None)
    return real is None or _is_reset(real)


LOST: Final[Mapping[str, Callable[[Any], bool]]] = {
    "aiohttp.client_exceptions.ClientOSError": _has_no_errno,
    "aiohttp.client_exceptions.ClientPayloadError": _always,
    "aiohttp.client_exceptions.ServerDisconnectedError": _always,
    "aiormq.exceptions.ConnectionClosed": _was_let_in_by_rabbitmq,
    "amqp.exceptions.RecoverableConnectionError": _was_connected_to_amqp,
    "asyncio.exceptions.IncompleteReadError": _is_of_a_connection,
    "asyncpg.exceptions.AdminShutdownError": _always,
    "asyncpg.exceptions.ConnectionDoesNotExistError": _always,
    "asyncpg.exceptions.CrashShutdownError": _always,
    "asyncpg.exceptions.IdleInTransactionSessionTimeoutError": _always,
    "asyncpg.exceptions.IdleSessionTimeoutError": _always,
    "asyncpg.exceptions._base.InterfaceError": _is_used_after,
    "http.client.IncompleteRead": _always,
    "httpcore.ReadError": _always,
    "httpcore.RemoteProtocolError": _says_closed,
    "httpcore.WriteError": _always,
    "httpx.ReadError": _always,
    "httpx.RemoteProtocolError": _says_closed,
    "httpx.WriteError": _always,
    "pika.exceptions.AMQPHeartbeatTimeout": _always,
    "pika.exceptions.ChannelWrongStateError": _always,
    "pika.exceptions.ConnectionBlockedTimeout": _always,
    "pika.exceptions.ConnectionClosedByBroker": _was_let_in_by_rabbitmq,
    "pika.exceptions.ConnectionWrongStateError": _always,
    "pika.exceptions.StreamLostError": _always,
    "psycopg.OperationalError": _has_no_sqlstate,
    "psycopg.errors.AdminShutdown": _always,
    "psycopg.errors.CrashShutdown": _always,
    "psycopg.errors.IdleInTransactionSessionTimeout": _always,
    "psycopg.errors.IdleSessionTimeout": _always,
    "psycopg2.InterfaceError": _is_used_after,
    "psycopg2.OperationalError": _has_no_sqlstate,
    "psycopg2.errors.AdminShutdown": _always,
    "psycopg2.errors.CrashShutdown": _always,
    "psycopg2.errors.IdleInTransactionSessionTimeout": _always,
    "psycopg2.errors.IdleSessionTimeout": _always,
    "pymongo.errors.AutoReconnect": _was_connected_to_mongodb,
    "pymysql.err.InterfaceError": _is_closed_mysql,
    "pymysql.err.OperationalError": _is_lost_to_mysql,
    "redis.exceptions.ConnectionError": _was_connected_to_redis,
    "requests.exceptions.ChunkedEncodingError": _is_lost_to_requests,
    "requests.exceptions.ConnectionError": _is_lost_to_requests,
    "smtplib.SMTPServerDisconnected": _was_connected_to_smtp,
    "tornado.iostream.StreamClosedError": _is_closed_stream,
    "tornado.simple_httpclient.HTTPStreamClosedError": _always,
    "tornado.websocket.WebSocketClosedError": _always,
    "urllib3.exceptions.ProtocolError": _is_lost_to_urllib3,
    "websockets.exceptions.ConnectionClosedError": _always,
}
"""Classes, by module and name, that say that a client library lost its connection, or tried to use
a lost one. If a class says other things as well, its value is a further condition.

A connection that was never made (refused, no such host, no access) is not lost."""


def _means(cause: str) -> Callable[[Any], str | None]:
    def say(error: Any) -> str:
        return cause

    return say


def _mysql_cause(error: Any) -> str | None:
    return _MYSQL_CAUSES.get(_code(error))


_MYSQL_CAUSES: Final[Mapping[object, str]] = {
    1053: "the server is stopping",
    1927: "killed by an administrator",
    # The first one says so about a connection that it finds closed when it begins to send.
    2006: "idle for longer than the server's wait_timeout",
    4031: "idle for longer than the server's wait_timeout",
}
_MISSED: Final = _means("missed heartbeats")
_ADMIN: Final = _means("ended by an administrator, or the server is stopping")
_CRASH: Final = _means("the server has crashed")
_IDLE: Final = _means("idle for longer than the server's idle_session_timeout")
_IN_TRANSACTION: Final = _means(
    "idle for longer than the server's idle_in_transaction_session_timeout"
)
_USED_AFTER: Final = _means("used after it was lost or closed")

LIKELY_CAUSES: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "asyncpg.exceptions.AdminShutdownError": _ADMIN,
    "asyncpg.exceptions.CrashShutdownError": _CRASH,
    "asyncpg.exceptions.IdleInTransactionSessionTimeoutError": _IN_TRANSACTION,
    "asyncpg.exceptions.IdleSessionTimeoutError": _IDLE,
    "asyncpg.exceptions._base.InterfaceError": _USED_AFTER,
    # pika's BlockingConnection answers heartbeats only while it is inside a call of its own.
    # A connection that is idle between two requests misses them, and the broker closes it without a
    # message, so that the next call meets a reset.
    "pika.exceptions.StreamLostError": _MISSED,
    "pika.exceptions.AMQPHeartbeatTimeout": _MISSED,
    "pika.exceptions.ChannelWrongStateError": _USED_AFTER,
    "pika.exceptions.ConnectionBlockedTimeout": _means("the broker is out of memory or disk"),
    "pika.exceptions.ConnectionClosedByBroker": _means("closed by the broker"),
    "pika.exceptions.ConnectionWrongStateError": _USED_AFTER,
    "psycopg.errors.AdminShutdown": _ADMIN,
    "psycopg.errors.CrashShutdown": _CRASH,
    "psycopg.errors.IdleInTransactionSessionTimeout": _IN_TRANSACTION,
    "psycopg.errors.IdleSessionTimeout": _IDLE,
    "psycopg2.InterfaceError": _USED_AFTER,
    "psycopg2.errors.AdminShutdown": _ADMIN,
    "psycopg2.errors.CrashShutdown": _CRASH,
    "psycopg2.errors.IdleInTransactionSessionTimeout": _IN_TRANSACTION,
    "psycopg2.errors.IdleSessionTimeout": _IDLE,
    "pymysql.err.InterfaceError": _USED_AFTER,
    "pymysql.err.OperationalError": _mysql_cause,
}
"""An error's usual cause, by the module and name of its class; None if the class tells nothing."""


def lost_upstream(
    error: BaseException, is_clients: Callable[[BaseException], bool]
) -> BaseException | None:
    """The exception in an error's chain that says that a connection was lost; None if none does.

    An exception of the operating system comes first: it shows how the connection was lost.

    Args:
        error: An error that is not the client's.
        is_clients: Whether an exception in its chain is the client's all the same: that one says
            nothing about an upstream.
    """
    said: BaseException | None = None
    for each in _own(error, is_clients):
        if _is_reset(each):
            return each
        if said is None and _says_lost(each):
            said = each
    return said


def _own(
    error: BaseException, is_clients: Callable[[BaseException], bool]
) -> Iterator[BaseException]:
    """The exceptions in an error's chain that are not the client's."""
    return (each for each in chain(error, is_clients) if not is_clients(each))


def likely_cause_of(
    error: BaseException, is_clients: Callable[[BaseException], bool]
) -> str | None:
    """The usual cause of such an error, if it is known.

    Args:
        error: The error.
        is_clients: Whether an exception in its chain is the client's all the same.
    """
    for each in _own(error, is_clients):
        name = _lost_name(each)
        cause = _ask(LIKELY_CAUSES[name], each) if name in LIKELY_CAUSES else None
        if cause is not None:
            return cause
    return None


def library_of(error: BaseException, is_clients: Callable[[BaseException], bool]) -> str | None:
    """The library that lost its connection.

    That is the library whose own class is in the error's chain, the outermost first; otherwise the
    library between the application and the error's innermost frame.

    Args:
        error: The error.
        is_clients: Whether an exception in its chain is the client's all the same.

    Returns:
        The name of an installed top-level package that is not Python's own; None if there is none,
        for example for a plain socket that the application uses itself.
    """
    own = list(_own(error, is_clients))
    for each in own:
        if _says_lost(each):
            package = _lost_name(each).partition(".")[0]
            if _is_library(package):
                return package
    for each in own:
        if _is_reset(each):
            for package in _packages(each.__traceback__):
                if _is_library(package):
                    return package
    return None


def _packages(traceback: TracebackType | None) -> Iterator[str]:
    """The installed packages that an error passed inside the application, innermost first.

    The code that called the application (a framework, a server) has nothing to do with its
    upstreams.
    """
    modules: list[tuple[str, str]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        modules.append((module, code.co_filename))
        traceback = traceback.tb_next
    for module, file in reversed(modules):
        package = module.partition(".")[0]
        if "site-packages" in file or "dist-packages" in file:
            yield package
        elif package not in sys.stdlib_module_names:
            return


def _is_library(package: str) -> bool:
    return bool(package) and package not in sys.stdlib_module_names and package != "cleanclose"


def _is_reset(error: object) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError) or (
        isinstance(error, OSError) and error.errno in RESET_ERRNOS
    )


def _says_lost(error: BaseException) -> bool:
    return bool(_lost_name(error))


def _lost_name(error: BaseException) -> str:
    return next((name for name in _names(error) if name in LOST and _ask(LOST[name], error)), "")


def _ask(rule: Callable[[Any], Answer], error: BaseException) -> Answer | None:
    try:
        return rule(error)
    except Exception:  # noqa: BLE001 - a foreign class's own __str__, say; the request goes on
        return None


def _names(error: object) -> Iterator[str]:
    return map(name_of, type(error).__mro__)
