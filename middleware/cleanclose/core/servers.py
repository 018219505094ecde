"""What is special about a server: one table, in one place.

A server is recognised from the interface itself (the module behind ASGI's ``receive``, keys of
the WSGI ``environ``), never from a version number. A server that is not in the table gets
`UNKNOWN`, the careful default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import functools
import operator
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import Any, Final, cast

__all__ = [
    "TORNADO",
    "UNKNOWN",
    "Continue",
    "Server",
    "asgi_server",
    "asgi_socket",
    "close_asgi",
    "cooperates_with",
    "is_asgi_stopping",
    "is_called_by_server",
    "is_called_by_wsgi_server",
    "is_servers_own",
    "plain_socket",
    "wsgi_response",
    "wsgi_server",
]


class Continue(enum.Enum):
    """When a server sends ``100 Continue`` to a client that asked for it."""

    EAGER = "eager"
    """By itself, before the application runs: the body comes in any case."""

    LAZY = "lazy"
    """On the application's first read, and never once a response has begun."""

    LATE = "late"
    """On the first read, even behind the final response, where it would be a stray message."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One row of the table.

    Args:
        name: The server's name, as events give it.
        sends_continue: When it sends ``100 Continue``.
        socket_key: The key of the WSGI environ which holds the client's socket, if any.
        gone_attributes: The attributes, with dots, of the object behind ASGI's ``receive``, of
            which one is there and is true once the peer has left.
        gone_is_settled: Whether that attribute stays false for a peer which leaves when the
            response is complete.
        lost_code: The code, without a reason, that the server gives for a websocket which was
            lost without a close frame, besides 1006 (RFC 6455, section 7.4.1).
        hides_after_end: Whether it says nothing, at its usual level, about an exception that an
            ASGI application raises behind its complete response.
        reads_first: Whether it has read all of the body before it calls the application, so that
            there is nothing to discard.
        ends_at_length: Whether a response that comes in pieces is over for it with the last byte
            of its Content-Length, so that nothing can be read behind that; one that comes in one
            piece is over when the application returns.
        end_waits: Whether its ``send`` of a response's end waits until there is room in the
            queue of the body's pieces.
        heeds_close: Whether it closes the connection behind a response in which the application
            has set ``Connection: close``.
        ends_at_upgrade: Whether a request for an upgrade ends at its head for the parser of an ASGI
            server, whatever its body.
        connection: Where the client's connection is, as attributes with dots: of the object behind
            ASGI's ``receive``, or of the one behind ``send`` if ``receive`` has none. Each is a
            socket, or an asyncio transport. The first one that is there counts.
        closes: The attribute of the object behind ASGI's ``receive`` that, once false, makes the
            server close the connection when the response is complete.
        stopping: What tells that an ASGI server is stopping and waits for this exchange: an
            attribute with dots of the object behind ``receive`` (or behind ``send`` if ``receive``
            has none), which may be a method without arguments, and its value then.
        gone_key: The key of the WSGI environ which holds a callable that says so, if any.
        input_socket: Where ``wsgi.input`` holds the client's socket, as an attribute with dots,
            if it does and the environ does not.
        head_attribute: Where the object behind WSGI's ``start_response`` gathers the headers, as
            an attribute with dots, if a second call adds to them. (PEP 3333 wants it to replace
            them.)
        hides: Whether the server takes such an exception of a WSGI application for its
            client's: it says nothing of it, or lays it at the client's door, and sends no 500.
            None where that is not known.
        answers: Whether it answers 500 to the other exceptions of that kind.
        reads_from: Where the reader behind ``wsgi.input`` holds the client's socket, as attributes
            with dots. The first one that is there counts; the last name is the attribute's.
        ends_with_response: Whether the exchange is over with the response's last byte: what is
            to be read must have been read before.
        closes_last: Whether a WSGI server has sent everything when it calls the response's
            ``close()``: behind that it only closes the connection.
        closes_anyway: Whether a WSGI server closes the connection behind each response.
        keeps_quiet: Whether it closes without a ``Connection: close`` in the head, and takes one
            from the application: Node's fetch takes an end that was not announced for a fault.
        close: How to tell a WSGI server not to use the connection again, and not to read what is
            left of the body, from the object behind ``start_response`` and the ``wsgi.input``;
            before the head goes out if possible.
        when_closing: How to have a WSGI server call something in the place of its own shutting
            down of the connection, from the object behind ``start_response``.
        left_attribute: The attribute of ``wsgi.input`` that counts what is still to come of the
            body, where the server may read it by itself while the application does not.
        trailers: The method of ``wsgi.input`` that reads what follows the last chunk, where the
            server itself would take that for the next request.
        descriptor: The function, as ``module.name``, that gives the file descriptor of the
            client's connection, where there is no socket.
        relays: Whether a router of the server's own may stand between the client and the process,
            which closes the client's connection as soon as the process has closed its own.
        threads: How many requests a WSGI server's process serves at once, from the environ and the
            object behind ``start_response``; None if that cannot be seen.
    """

    name: str
    sends_continue: Continue
    socket_key: str | None = None
    gone_attributes: tuple[str, ...] = ()
    gone_is_settled: bool = False
    lost_code: int = 1006
    hides_after_end: bool = False
    reads_first: bool = False
    ends_at_length: bool = False
    end_waits: bool = False
    heeds_close: bool = True
    ends_at_upgrade: bool = False
    connection: tuple[str, ...] = ()
    closes: str | None = None
    stopping: tuple[str, bool] | None = None
    gone_key: str | None = None
    input_socket: str | None = None
    head_attribute: str | None = None
    hides: Callable[[OSError], bool] | None = None
    answers: bool = True
    reads_from: tuple[str, ...] = ()
    ends_with_response: bool = False
    closes_last: bool = False
    closes_anyway: bool = False
    keeps_quiet: bool = False
    close: Callable[[Any, Any], None] | None = None
    when_closing: Callable[[Any, Callable[[], None]], None] | None = None
    left_attribute: str | None = None
    trailers: str | None = None
    descriptor: str | None = None
    relays: bool = False
    threads: Callable[[Mapping[str, Any], Any], int | None] | None = None


