"""FastAPI, for the tests about stopping work: each route notes what became of its work.

``TEST_BASE_HTTP`` says how many ``BaseHTTPMiddleware`` stand around the routes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Self

import anyio
from fastapi import Depends, FastAPI, Request, Response, WebSocket
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from cleanclose.asgi import (
    CleanCloseMiddleware,
    Stoppable,
    client_gone,
    client_left,
    stop_work,
)
from cleanclose.core import snapshot
from tests.harness import tap

LONG: Final = 120.0
"""Seconds that work takes which nobody stops: above what any test waits for its end."""

NOTES: Final[Counter[str]] = Counter()
"""How often each thing has happened."""
ENDS: Final[dict[str, float]] = {}
"""When the work of each client has ended, by the monotonic clock, which all processes share."""
RUNNING: Final[set[str]] = set()

api = FastAPI()


class Work:
    """Work that takes long, with a clean-up which has to wait for something."""

    def __init__(self, request: HTTPConnection) -> None:
        self._name = request.headers.get("x-request-id", "-")

    async def __aenter__(self) -> Self:
        NOTES["begun"] += 1
        RUNNING.add(self._name)
        return self

    async def __aexit__(self, *error: object) -> None:
        ENDS[self._name] = time.monotonic()
        RUNNING.discard(self._name)
        # On trio a clean-up shields itself, or it is cancelled like all else.
        with anyio.CancelScope(shield="trio" in sys.modules and not _on_asyncio()):
            for _ in range(3):
                await anyio.sleep(0.001)
        NOTES["cleaned"] += 1


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@api.get("/")
async def index() -> Response:
    tasks = len(asyncio.all_tasks()) if _on_asyncio() else None
    return JSONResponse(
        {
            "notes": NOTES,
            "ends": ENDS,
            "running": sorted(RUNNING),
            "tasks": tasks,
            "counters": snapshot(),
        }
    )


@api.get("/handler")
async def handler(request: Request) -> Response:
    async with stop_work(), Work(request):
        await anyio.sleep(LONG)
    return PlainTextResponse("done")


@api.post("/body")
async def body(request: Request) -> Response:
    received = await request.body()
    async with stop_work(), Work(request):
        await anyio.sleep(LONG)
    return PlainTextResponse(str(len(received)))


@api.post("/upload")
async def upload(request: Request) -> Response:
    async with stop_work(), Work(request):
        received = await request.body()
    return PlainTextResponse(str(len(received)))


@api.post("/unread")
async def unread(request: Request) -> Response:
    async with stop_work(), Work(request):
        await anyio.sleep(LONG)
    return PlainTextResponse("done")


@api.get("/group")
async def group(request: Request) -> Response:
    async with stop_work(), Work(request), anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, LONG)
        tasks.start_soon(anyio.sleep, LONG)
    return PlainTextResponse("done")


@api.get("/shielded")
async def shielded(request: Request) -> Response:
    async with stop_work(), Work(request):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)
            NOTES["shielded part finished"] += 1
        await anyio.sleep(LONG)
    return PlainTextResponse("done")


@api.get("/thread")
async def thread(request: Request) -> Response:
    def work() -> None:
        while not client_gone():
            time.sleep(0.01)
        NOTES["thread finished"] += 1

    async with stop_work(), Work(request):
        await anyio.to_thread.run_sync(work)
        await anyio.sleep(LONG)
    return PlainTextResponse("done")


@api.get("/quiet")
async def quiet(request: Request) -> Response:
    async with stop_work(quiet=True) as block, Work(request):
        await anyio.sleep(LONG)
    # Nothing outside of the block is cancelled.
    await anyio.sleep(0.01)
    NOTES["quiet, and on"] += block.stopped
    return PlainTextResponse("done")


@api.get("/beside")
async def beside(request: Request) -> Response:
    async with Work(request):
        await client_left()
    return PlainTextResponse("done")


async def stopped_dependency(request: Request) -> AsyncIterator[str]:
    async with stop_work(), Work(request):
        yield "worked"


@api.get("/dependency")
async def dependency(worked: Annotated[str, Depends(stopped_dependency)]) -> Response:
    await anyio.sleep(LONG)
    return PlainTextResponse(worked)


@api.get("/stream")
async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        async with stop_work(), Work(request):
            yield b"begun\n"
            await anyio.sleep(LONG)
            yield b"never\n"

    return StreamingResponse(pieces())


@api.get("/flowing")
async def flowing(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        async with stop_work(), Work(request):
            for _ in range(int(LONG * 200)):
                yield b"piece\n"
                await anyio.sleep(0.005)

    return StreamingResponse(pieces())


@api.websocket("/socket")
async def websocket(socket: WebSocket) -> None:
    await socket.accept()
    async with stop_work(quiet=True) as block, Work(socket):
        await anyio.sleep(LONG)
    NOTES["socket stopped"] += block.stopped


@api.get("/whole")
async def whole(request: Request) -> Response:
    async with Work(request):
        await anyio.sleep(LONG)
    return PlainTextResponse("done")


@api.get("/whole-stream")
async def whole_stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        async with Work(request):
            yield b"begun\n"
            await anyio.sleep(LONG)

    return StreamingResponse(pieces())


@api.get("/whole-thread")
def whole_thread(request: Request) -> Response:
    name = request.headers.get("x-request-id", "-")
    NOTES["begun"] += 1
    RUNNING.add(name)
    while not client_gone():
        time.sleep(0.01)
    ENDS[name] = time.monotonic()
    RUNNING.discard(name)
    NOTES["cleaned"] += 1
    return PlainTextResponse("done")


@api.get("/stay")
async def stay(request: Request, seconds: float = 0.01) -> Response:
    async with stop_work(), Work(request):
        await anyio.sleep(seconds)
    return PlainTextResponse("done")


@api.get("/stay-stream")
async def stay_stream(request: Request, pieces: int = 20) -> Response:
    async def made() -> AsyncIterator[bytes]:
        async with stop_work(), Work(request):
            for _ in range(pieces):
                yield b"x" * 20000
                await anyio.sleep(0.001)

    return StreamingResponse(made())


@api.post("/echo")
async def echo(request: Request) -> Response:
    async with stop_work(), Work(request):
        received = await request.body()
        await anyio.sleep(0.01)
    return PlainTextResponse(str(len(received)))


@api.post("/refuse")
async def refuse(request: Request) -> Response:
    async with stop_work(), Work(request):
        await anyio.sleep(0.01)
    return PlainTextResponse("too large", status_code=413)


@api.get("/fails")
async def fails(request: Request) -> Response:
    async with stop_work(), Work(request):
        try:
            await anyio.sleep(LONG)
        except BaseException:  # noqa: BLE001 - a cancellation, on asyncio or on trio
            raise ValueError("the work failed while it was being stopped") from None
    return PlainTextResponse("done")


class Passing(BaseHTTPMiddleware):
    """Does nothing; that is enough."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


tap.tap_logging()
for _ in range(int(os.environ.get("TEST_BASE_HTTP", "0"))):
    api.add_middleware(Passing)
app: Any = api
if os.environ.get("CLEANCLOSE") == "1":
    app = CleanCloseMiddleware(
        api,
        outlets=tap.outlets() if tap.PATH_VARIABLE in os.environ else [],
        stop_work=Stoppable(paths=["/whole{rest:path}"]),
    )
