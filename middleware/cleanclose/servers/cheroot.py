"""cheroot, which is CherryPy's."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import number
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


def _close(gateway: Any, body: Any) -> None:
    # HTTPRequest.send_headers says it in the head, and otherwise reads all that is left of a
    # body with a Content-Length, in one piece, before it sends anything.
    request: Any = getattr(gateway, "req", None)
    if request is not None:
        request.close_connection = True


def _when_closing(gateway: Any, let_go: Callable[[], None]) -> None:
    # HTTPConnection._close_kernel_socket shuts down both directions, and the kernel answers what
    # still comes with a reset then, whoever else has a descriptor.
    connection: Any = getattr(getattr(gateway, "req", None), "conn", None)
    if hasattr(connection, "_close_kernel_socket"):
        connection._close_kernel_socket = let_go


def _threads(environ: Mapping[str, Any], gateway: Any) -> int | None:
    # Its ThreadPool starts so many, and more only if somebody calls grow().
    return number(gateway, "req.server.requests.min")


ROOM: Final = Room(
    package="cheroot",
    wsgi=Server(
        "cheroot",
        # HTTPRequest.read_request_headers sends it.
        Continue.EAGER,
        input_socket="rfile.raw._sock",
        head_attribute="req.outheaders",
        hides=_hides,
        reads_from=("rfile.raw._sock",),
        close=_close,
        # HTTPRequest.respond sends the last chunk behind close().
        when_closing=_when_closing,
        # HTTPRequest.send_headers discards what the application has not read by then.
        left_attribute="remaining",
        # HTTPRequest.respond leaves what follows the last chunk where it is.
        trailers="read_trailer_lines",
        threads=_threads,
    ),
)
