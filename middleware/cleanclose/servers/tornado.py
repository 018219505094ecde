"""Tornado's own HTTPServer, which `cleanclose.tornado` is a shim for.

No framework is imported here: tornado's classes are known by their names.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, Final, cast

from cleanclose.core.blame.closing import Closer
from cleanclose.core.blame.provenance import (
    Place,
    caller,
    is_called_by,
    is_method_of,
    name_of,
    passed_method,
)
from cleanclose.core.blame.records import Lines
from cleanclose.core.deliver.framing import response_length
from cleanclose.core.events import Mechanism
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import MISSING, find, number
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = [
    "CONNECTION",
    "NEEDED",
    "PROTOCOLS",
    "ROOM",
    "STREAM",
    "TORNADO",
    "came_out_of",
    "can_be_stopped",
    "can_be_watched",
    "closer_of",
    "error_of_closing",
    "hear_words",
    "lost_delegate_error",
    "read_no_request",
    "refuses_head",
    "sent_bytes",
    "stop_reading",
    "uncaught",
    "unread_bytes",
]

TORNADO: Final = Server("tornado", Continue.LAZY)
"""``HTTP1Connection._read_message_inner`` sends the 100 after ``headers_received``; the shim keeps
it off the wire when the response is complete by then."""

_STREAMS: Final = "tornado.iostream"
"""The module whose methods close a stream because of its socket, or because of their own limits."""

_STREAM_CLOSED: Final = "tornado.iostream.StreamClosedError"

_HANDLES: Final = Place("tornado.web", frozenset({"RequestHandler._handle_request_exception"}))
"""``RequestHandler._execute`` calls it with an exception of a handler that nobody has caught."""

_CLOSES_ALL: Final = Place("tornado.http1connection", frozenset({"HTTP1ServerConnection.close"}))
"""How a server that stops closes its connections: ``HTTPServer.close_all_connections``."""

_READS_MESSAGE: Final = Place(
    "tornado.http1connection",
    frozenset({"HTTP1Connection._read_message_inner", "HTTP1Connection._read_message"}),
)
"""The only place where ``HTTP1Connection`` closes its stream past its own ``close()``, for
HTTPServer's ``body_timeout``; and where it writes what is no application's: a 100, and a 400 for a
body that it cannot parse. In tornado 6.4 it has the shorter name."""

_ANSWERS: Final = frozenset({"tornado.web.HTTPError", "tornado.web.Finish"})
"""What a handler raises in order to answer."""
_RAISED: Final = "_QuietException"
"""The class in which ``HTTP1Connection`` wraps what a delegate's method has raised."""
_LINE_ENDS: Final = frozenset("\r\n")

PROTOCOLS: Final = ("tornado.websocket", "WebSocketProtocol")
"""Module and first part of the classes that raise `WebSocketClosedError` for what their stream's
write has raised. ``WebSocketHandler`` raises the same by itself, for nothing else than a closed
websocket: its context is then whatever the application was handling."""

CONNECTION: Final = "tornado.http1connection.HTTP1Connection"
_PARAMETERS: Final = "tornado.http1connection.HTTP1ConnectionParameters"
STREAM: Final = "tornado.iostream.IOStream"

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    CONNECTION: (
        "context",
        "detach",
        "params",
        "set_close_callback",
        "set_max_body_size",
        "stream",
    ),
    _PARAMETERS: ("max_body_size",),
    STREAM: (
        "close",
        "closed",
        "error",
        "fileno",
        "io_loop",
        "max_buffer_size",
        "reading",
        "set_close_callback",
        "socket",
        "write",
        "writing",
    ),
}
"""By class: without one of these, a request goes as if nothing were installed."""

_UNREAD: Final = "_read_buffer_size"
_SENT: Final = "_total_write_done_index"
_READS_HEAD: Final = "read_until_regex"
"""``HTTP1Connection`` reads each request's head with it, and nothing else."""

_USEFUL: Final[Mapping[str, str]] = {
    _READS_HEAD: "A request that came with an early response's upload is run, as it is bare.",
    _UNREAD: "An early response lingers without what has been read of the body already.",
    _SENT: "A departure before a response's first byte counts as one in the response.",
}
"""Of a stream: without one of these an event says less."""

