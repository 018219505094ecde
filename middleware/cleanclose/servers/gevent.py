"""gevent.pywsgi, and gevent's sockets, which gunicorn's gevent worker serves with."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import MISSING, find
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # WSGIHandler.ignored_socket_errors.
    return error.args[:1] in ((errno.EPIPE,), (errno.ECONNRESET,))


def _close(handler: Any, body: Any) -> None:
    handler.close_connection = True
    headers = find(handler, "response_headers")
    if isinstance(headers, list) and find(handler, "headers_sent") is False:
        # WSGIHandler.start_response has put one there for HTTP/1.0 already.
        headers[:] = [(name, value) for name, value in headers if name.lower() != b"connection"]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        headers.append((b"Connection", b"close"))  # pyright: ignore[reportUnknownMemberType]
    if find(body, "_chunked_input_error") is not MISSING:
        # Input._discard, which reads on without any limit, leaves such a body alone.
        body._chunked_input_error = True


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    # First of all, and so before the application's own imports.
    importlib.import_module("gevent.monkey").patch_all()
    server: Any = importlib.import_module("gevent.pywsgi").WSGIServer((host, port), make())
    server.serve_forever()


ROOM: Final = Room(
    package="gevent",
    program=Program(distribution="gevent", serve=_serve),
    # Input._send_100_continue sends the 100 on the first read, wherever the response is by then.
    wsgi=Server(
        "gevent",
        Continue.LATE,
        input_socket="rfile.raw._sock",
        hides=_hides,
        replaces_head=True,
        reads_from=("rfile.raw._sock",),
        closes_last=True,
        close=_close,
    ),
    inner_socket="_sock",
    private=(
        Private(
            "gevent.pywsgi.Input",
            "rfile",
            "The client's socket is out of reach: early responses go as without the middleware.",
        ),
        *(
            Private(
                "gevent.pywsgi.WSGIHandler",
                attribute,
                "The head of an early response has no Connection: close.",
            )
            for attribute in ("response_headers", "headers_sent")
        ),
        Private(
            "gevent.pywsgi.Input",
            "_chunked_input_error",
            "After an early response the server reads the rest of a body by itself, without "
            "a limit.",
        ),
    ),
)
