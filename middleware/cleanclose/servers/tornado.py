"""Tornado's own HTTPServer, which `cleanclose.tornado` is a shim for."""

from __future__ import annotations

from typing import Final

from cleanclose.core.records import Lines
from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM", "TORNADO"]

TORNADO: Final = Server("tornado", Continue.LAZY)
"""``HTTP1Connection._read_message_inner`` sends the 100 after ``headers_received``; the shim keeps
it off the wire when the response is complete by then."""

ROOM: Final = Room(
    package="tornado",
    loggers={
        "tornado.application": Lines(),
        "tornado.general": Lines(
            # RequestHandler.send_error.
            while_handling=frozenset({"Cannot send error response after headers written"})
        ),
    },
)
