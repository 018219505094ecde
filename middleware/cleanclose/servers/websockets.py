"""The websockets library's server. We know only its log lines."""

from __future__ import annotations

from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.servers._room import Room

__all__ = ["ROOM"]

ROOM: Final = Room(package="websockets", loggers={"websockets.server": Lines()})
