"""eventlet.wsgi, and eventlet's sockets, which gunicorn's eventlet worker served with."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import MISSING, find
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # HttpProtocol.handle_one_response logs whatever the application raises, and answers 500.
    return False


def _close(handler: Any, body: Any) -> None:
    # HttpProtocol.handle_one_response: its write() puts Connection: close into the head then, and
    # what is left of the body is not read.
    if find(handler, "close_connection") is not MISSING:
        handler.close_connection = 1


def _when_closing(handler: Any, let_go: Callable[[], None]) -> None:
    # HttpProtocol.finish shuts down both directions, and the kernel then answers further bytes with
    # a reset, even if somebody else has a descriptor. By then everything has been flushed,
    # including the server's own 500; and it leaves alone a socket that is gone.
    finish = find(handler, "finish")
    if finish is MISSING:
        return

    def let_go_first() -> None:
        # It would be a reference cycle.
        del handler.finish
        let_go()
        try:
            finish()
        except OSError as error:
            # It flushes again what a write to a client that had reset left behind, and ignores
            # EPIPE and ECONNRESET; the connection is the lingerer's by now.
            if error.errno != errno.EBADF:
                raise

    handler.finish = let_go_first


ROOM: Final = Room(
    package="eventlet",
    # Input sends the 100 on the first read, unless the head is out. handle_one_response gathers
    # small pieces before it writes them, and writes them behind another head that comes meanwhile.
    wsgi=Server(
        "eventlet",
        Continue.LAZY,
        input_socket="rfile.raw._sock",
        hides=_hides,
        replaces_head=True,
        reads_from=("rfile.raw._sock",),
        close=_close,
        when_closing=_when_closing,
    ),
    inner_socket="fd",
    private=(
        Private(
            "eventlet.wsgi.Input",
            "rfile",
            "The client's socket is out of reach: early responses go as without the middleware.",
        ),
        Private(
            "eventlet.wsgi.HttpProtocol",
            "close_connection",
            "After an early response the server reads the rest of a body by itself, without "
            "a limit.",
        ),
    ),
)