UNKNOWN: Final = Server("unknown", Continue.LATE, ends_at_upgrade=True)

TORNADO: Final = Server("tornado", Continue.LAZY)
"""Tornado's own HTTPServer. ``HTTP1Connection._read_message_inner`` sends the 100 after
``headers_received``; the shim keeps it off the wire when the response is complete by then."""

_ASGI: Final[Mapping[str, Server]] = {
    # RequestResponseCycle.receive sends it; .send clears the flag with the response's start.
    # Its connection_lost sets RequestResponseCycle.disconnected unless the response is complete,
    # and says 1005 to websockets (WSProtocol, WebSocketsSansIOProtocol). WebSocketProtocol, the
    # older one, is a WebSocketServerProtocol of websockets with its `closed`. httptools ends a
    # message at the head that asks for an upgrade, and HttpToolsProtocol feeds it the body then.
    "uvicorn": Server(
        "uvicorn",
        Continue.LAZY,
        gone_attributes=("disconnected", "closed"),
        gone_is_settled=True,
        lost_code=1005,
        ends_at_upgrade=True,
        connection=("transport",),
        closes="keep_alive",
        # H11Protocol.shutdown and its like set it for an exchange that is under way. (So does
        # httptools for a request that asks for it: then a stop is not seen.)
        stopping=("keep_alive", False),
    ),
    # asyncio.TaskGroup.spawn_app gives the application a plain asyncio.Queue's get, of ten pieces
    # (Config.max_app_queue_size); trio's a memory channel's receive. H11Protocol._handle_events
    # sends the 100 before anything is read. HTTPStream.handle puts the http.disconnect into the
    # queue within the send() of a response's end, and what is at the other end fills it.
    # HTTPStream.send is H11Protocol.stream_send, whose send is TCPServer.protocol_send, of asyncio
    # (with a StreamWriter) or trio (with a stream, which over TLS has another one below).
    "hypercorn": Server(
        "hypercorn",
        Continue.EAGER,
        end_waits=True,
        connection=(
            "send.__self__.send.__self__.writer",
            "send.__self__.send.__self__.stream.transport_stream.socket",
            "send.__self__.send.__self__.stream.socket",
        ),
        # WorkerContext.terminated, an event of either loop.
        stopping=("context.terminated.is_set", True),
    ),
    # Server.create_application does the same. The body is in a file by then
    # (WebRequest.process), and HTTPChannel.allHeadersReceived of Twisted has sent the 100.
    "daphne": Server("daphne", Continue.EAGER, reads_first=True),
    # ASGIProtocol.connection_lost sets them, for HTTP and for websockets. What receive() itself
    # takes note of is no sign: whoever gives up a call of it leaves it closed.
    # ASGIProtocol._handle_http_request logs what comes behind the end at DEBUG, without the
    # exception. BodyReceiver.receive sends the 100, and a response's start takes that back.
    # ASGIProtocol._will_close looks at the request's headers, not at the response's.
    "gunicorn": Server(
        "gunicorn-asgi",
        Continue.LAZY,
        gone_attributes=("protocol._closed", "_eof"),
        hides_after_end=True,
        heeds_close=False,
        connection=("protocol.transport",),
        stopping=("protocol.worker.alive", False),
    ),
    # Compiled: nothing behind its callables can be asked. It says 1005 to websockets, too.
    # hyper sends the 100 (Conn.poll_read_body), unless a response has begun; and it drops a
    # stream of pieces when Content-Length has been reached (its Encoder), which is what
    # ASGIHTTPProtocol.receive takes for the client's departure.
    "granian": Server("granian", Continue.LAZY, lost_code=1005, ends_at_length=True),
}


