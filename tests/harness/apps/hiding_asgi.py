"""A plain ASGI app, in a process in which one attribute of the server's is hidden from us."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from tests.harness.hiding import hide_one

hide_one()

from cleanclose.asgi import CleanCloseMiddleware  # noqa: E402 - what it keeps must be the hidden


async def ticks() -> AsyncIterator[bytes]:
    """A response that ends when nobody waits for it any more."""
    while True:
        yield b"tick\n"
        await asyncio.sleep(0.01)


async def served(scope: Any, receive: Any, send: Any) -> None:
    """``/read`` reads everything, ``/refuse`` nothing, ``/stream`` goes on and on.

    A websocket is accepted, and that is all.
    """
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    if scope["path"] == "/stream":
        await StreamingResponse(ticks())(scope, receive, send)
        return
    status, body = 200, b"ok\n"
    if scope["path"] == "/read":
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"%d\n" % size
    elif scope["path"] == "/refuse":
        status, body = 413, b"413\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app: Any = served
if os.environ.get("CLEANCLOSE") == "1":
    app = CleanCloseMiddleware(served, stop_work=True)
