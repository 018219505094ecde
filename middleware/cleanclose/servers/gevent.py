"""gevent.pywsgi, and gevent's sockets, which gunicorn's gevent worker serves with."""

from __future__ import annotations

import errno
from typing import Any, Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # WSGIHandler.ignored_socket_errors.
    return error.args[:1] in ((errno.EPIPE,), (errno.ECONNRESET,))


def _close(handler: Any, body: Any) -> None:
    handler.close_connection = True
    headers: object = getattr(handler, "response_headers", None)
    if isinstance(headers, list) and not getattr(handler, "headers_sent", True):
        # WSGIHandler.start_response has put one there for HTTP/1.0 already.
        headers[:] = [(name, value) for name, value in headers if name.lower() != b"connection"]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        headers.append((b"Connection", b"close"))  # pyright: ignore[reportUnknownMemberType]
    if hasattr(body, "_chunked_input_error"):
        # Input._discard, which reads on without any limit, leaves such a body alone.
        body._chunked_input_error = True


ROOM: Final = Room(
    package="gevent",
    # Input._send_100_continue would send the 100, on the first read; what we read for nobody does
    # not.
    wsgi=Server(
        "gevent",
        Continue.LAZY,
        input_socket="rfile.raw._sock",
        hides=_hides,
        reads_from=("rfile.raw._sock",),
        closes_last=True,
        close=_close,
    ),
    inner_socket="_sock",
)
