"""uvicorn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


async def _receive_after_end() -> Mapping[str, Any]:
    return {"type": "http.disconnect"}


async def _send_after_end(message: Mapping[str, Any]) -> None:
    # RequestResponseCycle.send, word for word.
    raise RuntimeError(
        f"Unexpected ASGI message '{message['type']}' sent, after response already completed."
    )


# RequestResponseCycle.receive sends the 100; .send clears the flag with the response's start. Its
# connection_lost sets RequestResponseCycle.disconnected unless the response is complete, and says
# 1005 to websockets (WSProtocol, WebSocketsSansIOProtocol). WebSocketProtocol, the older one, is a
# WebSocketServerProtocol of websockets with its `closed`. httptools ends a message at the head
# that asks for an upgrade, and HttpToolsProtocol feeds it the body then.
_ROW: Final = Server(
    "uvicorn",
    Continue.LAZY,
    gone_attributes=("disconnected", "closed"),
    gone_is_settled=True,
    after_end=(_receive_after_end, _send_after_end),
    # HttpToolsProtocol.on_message_complete, and H11Protocol at the end of a message.
    arrived=("more_body", False),
    lost_code=1005,
    ends_at_upgrade=True,
    connection=("transport",),
    closes="keep_alive",
    # H11Protocol.shutdown and its like set it for an exchange that is under way. (So does
    # httptools for a request that asks for it: then a stop is not seen.)
    stopping=("keep_alive", False),
)

_CYCLES: Final = (
    "uvicorn.protocols.http.h11_impl.RequestResponseCycle",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
)


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    limits = ["--timeout-graceful-shutdown=1"]
    return ["-m", "uvicorn", *limits, *options, "--host=127.0.0.1", f"--port={port}", app]


ROOM: Final = Room(
    package="uvicorn",
    program=Program(
        distribution="uvicorn",
        words=_words,
        names=("uvicorn",),
        backlog=2048,
        keep_alive=5,
        keep_alive_options=("--timeout-keep-alive",),
    ),
    asgi=_ROW,
    asgi_parts={
        # h11 goes on to the end of such a request's body before it takes anything for an upgrade.
        "uvicorn.protocols.http.h11_impl": dataclasses.replace(_ROW, ends_at_upgrade=False),
    },
    loggers={"uvicorn.error": Lines()},
    private=tuple(
        Private(cycle, attribute, without)
        for cycle in _CYCLES
        for attribute, without in (
            (
                "disconnected",
                "A departure is seen only when the application asks for a message.",
            ),
            (
                "more_body",
                "A client that leaves after an unread body counts as having left within it.",
            ),
            (
                "transport",
                "The client's socket is out of reach: an early response is drained first, and a "
                "reset is not seen before the server reads.",
            ),
            (
                "keep_alive",
                "An early response closes the connection by its Connection: close alone, and a "
                "stop of the server is not seen while one is drained.",
            ),
        )
    ),
)
