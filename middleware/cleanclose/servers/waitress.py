"""waitress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # HTTPChannel.service logs and answers whatever Task.service lets through, which is everything
    # unless log_socket_errors is turned off.
    return False


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    return ["-m", "waitress", *options, f"--listen=127.0.0.1:{port}", app]


ROOM: Final = Room(
    package="waitress",
    program=Program(
        distribution="waitress",
        words=_words,
        names=("waitress", "waitress-serve"),
        backlog=1024,
        keep_alive=120,
        keep_alive_options=("--channel-timeout",),
    ),
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
