"""One client's websocket is written to in another one's request, and by the service's own task.

The last one to come to ``/chat`` is written to, by plain ASGI or as Starlette does it (``?by=raw``,
``?by=starlette``), until that fails.

===================  ============================================================================
websocket ``/chat``  is accepted, and written to by others
``/post``            writes to it; 200 if that does not fail
``/post-hiding``     fails by itself, and writes to it in its ``finally``
``/task``            the service's own task writes to it; 200 when it has come to its end
``/lifespan-task``   the same by a task from before the first request
===================  ============================================================================
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.websockets import WebSocket

from tests.harness.apps.noise_asgi import (
    WORKS,
    Message,
    Receive,
    Scope,
    Send,
    answer,
    note,
    prepare,
    work_on,
)
from tests.harness.hiding import bug

ROOM: Final[dict[str, Callable[[], Awaitable[None]]]] = {}
"""How the one who has come is written to."""
WISHES: Final[asyncio.Queue[tuple[str, asyncio.Event]]] = asyncio.Queue()
TRIES: Final = 300


async def write(by: str) -> None:
    """Write to the one in the room until that fails; some servers take it all."""
    for _ in range(TRIES):
        await ROOM[by]()
        await asyncio.sleep(0.01)


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()

    async def raw() -> None:
        message: Message = {"type": "websocket.send", "text": "news"}
        await send(message)

    ROOM.update(raw=raw, starlette=lambda: websocket.send_text("news"))
    note(WORKS)
    await work_on()


async def broadcaster() -> None:
    """The service's own task, which nobody awaits."""
    by, over = await WISHES.get()
    try:
        await write(by)
    finally:
        over.set()


async def let_it_write(by: str) -> None:
    over = asyncio.Event()
    await WISHES.put((by, over))
    await over.wait()
    TASKS.clear()
    gc.collect()


TASKS: Final[list[asyncio.Task[None]]] = []


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            TASKS.append(asyncio.create_task(broadcaster()))
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    by = parse_qs(scope.get("query_string", b"").decode()).get("by", [""])[0]
    match scope["path"]:
        case "/chat":
            await chat(scope, receive, send)
            return
        case "/post":
            await write(by)
        case "/post-hiding":
            try:
                bug()
            finally:
                await write(by)
        case "/task":
            TASKS.append(asyncio.create_task(broadcaster()))
            await let_it_write(by)
        case "/lifespan-task":
            await let_it_write(by)
        case _:
            pass
    await answer(send, b"ok")


app: Any = prepare(bare)
