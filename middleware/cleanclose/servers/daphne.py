"""daphne."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    return ["-m", "daphne", *options, "-b", "127.0.0.1", "-p", str(port), app]


ROOM: Final = Room(
    package="daphne",
    program=Program(distribution="daphne", words=_words, names=("daphne",), runs_lifespan=False),
    # Server.create_application gives the application a plain asyncio.Queue's get. The body is in
    # a file by then (WebRequest.process), and HTTPChannel.allHeadersReceived of Twisted has sent
    # the 100.
    asgi=Server("daphne", Continue.EAGER, reads_first=True),
    loggers={
        "daphne.http_protocol": Lines(),
        "daphne.server": Lines(),
        "daphne.ws_protocol": Lines(),
        # Its command runserver, which takes the place of Django's.
        "django.channels.server": Lines(),
    },
)
