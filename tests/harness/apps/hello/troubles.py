"""Applications that cannot be examined, or not on every server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def _answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Hello\n"})


async def never_answers(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.Event().wait()


class NeedsLifespan:
    """Answers only what its start has made possible."""

    def __init__(self) -> None:
        self.database: str | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.database = "connected"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif self.database is None:
            raise RuntimeError("there is no database: the lifespan has not run")
        else:
            await _answer(send)


needs_lifespan = NeedsLifespan()


async def lifespan_fails(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database here"})
    else:
        await _answer(send)


async def lifespan_hangs(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await asyncio.Event().wait()
    await _answer(send)


def make() -> NeedsLifespan:
    """An application factory."""
    return needs_lifespan


def fails() -> NeedsLifespan:
    """A factory that fails."""
    raise ValueError("there is no configuration")


no_application = {"this": "is none"}