_NEEDED_TO_STOP: Final = ("_break_cycles", "_execute", "on_finish", "send_error")
"""Of a `RequestHandler`: without one of these ``install(stop_work=…)`` has no effect."""


def _private() -> Iterator[Private]:
    for owner, attributes in NEEDED.items():
        for attribute in attributes:
            yield Private(owner, attribute, "Requests are served as if nothing were installed.")
    for attribute, without in _USEFUL.items():
        yield Private(STREAM, attribute, without)
    for attribute in _NEEDED_TO_STOP:
        yield Private(
            "tornado.web.RequestHandler", attribute, "stop_work has no effect on whole requests."
        )


# All objects of a pair of classes have the same attributes, which they set when they are made.
_watchable: Final[dict[tuple[type, type], bool]] = {}


def can_be_watched(connection: Any) -> bool:
    """Whether a connection is tornado's, and has everything that the shim needs.

    Args:
        connection: What an application's ``start_request`` was given; it may be a stand-in.
    """
    stream: object = getattr(connection, "stream", None)
    kind: tuple[type, type] = (connection.__class__, type(stream))
    if kind not in _watchable:
        _watchable[kind] = (
            CONNECTION in map(name_of, kind[0].__mro__)
            and _has_all(connection, NEEDED[CONNECTION])
            and _has_all(connection.params, NEEDED[_PARAMETERS])
            and _has_all(connection.stream, NEEDED[STREAM])
        )
    return _watchable[kind]


def can_be_stopped(handler: object) -> bool:
    """Whether a handler, or its class, has everything that stopping it needs."""
    return _has_all(handler, _NEEDED_TO_STOP)


def _has_all(found: object, names: Iterable[str]) -> bool:
    return all(find(found, name) is not MISSING for name in names)


def sent_bytes(stream: Any) -> int | None:
    """How many bytes of a stream the kernel has taken; None if that is not known."""
    try:
        # As `_SENT`: nearly every request asks.
        sent: int = stream._total_write_done_index
    except AttributeError:
        return number(stream, _SENT)
    return sent


def unread_bytes(stream: Any) -> int:
    """How many bytes tornado has read from a stream and not passed on yet; 0 if it hides that."""
    return number(stream, _UNREAD) or 0


def stop_reading(stream: Any) -> None:
    """Let a stream only write from now on.

    A stream that waits for READ events would go on reading, and TLS fails if somebody else has
    taken bytes out.
    """
    loop = stream.io_loop
    loop.update_handler(stream.fileno(), loop.WRITE | loop.ERROR)


def read_no_request(stream: Any) -> None:
    """Let tornado read no other request from a stream, once the stream is closed.

    It reads on in what it has read before it closed the stream. A request that it finds there
    would be run, and its answer would reach nobody.
    """
    if find(stream, _READS_HEAD) is MISSING:
        return
    closed: type[Exception] = importlib.import_module(_STREAMS).StreamClosedError
    # The stream refers to this function.
    reference: Any = weakref.ref(stream)

    def read_head(*args: Any, **options: Any) -> Any:
        stream: Any = reference()
        delattr(stream, _READS_HEAD)
        if not stream.closed():
            return getattr(stream, _READS_HEAD)(*args, **options)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.set_exception(closed())
        return future

    setattr(stream, _READS_HEAD, read_head)


def closer_of(by: FrameType | None, stream: Any) -> tuple[Closer, Mechanism | None]:
    """Who closes a stream; and how the peer is cut off, if it is the server.

    Args:
        by: The frame that calls the stream's ``close``; None if Python does not say.
        stream: The stream.
    """
    if by is None:
        return Closer.UNSEEN, None
    if is_method_of(by, _STREAMS, stream):
        return Closer.STREAM, None
    if _CLOSES_ALL.has(by):
        return Closer.SERVER, Mechanism.ABORTED
    if _READS_MESSAGE.has(by):
        return Closer.SERVER, Mechanism.TIMEOUT
    return Closer.APPLICATION, None


