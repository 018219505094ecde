"""cheroot, which is CherryPy's."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import MISSING, find, number
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]

_IGNORED: Final = frozenset(
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


def _hides(error: OSError) -> bool:
    # HTTPConnection.communicate looks at the first argument; a time-out becomes a 408.
    first = error.args[0] if error.args else None
    timeouts = ("timed out", "The read operation timed out")
    return first in timeouts or first in _IGNORED


def _breaks_off(error: Exception) -> bool:
    # ChunkedRFile._fetch: no size, or less than the two bytes that end a chunk.
    return type(error) is ValueError and str(error).endswith((": b''", "got b'')", "got b'\\r')"))


def _close(gateway: Any, body: Any) -> None:
    # HTTPRequest.send_headers says it in the head, and otherwise reads all that is left of a
    # body with a Content-Length, in one piece, before it sends anything.
    request = find(gateway, "req")
    if request is not MISSING:
        request.close_connection = True


def _when_closing(gateway: Any, let_go: Callable[[], None]) -> None:
    # HTTPConnection._close_kernel_socket shuts down both directions, and the kernel then answers
    # further bytes with a reset, even if somebody else has a descriptor.
    if find(gateway, "req.conn._close_kernel_socket") is not MISSING:
        gateway.req.conn._close_kernel_socket = let_go


def _threads(environ: Mapping[str, Any], gateway: Any) -> int | None:
    # Its ThreadPool starts this many, and more only if somebody calls grow().
    return number(gateway, "req.server.requests.min")


_CUT_OFF: Final = "The server shuts the connection down, and further bytes cut the response off."
_TWO_THREADS: Final = "As many requests are drained at once as in a server with two threads."


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    server: Any = importlib.import_module("cheroot.wsgi").Server((host, port), make())
    server.start()


ROOM: Final = Room(
    package="cheroot",
    program=Program(distribution="cheroot", serve=_serve),
    wsgi=Server(
        "cheroot",
        # HTTPRequest.read_request_headers sends it.
        Continue.EAGER,
        input_socket="rfile.raw._sock",
        head_attribute="req.outheaders",
        hides=_hides,
        breaks_off=_breaks_off,
        replaces_head=True,
        # WSGIGateway.respond: `finally: self.req.ensure_headers_sent()`.
        masks=True,
        reads_from=("rfile.raw._sock",),
        close=_close,
        # HTTPRequest.respond sends the last chunk after close().
        when_closing=_when_closing,
        # HTTPRequest.send_headers discards what the application has not read by then.
        left_attribute="remaining",
        # HTTPRequest.respond leaves what follows the last chunk where it is.
        trailers="read_trailer_lines",
        threads=_threads,
    ),
    private=(
        *(
            Private(
                f"cheroot.server.{owner}",
                "rfile",
                "The client's socket is out of reach: early responses go as without the "
                "middleware.",
            )
            for owner in ("KnownLengthRFile", "ChunkedRFile")
        ),
        Private(
            "cheroot.server.KnownLengthRFile",
            "remaining",
            "A body that the server has read by itself counts as cut short.",
        ),
        Private(
            "cheroot.server.ChunkedRFile",
            "read_trailer_lines",
            "The connection closes after each chunked body.",
        ),
        Private(
            "cheroot.server.Gateway",
            "req",
            "The connection does not close by itself, and a second head is added to the first.",
        ),
        Private("cheroot.server.HTTPRequest", "conn", _CUT_OFF),
        Private("cheroot.server.HTTPConnection", "_close_kernel_socket", _CUT_OFF),
        Private(
            "cheroot.server.HTTPRequest",
            "outheaders",
            "The head of an answer to a departed client is added to the application's own.",
        ),
        Private("cheroot.server.HTTPRequest", "server", _TWO_THREADS),
        Private("cheroot.server.HTTPServer", "requests", _TWO_THREADS),
        Private("cheroot.workers.threadpool.ThreadPool", "min", _TWO_THREADS),
    ),
)
