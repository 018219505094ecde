"""Tornado's own HTTPServer, which `cleanclose.tornado` is a shim for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["CONNECTION", "NEEDED", "NEEDED_TO_STOP", "PARAMETERS", "ROOM", "STREAM", "TORNADO"]

TORNADO: Final = Server("tornado", Continue.LAZY)
"""``HTTP1Connection._read_message_inner`` sends the 100 after ``headers_received``; the shim keeps
it off the wire when the response is complete by then."""

CONNECTION: Final = "tornado.http1connection.HTTP1Connection"
PARAMETERS: Final = "tornado.http1connection.HTTP1ConnectionParameters"
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
    PARAMETERS: ("max_body_size",),
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
"""By class: without one of these a request goes as if nothing were installed."""

_USEFUL: Final[Mapping[str, str]] = {
    "_read_buffer_size": "An early response lingers without what has been read of the body "
    "already.",
    "_total_write_done_index": "A departure before a response's first byte counts as one in the "
    "response.",
}
"""Of a stream: without one of these an event says less."""

NEEDED_TO_STOP: Final = ("_break_cycles", "_execute", "on_finish", "send_error")
"""Of a `RequestHandler`: without one of these ``install(stop_work=…)`` has no effect."""


def _private() -> Iterator[Private]:
    for owner, attributes in NEEDED.items():
        for attribute in attributes:
            yield Private(owner, attribute, "Requests are served as if nothing were installed.")
    for attribute, without in _USEFUL.items():
        yield Private(STREAM, attribute, without)
    for attribute in NEEDED_TO_STOP:
        yield Private(
            "tornado.web.RequestHandler", attribute, "stop_work has no effect on whole requests."
        )


ROOM: Final = Room(
    package="tornado",
    loggers={
        "tornado.application": Lines(),
        "tornado.general": Lines(
            # RequestHandler.send_error.
            while_handling=frozenset({"Cannot send error response after headers written"})
        ),
    },
    private=tuple(_private()),
)