def came_out_of(error: BaseException, stream: Any) -> bool:
    """Whether an error came out of a stream: the one that it keeps, or one that stands for that.

    Args:
        error: The error.
        stream: The stream.
    """
    if _STREAM_CLOSED not in map(name_of, type(error).__mro__):
        return error is stream.error
    real: object = getattr(error, "real_error", None)
    is_kept = real is not None and real is stream.error
    return is_kept or passed_method(error, _STREAMS, stream)


def error_of_closing(exc_info: Any) -> object:
    """The error for which a stream is closed, if it is for one.

    Args:
        exc_info: The argument of ``IOStream.close``: an exception, a triple, or True for the one
            that is being handled.
    """
    error: object = sys.exc_info()[1] if exc_info is True else exc_info
    return cast("tuple[object, ...]", error)[1] if isinstance(error, tuple) else error


def hear_words(
    stream: Any, *, is_kept: Callable[[], bool], malformed: Callable[[], object]
) -> Callable[[], None]:
    """Keep what ``HTTP1Connection`` itself writes to a stream off the wire, behind a response.

    That is a 100, which it writes only before the response's head; and a bare 400 for a body that
    it cannot parse, behind which it closes the stream.

    Args:
        stream: The stream.
        is_kept: Whether the response's head is still kept back.
        malformed: Called instead of writing a 400.

    Returns:
        A function that ends this.
    """
    write = stream.write

    def write_or_not(data: Any) -> Any:
        by = caller()
        if by is None or not _READS_MESSAGE.has(by):
            return write(data)
        if data.startswith(b"HTTP/1.1 100 "):
            return write(data) if is_kept() else _done()
        malformed()
        # What has been written has to be out before it closes the connection.
        return _done() if stream.closed() else write(b"")

    def end() -> None:
        del stream.write

    stream.write = write_or_not
    return end


def _done() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def refuses_head(reason: str, headers: Any, chunk: bytes | None) -> bool:
    """Whether ``HTTP1Connection.write_headers`` raises, where the application can catch it.

    Args:
        reason: The status line's phrase.
        headers: The response's `tornado.httputil.HTTPHeaders`.
        chunk: The piece of the body that comes with them, if one does.
    """
    length = response_length(headers.get("Content-Length"))
    if length is None:
        if "Content-Length" in headers:
            return True
    elif chunk and len(chunk) > length:
        return True
    pairs = (("", reason), *headers.get_all())
    return any(_LINE_ENDS.intersection(name + value) for name, value in pairs)


def uncaught(error: BaseException | None) -> BaseException | None:
    """The error that a handler has let out, if that is what tornado is handling.

    ``HTTPError`` and ``Finish`` are the application's own answer.

    Args:
        error: What is being handled.
    """
    if not isinstance(error, Exception) or not _ANSWERS.isdisjoint(
        map(name_of, type(error).__mro__)
    ):
        return None
    return error if is_called_by(_HANDLES) else None


def lost_delegate_error() -> BaseException | None:
    """The error of a delegate's method that tornado has just logged before it closes."""
    error = sys.exc_info()[1]
    # All other errors are of its own reading.
    return error.__context__ if error is not None and type(error).__name__ == _RAISED else None


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    httpserver: Any = importlib.import_module("tornado.httpserver")
    log: Any = importlib.import_module("tornado.log")

    async def serve() -> None:
        application = make()
        # As `tornado.options.parse_command_line` does it in almost every program.
        log.enable_pretty_logging()
        httpserver.HTTPServer(application).listen(port, host)
        await asyncio.Event().wait()

    asyncio.run(serve())


ROOM: Final = Room(
    package="tornado",
    program=Program(distribution="tornado", serve=_serve),
    loggers={
        # TCPServer._handle_connection lets out what comes of a client that has reset its
        # connection before it was accepted: asyncio logs that as its callback's.
        "asyncio": Lines(in_a_handshake=frozenset({"asyncio", "tornado", "ssl"})),
        "tornado.application": Lines(),
        "tornado.general": Lines(
            # RequestHandler.send_error.
            while_handling=frozenset({"Cannot send error response after headers written"})
        ),
    },
    private=tuple(_private()),
)
