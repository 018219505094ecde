"""Applications that fail while their client leaves: `tests.harness.constructs` on ASGI.

The path's end is the construct; the request's ``X-Request-ID`` is in the error, so that a log
shows whose it is.

===============  ================================================================================
``/``            Starlette
``/fastapi/``    FastAPI
``/behind/``     Starlette behind two ``BaseHTTPMiddleware``
``/within/``     Starlette behind one that reads the body
``/with/``       Starlette with an exception handler that reads the body
``/stream/``     a streamed response
``/ws/``         a websocket
===============  ================================================================================
"""

# Handlers are registered by decorators.
# pyright: reportUnusedFunction=false

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.harness.apps.noise_asgi import (
    DONE,
    PIECE,
    Receive,
    Scope,
    Send,
    all_have_left,
    between_pieces,
    note,
    prepare,
    work_on,
)
from tests.harness.constructs import ASYNC, Fail

SENDS: Final = 100
"""How often something is sent for nobody, where sending is what has to find that out."""


def failing(who: str) -> Fail:
    """The application's own error, with the request's id."""

    def fail() -> None:
        orders: dict[str, str] = {}
        orders[who]

    return fail


def fail_for(request: Request | WebSocket) -> Fail:
    """The same for a request."""
    return failing(request.headers["x-request-id"])


async def index(request: Request) -> Response:
    return PlainTextResponse("ok")


async def construct(request: Request) -> Response:
    await ASYNC[request.path_params["name"]].run(fail_for(request), request.body)
    raise AssertionError("nothing was raised")


class ReadingMiddleware(BaseHTTPMiddleware):
    """Reads what is left of a body, whatever happens."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            return await call_next(request)
        finally:
            await request.body()


class PassingMiddleware(BaseHTTPMiddleware):
    """Does nothing."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def fails(request: Request) -> Response:
    fail_for(request)()
    raise AssertionError("nothing was raised")


async def handler(request: Request, error: Exception) -> Response:
    await request.body()
    return PlainTextResponse("handled", 400)


async def background(request: Request) -> Response:
    await work_on()

    async def work() -> None:
        fail_for(request)()

    return PlainTextResponse("ok", background=BackgroundTask(work))


async def forgotten_task(request: Request) -> Response:
    async def work() -> None:
        fail_for(request)()

    task = asyncio.create_task(work())
    await asyncio.wait([task])
    del task
    gc.collect()
    await request.body()
    raise AssertionError("nothing was raised")


async def pieces_and_finally(fail: Fail) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces():
            yield piece
    finally:
        fail()


class Failing:
    """A context manager that fails at its end."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        self._fail()


async def pieces_and_aexit(fail: Fail) -> AsyncIterator[bytes]:
    async with Failing(fail):
        async for piece in pieces():
            yield piece


async def pieces() -> AsyncIterator[bytes]:
    """Pieces for longer than any client stays."""
    for_nobody = SENDS
    while for_nobody > 0:
        yield PIECE
        await between_pieces()
        for_nobody -= all_have_left()


STREAMED: Final[dict[str, Callable[[Fail], Any]]] = {
    "stream-finally": pieces_and_finally,
    "stream-with": pieces_and_aexit,
}


async def stream(request: Request) -> Response:
    return StreamingResponse(STREAMED[request.path_params["name"]](fail_for(request)))


async def websocket(ws: WebSocket) -> None:
    await ws.accept()
    await work_on()

    async def send() -> None:
        for _ in range(5):
            await ws.send_json({"error": "a bug"})
        # Some servers take what they cannot send.
        await ws.receive_text()

    name = ws.path_params["name"]
    if name == "ws-close":
        try:
            fail_for(ws)()
        finally:
            await ws.close()
    elif name == "ws-receive":
        try:
            fail_for(ws)()
        finally:
            await ws.receive_text()
    else:
        await ASYNC[name].run(fail_for(ws), send)


def fastapi() -> FastAPI:
    app = FastAPI()

    async def reading(request: Request) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await request.body()

    @app.post("/dependency", dependencies=[Depends(reading)])
    async def dependency(request: Request) -> None:
        fail_for(request)()

    @app.post("/{name}")
    async def inside(request: Request, name: str) -> None:
        await ASYNC[name].run(fail_for(request), request.body)

    return app


bare = Starlette(
    routes=[
        Route("/", index),
        Mount("/fastapi", fastapi()),
        Mount(
            "/behind",
            Starlette(
                routes=[Route("/{name}", construct, methods=["POST"])],
                middleware=[Middleware(PassingMiddleware), Middleware(PassingMiddleware)],
            ),
        ),
        Mount(
            "/within",
            Starlette(
                routes=[Route("/middleware", fails, methods=["POST"])],
                middleware=[Middleware(ReadingMiddleware)],
            ),
        ),
        Mount(
            "/with",
            Starlette(
                routes=[Route("/handler", fails, methods=["POST"])],
                exception_handlers={KeyError: handler},
            ),
        ),
        Route("/background", background, methods=["POST", "GET"]),
        Route("/task", forgotten_task, methods=["POST"]),
        Route("/stream/{name}", stream),
        Route("/{name}", construct, methods=["POST"]),
        WebSocketRoute("/ws/{name}", websocket),
    ],
)


async def noting(scope: Scope, receive: Receive, send: Send) -> None:
    """The application, which notes that it has come to its end."""
    try:
        await bare(scope, receive, send)
    finally:
        note(DONE)


app: Final = prepare(noting)
