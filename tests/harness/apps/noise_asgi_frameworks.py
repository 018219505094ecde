"""The routes of ``noise_asgi`` on frameworks; ``TEST_FRAMEWORK`` names the one that is served.

Handlers catch nothing: what a framework raises for a client that has left comes out of them.
"""

# Handlers are registered by decorators, and some frameworks are not typed for strict checkers.
# pyright: reportUnusedFunction=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingParameterType=false

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import anyio

from tests.harness.apps.noise_asgi import (
    BIG,
    PIECE,
    SEEN,
    WORKS,
    App,
    all_have_left,
    between_pieces,
    fail,
    note,
    poll,
    poll_in_thread,
    prepare,
    work_in_thread,
    work_on,
)

PIECES_FOR_NOBODY: Final = 100
"""What is sent on when all clients have left, where sending is what has to find that out."""


async def long_stream() -> AsyncIterator[bytes]:
    """A body that goes on for longer than any client stays."""
    for_nobody = PIECES_FOR_NOBODY
    # Not every server and framework stops it.
    while for_nobody > 0:
        yield PIECE
        await between_pieces()
        for_nobody -= all_have_left()


async def failing(query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """A body that breaks off."""
    yield PIECE
    # As in a clean-up: Starlette cancels the stream of a client that leaves.
    with anyio.CancelScope(shield=True):
        await work_and_fail(query)


async def work_and_fail(query: Mapping[str, str]) -> None:
    """A handler's work that breaks off."""
    if "wait" in query:
        await work_on()
    await fail(query["kind"])


def starlette(*, base_http: bool = False) -> App:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    def ok() -> Response:
        return PlainTextResponse("ok")

    async def index(request: Request) -> Response:
        return ok()

    async def read(request: Request) -> Response:
        await request.body()
        return ok()

    async def work(request: Request) -> Response:
        await request.body()
        await work_on()
        return ok()

    def work_thread(request: Request) -> Response:
        work_in_thread()
        return ok()

    async def stream(request: Request) -> Response:
        return StreamingResponse(long_stream(), media_type="text/event-stream")

    async def big(request: Request) -> Response:
        return PlainTextResponse(BIG)

    async def ask(request: Request) -> Response:
        await poll(request.headers.get("x-request-id", ""))
        return ok()

    def ask_thread(request: Request) -> Response:
        poll_in_thread(request.headers.get("x-request-id", ""))
        return ok()

    async def disconnected(request: Request) -> Response:
        note(WORKS)
        while not await request.is_disconnected():  # noqa: ASYNC110 - it is polled
            await asyncio.sleep(0.02)
        SEEN[request.headers.get("x-request-id", "")] = True
        return ok()

    async def fails(request: Request) -> Response:
        if "behind" in request.query_params:
            return PlainTextResponse(
                "ok", background=BackgroundTask(fail, request.query_params["kind"])
            )
        await work_and_fail(request.query_params)
        return ok()

    async def fails_streaming(request: Request) -> Response:
        return StreamingResponse(failing(request.query_params))

    async def claims(request: Request) -> Response:
        from starlette.requests import ClientDisconnect

        raise ClientDisconnect

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async def push(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_bytes(PIECE)
            await between_pieces()

    async def push_and_give_up(websocket: WebSocket) -> None:
        try:
            await push(websocket)
        except Exception as error:
            raise RuntimeError("the news are not out") from error

    async def notes(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as error:
            SEEN[websocket.headers["x-request-id"]] = [error.code, error.reason]

    async def fails_on_websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await work_and_fail(websocket.query_params)

    async def fails_and_tells(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_bytes(b"")
        try:
            await fail(websocket.query_params["kind"])
        finally:
            while True:
                await between_pieces()
                await websocket.send_bytes(PIECE)

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    both = ["GET", "POST"]
    return Starlette(
        routes=[
            Route("/", index),
            Route("/read", read, methods=both),
            Route("/work", work, methods=both),
            Route("/work-thread", work_thread),
            Route("/stream", stream),
            Route("/big", big),
            Route("/poll", ask),
            Route("/poll-thread", ask_thread),
            Route("/is-disconnected", disconnected),
            Route("/fail", fails),
            Route("/fail-stream", fails_streaming),
            Route("/claim", claims),
            WebSocketRoute("/echo", echo),
            WebSocketRoute("/push", push),
            WebSocketRoute("/push-and-give-up", push_and_give_up),
            WebSocketRoute("/note", notes),
            WebSocketRoute("/fail", fails_on_websocket),
            WebSocketRoute("/fail-and-tell", fails_and_tells),
        ],
        middleware=[Middleware(Passing)] if base_http else [],
    )


def starlette_base_http() -> App:
    return starlette(base_http=True)


def fastapi() -> App:
    from fastapi import FastAPI, Request, UploadFile, WebSocket
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel

    app = FastAPI()

    class Item(BaseModel):
        name: str

    # The annotations are looked up in the module.
    globals().update(
        Item=Item,
        Request=Request,
        StreamingResponse=StreamingResponse,
        UploadFile=UploadFile,
        WebSocket=WebSocket,
    )

    @app.get("/")
    async def index() -> str:
        return "ok"

    @app.post("/read")
    async def read(item: Item) -> str:
        return item.name

    if importlib.util.find_spec("python_multipart") is not None:

        @app.post("/upload")
        async def upload(file: UploadFile) -> str:
            await file.read()
            return "ok"

    @app.get("/work")
    async def work() -> str:
        await work_on()
        return "ok"

    @app.post("/work")
    async def work_with(request: Request) -> str:
        await request.body()
        await work_on()
        return "ok"

    @app.get("/work-thread")
    def work_thread() -> str:
        work_in_thread()
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(long_stream())

    @app.get("/poll")
    async def ask(request: Request) -> str:
        await poll(request.headers.get("x-request-id", ""))
        return "ok"

    @app.get("/poll-thread")
    def ask_thread(request: Request) -> str:
        poll_in_thread(request.headers.get("x-request-id", ""))
        return "ok"

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    @app.websocket("/push")
    async def push(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_bytes(PIECE)
            await between_pieces()

    return app


def quart() -> Any:
    from quart import Quart, Response, request, websocket

    app = Quart(__name__)

    @app.get("/")
    async def index() -> str:
        return "ok"

    @app.post("/read")
    async def read() -> str:
        await request.get_data()
        return "ok"

    @app.route("/work", methods=["GET", "POST"])
    async def work() -> str:
        await request.get_data()
        await work_on()
        return "ok"

    @app.get("/work-thread")
    def work_thread() -> str:
        work_in_thread()
        return "ok"

    @app.get("/stream")
    async def stream() -> Response:
        return Response(long_stream())

    @app.get("/poll")
    async def ask() -> str:
        await poll(request.headers.get("x-request-id", ""))
        return "ok"

    @app.websocket("/echo")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/push")
    async def push() -> None:
        while True:
            await websocket.send(PIECE)
            await between_pieces()

    return app


def litestar() -> Any:
    from litestar import Litestar, Request, WebSocket, get, post, websocket
    from litestar.response import Stream

    # The annotations are looked up in the module.
    globals().update(
        LitestarRequest=Request[Any, Any, Any],
        LitestarSocket=WebSocket[Any, Any, Any],
        Stream=Stream,
    )

    @get("/")
    async def index() -> str:
        return "ok"

    @post("/read")
    async def read(request: LitestarRequest) -> str:  # type: ignore[name-defined]  # noqa: F821
        await request.body()
        return "ok"

    @get("/work")
    async def work() -> str:
        await work_on()
        return "ok"

    @post("/work")
    async def work_with(request: LitestarRequest) -> str:  # type: ignore[name-defined]  # noqa: F821
        await request.body()
        await work_on()
        return "ok"

    @get("/work-thread", sync_to_thread=True)
    def work_thread() -> str:
        work_in_thread()
        return "ok"

    @get("/stream")
    async def stream() -> Stream:
        return Stream(long_stream())

    @get("/poll")
    async def ask(request: LitestarRequest) -> str:  # type: ignore[name-defined]  # noqa: F821
        await poll(request.headers.get("x-request-id", ""))
        return "ok"

    @websocket("/echo")
    async def echo(socket: LitestarSocket) -> None:  # type: ignore[name-defined]  # noqa: F821
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    @websocket("/push")
    async def push(socket: LitestarSocket) -> None:  # type: ignore[name-defined]  # noqa: F821
        await socket.accept()
        while True:
            await socket.send_bytes(PIECE)
            await between_pieces()

    handlers = [index, read, work, work_with, work_thread, stream, ask, echo, push]
    return Litestar(route_handlers=handlers)


def falcon() -> Any:
    from falcon.asgi import App as Falcon

    class Resource:
        def __init__(self, act: Callable[[Any, Any], Any]) -> None:
            self.act = act

        async def on_get(self, request: Any, response: Any) -> None:
            await self.act(request, response)

        async def on_post(self, request: Any, response: Any) -> None:
            await self.act(request, response)

    async def index(request: Any, response: Any) -> None:
        response.text = "ok"

    async def read(request: Any, response: Any) -> None:
        await request.stream.read()
        response.text = "ok"

    async def work(request: Any, response: Any) -> None:
        await request.stream.read()
        await work_on()
        response.text = "ok"

    async def stream(request: Any, response: Any) -> None:
        response.stream = long_stream()

    async def ask(request: Any, response: Any) -> None:
        await poll(request.get_header("x-request-id") or "")
        response.text = "ok"

    class Echo:
        async def on_websocket(self, request: Any, socket: Any) -> None:
            await socket.accept()
            while True:
                await socket.send_text(await socket.receive_text())

    class Push:
        async def on_websocket(self, request: Any, socket: Any) -> None:
            await socket.accept()
            while True:
                await socket.send_data(PIECE)
                await between_pieces()

    app = Falcon()
    acts = {"/": index, "/read": read, "/work": work, "/stream": stream, "/poll": ask}
    for path, act in acts.items():
        app.add_route(path, Resource(act))
    app.add_route("/echo", Echo())
    app.add_route("/push", Push())
    return app


def django() -> Any:
    # It has no types.
    settings: Any = importlib.import_module("django.conf").settings
    http: Any = importlib.import_module("django.http")
    path: Any = importlib.import_module("django.urls").path

    async def index(request: Any) -> Any:
        return http.HttpResponse("ok")

    async def read(request: Any) -> Any:
        return http.HttpResponse(str(len(request.body)))

    async def work(request: Any) -> Any:
        await work_on()
        return http.HttpResponse("ok")

    def work_thread(request: Any) -> Any:
        work_in_thread()
        return http.HttpResponse("ok")

    async def stream(request: Any) -> Any:
        return http.StreamingHttpResponse(long_stream())

    urls = {
        "": index,
        "read": read,
        "work": work,
        "work-thread": work_thread,
        "stream": stream,
    }
    globals()["urlpatterns"] = [path(name, view) for name, view in urls.items()]
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="tests")
    return importlib.import_module("django.core.asgi").get_asgi_application()


FRAMEWORKS: Final[Mapping[str, Callable[[], Any]]] = {
    "starlette": starlette,
    "starlette-base-http": starlette_base_http,
    "fastapi": fastapi,
    "quart": quart,
    "litestar": litestar,
    "falcon": falcon,
    "django": django,
}

app: Final = prepare(FRAMEWORKS[os.environ["TEST_FRAMEWORK"]]())
