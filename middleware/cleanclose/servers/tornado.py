"""Tornado's own HTTPServer, which `cleanclose.tornado` is a shim for."""

from __future__ import annotations

from typing import Final

from cleanclose.core.private import Private
from cleanclose.core.records import Lines
from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM", "TORNADO"]

TORNADO: Final = Server("tornado", Continue.LAZY)
"""``HTTP1Connection._read_message_inner`` sends the 100 after ``headers_received``; the shim keeps
it off the wire when the response is complete by then."""

_CONNECTION: Final = "tornado.http1connection.HTTP1Connection"
_STREAM: Final = "tornado.iostream.BaseIOStream"
_HANDLER: Final = "tornado.web.RequestHandler"
_BARE: Final = "Requests go as without the middleware."

ROOM: Final = Room(
    package="tornado",
    loggers={
        "tornado.application": Lines(),
        "tornado.general": Lines(
            # RequestHandler.send_error.
            while_handling=frozenset({"Cannot send error response after headers written"})
        ),
    },
    private=(
        *(Private(_CONNECTION, attribute, _BARE) for attribute in ("context", "stream", "params")),
        Private("tornado.http1connection.HTTP1ConnectionParameters", "max_body_size", _BARE),
        Private(_STREAM, "max_buffer_size", _BARE),
        Private("tornado.iostream.IOStream", "socket", _BARE),
        Private(
            _STREAM,
            "_total_write_done_index",
            "A departure before a response's first byte counts as one in the response.",
        ),
        Private(
            _STREAM,
            "_read_buffer_size",
            "An early response lingers without what has been read of the body already.",
        ),
        *(
            Private(_HANDLER, attribute, "stop_work has no effect on whole requests.")
            for attribute in ("_execute", "_break_cycles")
        ),
        Private(
            "tornado.httputil.HTTPServerRequest",
            "_parse_body",
            "A callable gets a request whose form is not among its arguments.",
        ),
    ),
)