_ASGI_BY_MODULE: Final[Mapping[str, Server]] = {
    # h11 goes on to the end of such a request's body before it takes anything for an upgrade.
    "uvicorn.protocols.http.h11_impl": dataclasses.replace(_ASGI["uvicorn"], ends_at_upgrade=False),
}
"""By the module of the server's ``receive``, where a part of a server is special."""


def _hidden_by_gunicorn(error: OSError) -> bool:
    # handle() of each worker. Every SSLError is the client's there: the end of a connection is a
    # debug line, all others are a 403 and an "Invalid request".
    return isinstance(error, ssl.SSLError) or error.errno in _IGNORED_BY_GUNICORN


_IGNORED_BY_GUNICORN: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})


def _hidden_by_werkzeug(error: OSError) -> bool:
    # WSGIRequestHandler.run_wsgi, connection_dropped_errors.
    return isinstance(error, ConnectionError | TimeoutError | ssl.SSLEOFError)


def _hidden_by_wsgiref(error: OSError) -> bool:
    # BaseHandler.run.
    return isinstance(error, ConnectionAbortedError | BrokenPipeError | ConnectionResetError)


def _hidden_by_gevent(error: OSError) -> bool:
    # WSGIHandler.ignored_socket_errors.
    return error.args[:1] in ((errno.EPIPE,), (errno.ECONNRESET,))


