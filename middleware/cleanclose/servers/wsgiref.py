"""wsgiref, the standard library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # BaseHandler.run.
    return isinstance(error, ConnectionAbortedError | BrokenPipeError | ConnectionResetError)


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    from wsgiref.simple_server import make_server

    make_server(host, port, make()).serve_forever()


ROOM: Final = Room(
    package="wsgiref",
    program=Program(distribution=None, serve=_serve, hands_out_chunks=False),
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
