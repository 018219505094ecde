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
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = [
    "TORNADO",
    "UNKNOWN",
    "Continue",
    "Server",
    "asgi_server",
    "cooperates_with",
    "is_servers_own",
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
        reads_first: Whether it reads the whole body by itself, whatever the application does.
        ends_with_response: Whether the exchange is over with the response's last byte: what is
            to be read must have been read before.
        discards: Whether a WSGI server discards the rest of the body by itself, between the
            response's end and its ``close()``: what we read must have been read before.
        close: How to tell a WSGI server not to use the connection again, from the object behind
            ``start_response`` and the ``wsgi.input``; before the head goes out if possible.
        end: What to do with the client's socket when the exchange is over, so that a server
            which ``discards`` does not wait for more.
        left_attribute: The attribute of ``wsgi.input`` that counts what is still to come of the
            body, where the server may read it by itself while the application does not.
        trailers: The method of ``wsgi.input`` that reads what follows the last chunk, where the
            server itself would take that for the next request.
        descriptor: The function, as ``module.name``, that gives the file descriptor of the
            client's connection, where there is no socket.
    """

    name: str
    sends_continue: Continue
    socket_key: str | None = None
    gone_attributes: tuple[str, ...] = ()
    gone_is_settled: bool = False
    lost_code: int = 1006
    hides_after_end: bool = False
    gone_key: str | None = None
    input_socket: str | None = None
    head_attribute: str | None = None
    hides: Callable[[OSError], bool] | None = None
    answers: bool = True
    reads_first: bool = False
    ends_with_response: bool = False
    discards: bool = False
    close: Callable[[Any, Any], None] | None = None
    end: Callable[[Any], None] | None = None
    left_attribute: str | None = None
    trailers: str | None = None
    descriptor: str | None = None


UNKNOWN: Final = Server("unknown", Continue.LATE)

TORNADO: Final = Server("tornado", Continue.LAZY)
"""Tornado's own HTTPServer. ``HTTP1Connection._read_message_inner`` sends the 100 after
``headers_received``; the shim keeps it off the wire when the response is complete by then."""

_ASGI: Final[Mapping[str, Server]] = {
    # RequestResponseCycle.receive sends it; .send clears the flag with the response's start.
    # Its connection_lost sets RequestResponseCycle.disconnected unless the response is complete,
    # and says 1005 to websockets (WSProtocol, WebSocketsSansIOProtocol). WebSocketProtocol, the
    # older one, is a WebSocketServerProtocol of websockets with its `closed`.
    "uvicorn": Server(
        "uvicorn",
        Continue.LAZY,
        gone_attributes=("disconnected", "closed"),
        gone_is_settled=True,
        lost_code=1005,
    ),
    # asyncio.TaskGroup.spawn_app gives the application a plain asyncio.Queue's get.
    "hypercorn": Server("hypercorn", Continue.LATE),
    # Server.create_application does the same.
    "daphne": Server("daphne", Continue.LATE),
    # ASGIProtocol.connection_lost sets them, for HTTP and for websockets. What receive() itself
    # takes note of is no sign: whoever gives up a call of it leaves it closed.
    # ASGIProtocol._handle_http_request logs what comes behind the end at DEBUG, without the
    # exception.
    "gunicorn": Server(
        "gunicorn-asgi",
        Continue.LATE,
        gone_attributes=("protocol._closed", "_eof"),
        hides_after_end=True,
    ),
    # Compiled: nothing behind its callables can be asked. It says 1005 to websockets, too.
    "granian": Server("granian", Continue.LATE, lost_code=1005),
}


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


def _end_werkzeug(sock: Any) -> None:
    # What has arrived is read, and then comes an end. (SSLSocket.shutdown would end its TLS.)
    if not isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)


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
        close=_close_gunicorn,
    ),
    # WSGIRequestHandler.run_wsgi sends it first of all. Its execute() reads, in pieces of 10 MB,
    # until the client closes if anything has come when the response is out.
    "werkzeug.socket": Server(
        "werkzeug",
        Continue.EAGER,
        "werkzeug.socket",
        hides=_hidden_by_werkzeug,
        discards=True,
        end=_end_werkzeug,
    ),
    # It never sends one itself; its HTTP router does with http-manage-expect, and then by itself.
    "uwsgi.version": Server("uwsgi", Continue.LAZY, descriptor="uwsgi.connection_fd"),
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
        close=_close_cheroot,
        # HTTPRequest.send_headers discards what the application has not read by then.
        left_attribute="remaining",
        # HTTPRequest.respond leaves what follows the last chunk where it is.
        trailers="read_trailer_lines",
    ),
    # http.server's handle_expect_100 sends it before the application runs, but only in a
    # subclass that speaks HTTP/1.1; wsgiref's own never does.
    "wsgiref": Server("wsgiref", Continue.LAZY, input_socket="raw._sock", hides=_hidden_by_wsgiref),
    # Input._send_100_continue would, on the first read; what we read for nobody does not.
    "gevent": Server(
        "gevent",
        Continue.LAZY,
        input_socket="rfile.raw._sock",
        hides=_hidden_by_gevent,
        close=_close_gevent,
    ),
    # hyper ends the exchange when the Content-Length is out, and drops the rest of the body.
    # Its body sends the 100 when it is first polled.
    "granian": Server("granian", Continue.LATE, ends_with_response=True),
}
"""By the package of the server's ``start_response``."""


def asgi_server(receive: object, send: object = None) -> Server:
    """The server behind the callables that an ASGI application gets.

    Args:
        receive: The callable as the server gave it. Behind a middleware which wraps it the
            server is unknown.
        send: The other one, for servers whose ``receive`` is a plain queue's.
    """
    package = _package(receive)
    if package in ("asyncio", "trio"):
        package = _package(getattr(send, "func", send))
    return _ASGI.get(package, UNKNOWN)


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


def cooperates_with(sock: object) -> str | None:
    """The package whose greenlets a socket waits for: nothing else may wait either.

    Args:
        sock: The client's socket.

    Returns:
        ``gevent`` or ``eventlet``; None for a socket that blocks its thread.
    """
    package = type(sock).__module__.partition(".")[0]
    return package if package in ("gevent", "eventlet") else None


def is_servers_own(call: object, server: Server) -> bool:
    """Whether a callable is the server's, and not that of a middleware in front of it.

    Args:
        call: What the application, or a middleware inside, was given to call.
        server: The server, as it was recognised.
    """
    return _package(call) == server.name
