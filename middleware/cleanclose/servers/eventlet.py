"""eventlet's sockets, which gunicorn's eventlet worker serves with."""

from __future__ import annotations

from typing import Final

from cleanclose.servers._room import Room

__all__ = ["ROOM"]

ROOM: Final = Room(package="eventlet", inner_socket="fd")
