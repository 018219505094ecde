"""waitress."""

from __future__ import annotations

from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # HTTPChannel.service logs and answers whatever Task.service lets through, which is everything
    # unless log_socket_errors is turned off.
    return False


ROOM: Final = Room(
    package="waitress",
    wsgi=Server(
        "waitress",
        # HTTPChannel.received sends it.
        Continue.EAGER,
        gone_key="waitress.client_disconnected",
        hides=_hides,
        reads_first=True,
    ),
    loggers={"waitress": Lines()},
)
