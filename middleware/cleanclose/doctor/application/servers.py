"""The servers that the doctor can start, and how."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cleanclose.doctor.application.target import Interface
from cleanclose.servers import ROOMS, Program, Room

__all__ = ["NAMES", "SERVERS", "Server", "pick"]

_APP: Final = "cleanclose.doctor.application.served:app"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One server.

    Args:
        name: The user's name for it.
        interfaces: What it serves.
        program: How to start it.
    """

    name: str
    interfaces: frozenset[Interface]
    program: Program

    @property
    def version(self) -> str | None:
        """The installed version; None if it is not installed."""
        if self.program.distribution is None:
            return f"Python {sys.version.split()[0]}"
        try:
            return importlib.metadata.version(self.program.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def takes_options(self) -> bool:
        """Whether it takes options of its own."""
        return self.program.words is not None

    def words(self, port: int, interface: Interface, options: Sequence[str]) -> list[str]:
        """Make the words that follow the interpreter and start the server.

        Args:
            port: The port, on loopback.
            interface: What the application is.
            options: The user's own.
        """
        if self.program.words is None:
            return ["-m", "cleanclose.doctor.application.serve", self.name, str(port)]
        return self.program.words(port, interface, _APP, options)


def _interfaces(room: Room) -> frozenset[Interface]:
    rows: dict[Interface, object] = {"asgi": room.asgi, "wsgi": room.wsgi}
    spoken: frozenset[Interface] = frozenset(name for name, row in rows.items() if row is not None)
    own: frozenset[Interface] = frozenset({"tornado"})
    # A server with an interface of its own has no row.
    return spoken or own


SERVERS: Final = tuple(
    Server(name=room.package, interfaces=_interfaces(room), program=room.program)
    for room in ROOMS
    if room.program is not None
)
NAMES: Final = tuple(server.name for server in SERVERS)

_USUAL: Final[dict[Interface, tuple[str, ...]]] = {
    "asgi": ("uvicorn", "hypercorn", "granian", "daphne", "gunicorn"),
    "wsgi": ("gunicorn", "waitress", "uwsgi", "granian", "cheroot", "werkzeug", "wsgiref"),
    "tornado": ("tornado",),
}
"""The servers to try if the user names none: the first that is installed is used."""


def pick(name: str | None, interface: Interface) -> Server | str:
    """Choose the server for an application.

    Args:
        name: The one that the user wants; None for the usual one.
        interface: What the application is.

    Returns:
        The server; or, if there is none, one sentence that says why.
    """
    by_name = {server.name: server for server in SERVERS}
    kind = {"asgi": "an ASGI", "wsgi": "a WSGI", "tornado": "a Tornado"}[interface]
    if name is None:
        for usual in _USUAL[interface]:
            if by_name[usual].version is not None:
                return by_name[usual]
        return f"No server for {kind} application is installed here: {_USUAL[interface][0]} is one."
    server = by_name[name]
    if interface not in server.interfaces:
        return f"{name} does not serve {kind} application."
    if server.version is None:
        return f"{name} is not installed here: pip install {server.program.distribution}."
    return server
