"""wsgiref, the standard library's."""

from __future__ import annotations

from typing import Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # BaseHandler.run.
    return isinstance(error, ConnectionAbortedError | BrokenPipeError | ConnectionResetError)


ROOM: Final = Room(
    package="wsgiref",
    # http.server's handle_expect_100 sends the 100 before the application runs, but only in a
    # subclass that speaks HTTP/1.1; wsgiref's own never does.
    wsgi=Server(
        "wsgiref",
        Continue.LAZY,
        input_socket="raw._sock",
        hides=_hides,
        replaces_head=True,
        raw_chunks=True,
        reads_from=("raw._sock",),
        closes_last=True,
        closes_anyway=True,
    ),
)
