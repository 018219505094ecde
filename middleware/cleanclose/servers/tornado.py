"""Tornado's own HTTPServer, which `cleanclose.tornado` is a shim for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cleanclose.core.blame.provenance import Place
from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = [
    "BODY_TIMEOUT",
    "CLOSES_ALL",
    "CONNECTION",
    "HANDLES",
    "NEEDED",
    "NEEDED_TO_STOP",
    "PARAMETERS",
    "PROTOCOLS",
    "ROOM",
    "STREAM",
    "STREAMS",
    "TORNADO",
]

TORNADO: Final = Server("tornado", Continue.LAZY)
"""``HTTP1Connection._read_message_inner`` sends the 100 after ``headers_received``; the shim keeps
it off the wire when the response is complete by then."""

STREAMS: Final = "tornado.iostream"
"""The module whose methods close a stream because of its socket, or because of their own limits."""

HANDLES: Final = Place("tornado.web", frozenset({"RequestHandler._handle_request_exception"}))
"""``RequestHandler._execute`` calls it with an exception of a handler that nobody has caught."""

CLOSES_ALL: Final = Place("tornado.http1connection", frozenset({"HTTP1ServerConnection.close"}))
"""How a server that stops closes its connections: ``HTTPServer.close_all_connections``."""

BODY_TIMEOUT: Final = Place(
    "tornado.http1connection",
    frozenset({"HTTP1Connection._read_message_inner", "HTTP1Connection._read_message"}),
)
"""The only place where ``HTTP1Connection`` closes its stream past its own ``close()``: for
HTTPServer's ``body_timeout``. In tornado 6.4 it has the shorter name."""

PROTOCOLS: Final = ("tornado.websocket", "WebSocketProtocol")
"""Module and first part of the classes that raise `WebSocketClosedError` for what their stream's
write has raised. ``WebSocketHandler`` raises the same by itself, for nothing else than a closed
websocket: its context is then whatever the application was handling."""

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
"""By class: without one of these, a request goes as if nothing were installed."""

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


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    import asyncio

    httpserver: Any = importlib.import_module("tornado.httpserver")
    log: Any = importlib.import_module("tornado.log")

    async def serve() -> None:
        application = make()
        # As `tornado.options.parse_command_line` does it in almost every program.
        log.enable_pretty_logging()
        httpserver.HTTPServer(application).listen(port, host)
        await asyncio.Event().wait()

    asyncio.run(serve())


ROOM: Final = Room(
    package="tornado",
    program=Program(distribution="tornado", serve=_serve),
    loggers={
        # TCPServer._handle_connection lets out what comes of a client that has reset its
        # connection before it was accepted: asyncio logs that as its callback's.
        "asyncio": Lines(in_a_handshake=frozenset({"asyncio", "tornado", "ssl"})),
        "tornado.application": Lines(),
        "tornado.general": Lines(
            # RequestHandler.send_error.
            while_handling=frozenset({"Cannot send error response after headers written"})
        ),
    },
    private=tuple(_private()),
)
