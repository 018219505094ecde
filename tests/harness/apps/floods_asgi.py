"""Raw ASGI: writes to lost connections without looking, its client's and one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.asgi._messages import Receive, Scope, Send
from tests.harness.tap import outlets, tap_logging

PIECE = bytes(64 * 1024)
PIECES = 100
IN_VAIN = 19
"""Writes to a lost connection. asyncio says nothing of the first four."""

OVER = "over: %s"

tap_logging()
# What is lowered is to be seen.
logging.getLogger("asyncio").setLevel(logging.DEBUG)


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope, and log that it is over."""
    try:
        await serve(scope, receive, send)
    finally:
        logging.getLogger("flood").warning(OVER, scope.get("path"))


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    match scope["type"], scope.get("path"):
        case "lifespan", _:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        case "websocket", _:
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(8_000):
                await send({"type": "websocket.send", "bytes": PIECE[:100]})
        case "http", "/stream":
            await respond(send, PIECES)
        case "http", "/upstream":
            await lose_an_upstream()
            await respond(send, PIECES, lose_an_upstream)
        case _:
            await respond(send, 1)


async def respond(
    send: Send, pieces: int, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(pieces):
        if number == pieces // 2 and meanwhile is not None:
            await meanwhile()
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0.005)
    await send({"type": "http.response.body"})


async def lose_an_upstream() -> None:
    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(breaks_off, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    # How many writes it takes until the loss is known here depends on who is quicker.
    while not writer.transport.is_closing():
        writer.write(b"1")
        await asyncio.sleep(0.005)
    for _ in range(IN_VAIN):
        writer.write(b"1")
    writer.close()
    server.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


app = CleanCloseMiddleware(
    flood, outlets=outlets(), **json.loads(os.environ.get("CLEANCLOSE_SETTINGS", "{}"))
)
