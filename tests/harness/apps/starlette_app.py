"""The routes on Starlette: StreamingResponse, BackgroundTask, Request.stream()."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.harness.apps import routes

SLOW_500: Final = float(os.environ.get("TEST_SLOW_500", "0"))

METHODS = ["GET", "HEAD", "POST", "PUT"]

seen = routes.Seen()


async def index(request: Request) -> Response:
    await request.body()
    return PlainTextResponse(routes.OK_BODY)


async def refuse(request: Request) -> Response:
    return PlainTextResponse(routes.REFUSAL, 413)


async def refuse_large(request: Request) -> Response:
    return PlainTextResponse(routes.LARGE, 401)


async def refuse_after(request: Request) -> Response:
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size >= routes.READ_FIRST:
            break
    return PlainTextResponse(routes.REFUSAL, 413)


async def refuse_streaming(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for number, chunk in enumerate(routes.CHUNKS):
            if number:
                await anyio.sleep(routes.CHUNK_PAUSE)
            yield chunk

    return StreamingResponse(chunks(), 413)


async def refuse_background(request: Request) -> Response:
    async def work() -> None:
        await anyio.sleep(routes.WORK_SECONDS)
        seen.count_background()

    return PlainTextResponse(routes.REFUSAL, 413, background=BackgroundTask(work))


async def refuse_late(request: Request) -> Response:
    await anyio.sleep(routes.LATE_SECONDS)
    return PlainTextResponse(routes.REFUSAL, 413)


async def redirect(request: Request) -> Response:
    return RedirectResponse("/", 303)


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


async def not_modified(request: Request) -> Response:
    return Response(status_code=304, headers={"ETag": '"1"'})


async def events(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for chunk in routes.CHUNKS:
            yield b"data: %b\n" % chunk
            await anyio.sleep(routes.CHUNK_PAUSE)

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def websocket(socket: WebSocket) -> None:
    await socket.accept()
    async for message in socket.iter_text():
        await socket.send_text(message)


async def answer_slowly(request: Request, error: Exception) -> Response:
    """What Starlette's outermost middleware answers with, when more of the body has come."""
    await anyio.sleep(SLOW_500)
    return PlainTextResponse("failed", 500)


async def error(request: Request) -> Response:
    raise RuntimeError("the app failed, as this route promises")


async def accept(request: Request) -> Response:
    digest = hashlib.sha256()
    size = 0
    try:
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
    except ClientDisconnect:
        seen.count_failure()
        raise
    return Response(routes.accepted_json(size, digest.hexdigest()), media_type="application/json")


class Echo(Response):
    """A StreamingResponse of ``request.stream()`` that does not listen for a disconnect.

    Starlette's own calls ``receive()`` for that purpose while its body iterator does the same,
    and throws away the pieces of the body that it gets: it cannot echo, with or without us.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in self.request.stream():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


async def echo(request: Request) -> Response:
    return Echo(request)


async def sleep(request: Request) -> Response:
    await anyio.sleep(routes.LATE_SECONDS)
    return PlainTextResponse(routes.OK_BODY)


async def counters(request: Request) -> Response:
    return Response(routes.counters_json(), media_type="application/json")


async def what_was_seen(request: Request) -> Response:
    return Response(seen.json(), media_type="application/json")


class CountingMiddleware:
    """Pure ASGI, so that it changes nothing about how the body is read."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.count(scope["path"])
        await self.app(scope, receive, send)


class PassingMiddleware(BaseHTTPMiddleware):
    """What many applications have: it runs the app in a task of its own."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Passed"] = "yes"
        return response


def make_app() -> Starlette:
    """The app as the environment asks for it."""
    middleware = [Middleware(CountingMiddleware)]
    if routes.base_http():
        middleware.append(Middleware(PassingMiddleware))
    starlette = Starlette(
        routes=[
            Route(routes.INDEX, index, methods=METHODS),
            Route(routes.REFUSE, refuse, methods=METHODS),
            Route(routes.REFUSE_LARGE, refuse_large, methods=METHODS),
            Route(routes.REFUSE_AFTER, refuse_after, methods=METHODS),
            Route(routes.REFUSE_STREAMING, refuse_streaming, methods=METHODS),
            Route(routes.REFUSE_BACKGROUND, refuse_background, methods=METHODS),
            Route(routes.REFUSE_LATE, refuse_late, methods=METHODS),
            Route(routes.REDIRECT, redirect, methods=METHODS),
            Route(routes.NOTHING, nothing, methods=METHODS),
            Route(routes.NOT_MODIFIED, not_modified, methods=METHODS),
            Route(routes.EVENTS, events, methods=METHODS),
            WebSocketRoute(routes.WEBSOCKET, websocket),
            Route(routes.ERROR, error, methods=METHODS),
            Route(routes.ACCEPT, accept, methods=METHODS),
            Route(routes.ECHO, echo, methods=METHODS),
            Route(routes.SLEEP, sleep, methods=METHODS),
            Route(routes.COUNTERS, counters, methods=METHODS),
            Route(routes.SEEN, what_was_seen, methods=METHODS),
        ],
        middleware=middleware,
        exception_handlers={Exception: answer_slowly} if SLOW_500 else None,
    )
    if routes.wrapped():
        from cleanclose.asgi import CleanCloseMiddleware

        starlette.add_middleware(CleanCloseMiddleware, **routes.settings())
    return starlette


app = make_app()
