"""What is special about a server: one table, in one place.

A server is recognised from the interface itself (the module behind ASGI's ``receive``, keys of
the WSGI ``environ``), never from a version number. A server that is not in the table gets
`UNKNOWN`, the careful default.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["TORNADO", "UNKNOWN", "Continue", "Server", "asgi_server", "wsgi_server"]


class Continue(enum.Enum):
    """When a server sends ``100 Continue`` to a client that asked for it."""

    EAGER = "eager"
    """By itself, before the application runs: the body comes in any case."""

    LAZY = "lazy"
    """On the application's first read, and never once a response has begun."""

    LATE = "late"
    """On the first read, even behind the final response, where it would be a stray message."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One row of the table.

    Args:
        name: The server's name, as events give it.
        sends_continue: When it sends ``100 Continue``.
        socket_key: The key of the WSGI environ which holds the client's socket, if any.
        gone_attribute: The attribute, with dots, of the object behind ``receive`` which is true
            once the peer has left before the response was complete, if there is one.
    """

    name: str
    sends_continue: Continue
    socket_key: str | None = None
    gone_attribute: str | None = None


UNKNOWN: Final = Server("unknown", Continue.LATE)

TORNADO: Final = Server("tornado", Continue.LAZY)
"""Tornado's own HTTPServer. ``HTTP1Connection._read_message_inner`` sends the 100 after
``headers_received``; the shim keeps it off the wire when the response is complete by then."""

_ASGI: Final[Mapping[str, Server]] = {
    # RequestResponseCycle.receive sends it; .send clears the flag with the response's start.
    # Its connection_lost sets RequestResponseCycle.disconnected unless the response is complete.
    "uvicorn": Server("uvicorn", Continue.LAZY, gone_attribute="disconnected"),
    # asyncio.TaskGroup.spawn_app gives the application a plain asyncio.Queue's get.
    "hypercorn": Server("hypercorn", Continue.LATE),
    # Server.create_application does the same.
    "daphne": Server("daphne", Continue.LATE),
    # ASGIProtocol.connection_lost sets it. What receive() itself takes note of is no sign:
    # whoever gives up a call of it leaves it closed.
    "gunicorn": Server("gunicorn-asgi", Continue.LATE, gone_attribute="protocol._closed"),
}

_WSGI: Final[Mapping[str, Server]] = {
    # gunicorn.http.wsgi.create sends it before the application is called.
    "gunicorn.socket": Server("gunicorn", Continue.EAGER, "gunicorn.socket"),
    # WSGIRequestHandler.run_wsgi sends it first of all.
    "werkzeug.socket": Server("werkzeug", Continue.EAGER, "werkzeug.socket"),
}


def asgi_server(receive: object, send: object = None) -> Server:
    """The server behind the callables that an ASGI application gets.

    Args:
        receive: The callable as the server gave it. Behind a middleware which wraps it the
            server is unknown.
        send: The other one, for servers whose ``receive`` is a plain queue's.
    """
    package = _package(receive)
    if package == "asyncio":
        package = _package(getattr(send, "func", send))
    return _ASGI.get(package, UNKNOWN)


def _package(call: object) -> str:
    module: object = getattr(call, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def wsgi_server(environ: Mapping[str, Any]) -> Server:
    """The server behind a WSGI environ."""
    for key, server in _WSGI.items():
        if key in environ:
            return server
    return UNKNOWN