_IGNORED_BY_CHEROOT: Final = frozenset(
    {
        errno.EPIPE,
        errno.EBADF,
        errno.ENOTSOCK,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENETRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""cheroot.errors.socket_errors_to_ignore."""


def _hidden_by_cheroot(error: OSError) -> bool:
    # HTTPConnection.communicate looks at the first argument; a time-out becomes a 408.
    first = error.args[0] if error.args else None
    timeouts = ("timed out", "The read operation timed out")
    return first in timeouts or first in _IGNORED_BY_CHEROOT


def _hides_nothing(error: OSError) -> bool:
    return False


def _close_gunicorn(response: Any, body: Any) -> None:
    # Response.force_close: it puts Connection: close into the head, too.
    force_close: object = getattr(response, "force_close", None)
    if callable(force_close):
        force_close()


def _close_cheroot(gateway: Any, body: Any) -> None:
    # HTTPRequest.send_headers says it in the head, and otherwise reads all that is left of a
    # body with a Content-Length, in one piece, before it sends anything.
    request: Any = getattr(gateway, "req", None)
    if request is not None:
        request.close_connection = True


def _when_cheroot_closes(gateway: Any, let_go: Callable[[], None]) -> None:
    # HTTPConnection._close_kernel_socket shuts down both directions, and the kernel answers what
    # still comes with a reset then, whoever else has a descriptor.
    connection: Any = getattr(getattr(gateway, "req", None), "conn", None)
    if hasattr(connection, "_close_kernel_socket"):
        connection._close_kernel_socket = let_go


def _close_gevent(handler: Any, body: Any) -> None:
    handler.close_connection = True
    headers: object = getattr(handler, "response_headers", None)
    if isinstance(headers, list) and not getattr(handler, "headers_sent", True):
        # WSGIHandler.start_response has put one there for HTTP/1.0 already.
        headers[:] = [(name, value) for name, value in headers if name.lower() != b"connection"]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        headers.append((b"Connection", b"close"))  # pyright: ignore[reportUnknownMemberType]
    if hasattr(body, "_chunked_input_error"):
        # Input._discard, which reads on without any limit, leaves such a body alone.
        body._chunked_input_error = True


def _threads_of_gunicorn(environ: Mapping[str, Any], response: Any) -> int | None:
    return _number(response, "cfg.threads")


def _threads_of_werkzeug(environ: Mapping[str, Any], response: Any) -> int:
    # ThreadedWSGIServer starts one for each connection.
    return sys.maxsize if environ.get("wsgi.multithread") else 1


def _threads_of_uwsgi(environ: Mapping[str, Any], response: Any) -> int | None:
    # The module that it puts into its own processes; one core is one thread of a worker.
    return _number(sys.modules.get("uwsgi"), "cores")


def _threads_of_cheroot(environ: Mapping[str, Any], gateway: Any) -> int | None:
    # Its ThreadPool starts so many, and more only if somebody calls grow().
    return _number(gateway, "req.server.requests.min")


def _number(owner: object, attribute: str) -> int | None:
    try:
        found: object = operator.attrgetter(attribute)(owner)
    except AttributeError:
        # Another version of the server.
        return None
    return found if isinstance(found, int) else None


def _threads_of_granian(environ: Mapping[str, Any], response: Any) -> int:
    # _spawn_wsgi_worker of each of its servers hands the number to compiled code, and then waits
    # for the worker's end.
    found: list[int] = []
    for frame in _frames_of_all_threads():
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "_spawn_wsgi_worker" and name.startswith("granian."):
            threads: object = frame.f_locals.get("blocking_threads")
            if isinstance(threads, int):
                found.append(threads)
    return min(found, default=1)


def _frames_of_all_threads() -> Iterator[FrameType]:
    # CPython has it; others need not.
    current_frames: Callable[[], dict[int, FrameType]] | None
    current_frames = getattr(sys, "_current_frames", None)
    for innermost in current_frames().values() if current_frames is not None else ():
        frame: FrameType | None = innermost
        while frame is not None:
            yield frame
            frame = frame.f_back


_WSGI: Final[Mapping[str, Server]] = {
    # gunicorn.http.wsgi.create sends it before the application is called.
    "gunicorn.socket": Server(
        "gunicorn",
        Continue.EAGER,
        "gunicorn.socket",
        head_attribute="headers",
        hides=_hidden_by_gunicorn,
        # handle() of each worker: a "Socket error processing request", and an empty reply.
        answers=False,
        # SocketUnreader.sock, of LengthReader and EOFReader, and of ChunkedReader's request.
        reads_from=("reader.unreader.sock", "reader.req.unreader.sock"),
        closes_last=True,
        close=_close_gunicorn,
        threads=_threads_of_gunicorn,
    ),
    # WSGIRequestHandler.run_wsgi sends it first of all. Its execute() reads, in pieces of 10 MB,
    # until the client closes if anything has come when the response is out; each response closes
    # the connection. The body is the rfile itself, or a DechunkedInput around it.
    "werkzeug.socket": Server(
        "werkzeug",
        Continue.EAGER,
        "werkzeug.socket",
        hides=_hidden_by_werkzeug,
        reads_from=("raw._sock", "_rfile.raw._sock"),
        closes_last=True,
        closes_anyway=True,
        threads=_threads_of_werkzeug,
    ),
    # It never sends one itself; its HTTP router does with http-manage-expect, and then by itself.
    "uwsgi.version": Server(
        "uwsgi",
        Continue.LAZY,
        closes_anyway=True,
        keeps_quiet=True,
        descriptor="uwsgi.connection_fd",
        # plugins/http: with the end of what the worker sends all is over. The router, and other
        # proxies, tell their client's port; http-socket has no REMOTE_PORT.
        relays=True,
        threads=_threads_of_uwsgi,
    ),
    # httpd passes the whole body on to its daemon, or discards it itself behind the response.
    "mod_wsgi.version": Server("mod_wsgi", Continue.EAGER, reads_first=True),
}

_WSGI_PACKAGES: Final[Mapping[str, Server]] = {
    # HTTPChannel.service logs and answers whatever Task.service lets through, which is
    # everything unless log_socket_errors is turned off. HTTPChannel.received sends the 100.
    "waitress": Server(
        "waitress",
        Continue.EAGER,
        gone_key="waitress.client_disconnected",
        hides=_hides_nothing,
        reads_first=True,
    ),
    # HTTPRequest.read_request_headers sends it.
    "cheroot": Server(
        "cheroot",
        Continue.EAGER,
        input_socket="rfile.raw._sock",
        head_attribute="req.outheaders",
        hides=_hidden_by_cheroot,
        reads_from=("rfile.raw._sock",),
        close=_close_cheroot,
        # HTTPRequest.respond sends the last chunk behind close().
        when_closing=_when_cheroot_closes,
        # HTTPRequest.send_headers discards what the application has not read by then.
        left_attribute="remaining",
        # HTTPRequest.respond leaves what follows the last chunk where it is.
        trailers="read_trailer_lines",
        threads=_threads_of_cheroot,
    ),
    # http.server's handle_expect_100 sends it before the application runs, but only in a
    # subclass that speaks HTTP/1.1; wsgiref's own never does.
    "wsgiref": Server(
        "wsgiref",
        Continue.LAZY,
        input_socket="raw._sock",
        hides=_hidden_by_wsgiref,
        reads_from=("raw._sock",),
        closes_last=True,
        closes_anyway=True,
    ),
    # Input._send_100_continue would, on the first read; what we read for nobody does not.
    "gevent": Server(
        "gevent",
        Continue.LAZY,
        input_socket="rfile.raw._sock",
        hides=_hidden_by_gevent,
        reads_from=("rfile.raw._sock",),
        closes_last=True,
        close=_close_gevent,
    ),
    # hyper ends the exchange when the Content-Length is out, and drops the rest of the body.
    # Its body sends the 100 when it is first polled.
    "granian": Server(
        "granian", Continue.LATE, ends_with_response=True, threads=_threads_of_granian
    ),
}
"""By the package of the server's ``start_response``."""


def asgi_server(receive: object, send: object = None) -> Server:
    """The server behind the callables that an ASGI application gets.

    Args:
        receive: The callable as the server gave it. Behind a middleware which wraps it the
            server is unknown.
        send: The other one, for servers whose ``receive`` is a plain queue's.
    """
    part = _ASGI_BY_MODULE.get(str(getattr(receive, "__module__", None)))
    return part or _ASGI.get(_asgi_package(receive, send), UNKNOWN)


def asgi_socket(receive: object, send: object) -> Any:
    """The client's socket, or what stands in for it, where one is in reach.

    Args:
        receive: The callable as the server gave it.
        send: The other one.

    Returns:
        None behind a middleware that wraps the callables, on servers that keep it to themselves,
        and for one that has no attributes of these names any more.
    """
    owner = _owner(receive, send)
    for path in asgi_server(receive, send).connection:
        try:
            found: Any = operator.attrgetter(path)(owner)
        except AttributeError:
            continue
        ask: object = getattr(found, "get_extra_info", None)
        return ask("socket") if callable(ask) else found
    return None


def _owner(receive: object, send: object) -> object:
    """The server's object for the exchange, behind one of its callables."""
    if _package(receive) in ("asyncio", "trio"):
        return getattr(_behind_starlette(send), "__self__", None)
    return getattr(receive, "__self__", None)


def is_asgi_stopping(receive: object, send: object) -> bool:
    """Whether the server is stopping and waits for this exchange, as far as it shows that.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    sign = asgi_server(receive, send).stopping
    if sign is None:
        return False
    path, expected = sign
    try:
        found: Any = operator.attrgetter(path)(_owner(receive, send))
    except AttributeError:
        # Another version of the server.
        return False
    return (found() if callable(found) else found) is expected


def close_asgi(receive: object, send: object) -> None:
    """Have the server close the connection behind the response, where it has a way to say so.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    attribute = asgi_server(receive, send).closes
    owner: object = getattr(receive, "__self__", None)
    if attribute is not None and hasattr(owner, attribute):
        setattr(owner, attribute, False)


def is_called_by_server(frame: FrameType | None, receive: object, send: object) -> bool:
    """Whether a server calls, with nobody in between who could still want the request's body.

    What is in between may answer in the place of an application which has failed; but whoever is
    not known here may also try another application, and that one would need the body.

    Args:
        frame: The caller's frame.
        receive: The callable as the caller gave it.
        send: The other one.
    """
    package = _asgi_package(receive, send)
    return package in _ASGI and _is_called_by(frame, package) is True


def is_called_by_wsgi_server(frame: FrameType | None, server: Server) -> bool:
    """The same for WSGI, where a compiled server leaves no frame of its own.

    Args:
        frame: A frame to look from; those of this package are passed over.
        server: The server, as it was recognised.
    """
    own = __name__.partition(".")[0]
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == own:
        frame = frame.f_back
    return server is not UNKNOWN and _is_called_by(frame, server.name) is not False


def _is_called_by(frame: FrameType | None, package: str) -> bool | None:
    # Below a script's own code, which is nobody's middleware, is pyuwsgi's server.
    while frame is not None and frame.f_code.co_name != "<module>":
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == package:
            return True
        if module not in _ANSWERING:
            return False
        frame = frame.f_back
    return None


_ANSWERING: Final = frozenset(
    {
        "fastapi.applications",
        # Flask.__call__ passes on everything, for `app.wsgi_app = CleanCloseMiddleware(...)`.
        "flask.app",
        "starlette.applications",
        # ServerErrorMiddleware.__call__: its handlers get no receive().
        "starlette.middleware.errors",
    }
)
"""Modules that answer an exception, or pass it on, without a look at the body."""


def _asgi_package(receive: object, send: object) -> str:
    package = _package(receive)
    if package in ("asyncio", "trio"):
        send = _behind_starlette(send)
        package = _package(getattr(send, "func", send))
    return package


def _behind_starlette(send: object) -> object:
    # ServerErrorMiddleware.__call__ stands around every middleware of an application's own. It
    # hands on the server's receive, but a function of its own as send.
    if getattr(send, "__module__", None) == "starlette.middleware.errors":
        code: object = getattr(send, "__code__", None)
        names: tuple[str, ...] = getattr(code, "co_freevars", ())
        for name, cell in zip(names, getattr(send, "__closure__", None) or (), strict=False):
            if name == "send":
                return cell.cell_contents
    return send


def _package(call: object) -> str:
    module: object = getattr(call, "__module__", None)
    if module is None:
        # A compiled method has none, but its object's class does.
        module = type(getattr(call, "__self__", None)).__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def wsgi_server(environ: Mapping[str, Any], start_response: object = None) -> Server:
    """The server behind a WSGI environ.

    Args:
        environ: The environ.
        start_response: The callable as the server gave it, for servers that leave nothing of
            theirs in the environ. Behind a middleware which wraps it those are unknown.
    """
    for key, server in _WSGI.items():
        if key in environ:
            return server
    return _WSGI_PACKAGES.get(_package(start_response), UNKNOWN)


def wsgi_response(start_response: object, server: Server) -> object:
    """The server's own object behind ``start_response``, through what others put around it.

    Sentry and OpenTelemetry hand on a `functools.partial`, or a function with the server's in its
    closure.

    Args:
        start_response: The callable as the application, or the middleware, was given it.
        server: The server, as it was recognised.

    Returns:
        None where there is none, or where it is hidden too well.
    """
    waiting, seen = [start_response], 0
    while waiting and seen < _MOST_WRAPPERS:
        call = waiting.pop(0)
        seen += 1
        owner: object = getattr(call, "__self__", None)
        if owner is not None and type(owner).__module__.partition(".")[0] == server.name:
            return owner
        waiting += _wrapped_by(call)
    return None


_MOST_WRAPPERS: Final = 64


def _wrapped_by(call: object) -> Iterator[object]:
    function: object = getattr(call, "__func__", call)
    kind: type = type(call)
    if issubclass(kind, functools.partial):
        partial = cast("functools.partial[object]", call)
        yield from (partial.func, *partial.args, *partial.keywords.values())
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            # An empty one raises.
            if callable(cell.cell_contents):
                yield cell.cell_contents
    own: object = getattr(call, "__self__", None)
    for owner in (call, own):
        if not isinstance(owner, type | FunctionType | ModuleType):
            attributes: Mapping[str, object] = getattr(owner, "__dict__", {})
            yield from filter(callable, attributes.values())


def cooperates_with(sock: object) -> str | None:
    """The package whose greenlets a socket waits for: nothing else may wait either.

    Args:
        sock: The client's socket.

    Returns:
        ``gevent`` or ``eventlet``; None for a socket that blocks its thread.
    """
    package = type(sock).__module__.partition(".")[0]
    return package if package in ("gevent", "eventlet") else None


def plain_socket(sock: Any) -> Any:
    """The socket itself, below what would wait for a greenlet's turn.

    Args:
        sock: The client's socket: gevent's keeps its own as ``_sock``, eventlet's as ``fd``.
    """
    return getattr(sock, "fd" if cooperates_with(sock) == "eventlet" else "_sock", sock)


def is_servers_own(call: object, server: Server) -> bool:
    """Whether a callable is the server's, and not that of a middleware in front of it.

    Args:
        call: What the application, or a middleware inside, was given to call.
        server: The server, as it was recognised.
    """
    return _package(call) == server.name
