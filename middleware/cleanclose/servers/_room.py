"""A room: what the module of one server exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Server
from cleanclose.servers._program import Program

__all__ = ["Room"]

_NONE: Final[Mapping[str, Server]] = {}
_NO_LINES: Final[Mapping[str, Lines]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Everything that we know about one server.

    Args:
        package: The package of the callables that it gives to an application.
        asgi: The row for ASGI, if it speaks that.
        asgi_parts: Rows for single modules of an ASGI server's ``receive`` that are special.
        wsgi: The row for WSGI, if it speaks that.
        environ_key: The key by which a WSGI environ shows that it is this server's; None if its
            ``start_response`` does, by its package.
        inner_socket: The attribute under which this package's sockets keep the plain socket, if
            they wait with greenlets: nothing else may block then.
        loggers: The loggers on which this package reports what happens to a request, and what we
            know about its lines there.
        program: How `cleanclose doctor` starts it; None if it cannot.
        private: The attributes that we use and that it does not promise.
    """

    package: str
    asgi: Server | None = None
    asgi_parts: Mapping[str, Server] = dataclasses.field(default_factory=lambda: _NONE)
    wsgi: Server | None = None
    environ_key: str | None = None
    inner_socket: str | None = None
    loggers: Mapping[str, Lines] = dataclasses.field(default_factory=lambda: _NO_LINES)
    program: Program | None = None
    private: tuple[Private, ...] = ()
