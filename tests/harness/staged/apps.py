"""The applications of the staging: plain WSGI, Flask, Starlette, Django and Tornado.

All have ``/`` (200), ``/read`` (reads its body), ``/stream`` (goes on until its client leaves) and
``/up/<library>`` (asks ``UPSTREAM``, which resets, through that library, and lets the error go).
"""

from __future__ import annotations

import http.client
import importlib
import json
import logging
import os
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

PIECE: Final = b"x" * 65536


def module(name: str) -> Any:
    """A module that brings no types."""
    return importlib.import_module(name)


def upstream() -> str:
    """The address that resets, as ``http://host:port/``."""
    return os.environ["UPSTREAM"]


def ask_httpx() -> None:
    import httpx

    httpx.get(upstream())


def ask_requests() -> None:
    import requests

    requests.get(upstream(), timeout=5)


def ask_http_client() -> None:
    address = urllib.parse.urlsplit(upstream())
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()


def ask_redis() -> None:
    import redis

    port = urllib.parse.urlsplit(upstream()).port
    assert port is not None
    redis.Redis(port=port).get("key")


def ask_socket() -> None:
    import socket

    address = urllib.parse.urlsplit(upstream())
    with socket.create_connection((str(address.hostname), address.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        sock.recv(100)


def ask_urllib() -> None:
    import urllib.request

    urllib.request.urlopen(upstream(), timeout=5).read()


def ask_smtplib() -> None:
    import smtplib

    address = urllib.parse.urlsplit(upstream())
    smtplib.SMTP(str(address.hostname), address.port or 0, timeout=5)


def ask_aiohttp() -> None:
    import asyncio

    import aiohttp

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.get(upstream()) as response:
            await response.read()

    asyncio.run(ask())


def ask_websockets() -> None:
    from websockets.sync.client import connect

    with connect(upstream().replace("http:", "ws:")) as socket:
        socket.recv()


ASK: Final[Mapping[str, Callable[[], None]]] = {
    "aiohttp": ask_aiohttp,
    "http-client": ask_http_client,
    "httpx": ask_httpx,
    "redis": ask_redis,
    "requests": ask_requests,
    "smtplib": ask_smtplib,
    "socket": ask_socket,
    "urllib": ask_urllib,
    "websockets": ask_websockets,
}


def endless() -> Iterator[bytes]:
    for _ in range(100_000):
        yield PIECE


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI, without a framework."""
    path = environ["PATH_INFO"]
    if path.startswith("/up/"):
        ASK[path.removeprefix("/up/")]()
    if path == "/read":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return endless() if path == "/stream" else [b"ok"]


def make_flask() -> Any:
    import flask

    app = flask.Flask("shop")

    @app.get("/")
    def index() -> str:
        return "ok"

    @app.post("/read")
    def read() -> str:
        return str(len(flask.request.get_data()))

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(endless())

    @app.get("/up/<name>")
    def up(name: str) -> str:
        ASK[name]()
        return "ok"

    return app


def make_starlette() -> Any:
    import anyio.to_thread
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def index(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def read(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100_000):
            yield PIECE

    async def stream(_: Request) -> Response:
        return StreamingResponse(pieces())

    async def up(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "httpx":
            import httpx

            async with httpx.AsyncClient() as client:
                await client.get(upstream())
        await anyio.to_thread.run_sync(ASK[name])
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/read", read, methods=["POST"]),
            Route("/stream", stream),
            Route("/up/{name}", up),
        ]
    )


def make_json_flask() -> Any:
    """The same Flask, whose log is JSON lines."""

    class Json(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            line = {
                "timestamp": self.formatTime(record),
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info:
                line["exc_info"] = self.formatException(record.exc_info)
            return json.dumps(line)

    handler = logging.StreamHandler()
    handler.setFormatter(Json())
    app = make_flask()
    app.logger.handlers[:] = [handler]
    app.logger.propagate = False
    return app


def make_wrapped() -> Any:
    """The same Starlette in the middleware, with structlog's lines for its events."""
    import structlog

    from cleanclose.asgi import CleanCloseMiddleware

    is_json = os.environ.get("STAGED_JSON") == "1"
    renderer: Any = structlog.processors.JSONRenderer() if is_json else None
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer or structlog.dev.ConsoleRenderer(colors=False),
        ]
    )
    return CleanCloseMiddleware(make_starlette())


def make_django() -> Any:
    http = module("django.http")
    path = module("django.urls").path
    module("django.conf").settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "loggers": {"django": {"handlers": ["console"], "level": "INFO"}},
        },
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY="staged",
    )
    module("django").setup()

    def index(_: object) -> Any:
        return http.HttpResponse("ok")

    def read(request: Any) -> Any:
        return http.HttpResponse(str(len(request.body)))

    def stream(_: object) -> Any:
        return http.StreamingHttpResponse(endless())

    def up(_: object, name: str) -> Any:
        ASK[name]()
        return http.HttpResponse("ok")

    globals()["urlpatterns"] = [
        path("", index),
        path("read", read),
        path("stream", stream),
        path("up/<name>", up),
    ]
    return module("django.core.wsgi").get_wsgi_application()


def run_tornado(port: int) -> None:
    import asyncio

    from tornado import httpclient, web
    from tornado.log import enable_pretty_logging

    class Index(web.RequestHandler):
        def get(self) -> None:
            self.write("ok")  # pyright: ignore[reportUnknownMemberType]

    @web.stream_request_body
    class Read(web.RequestHandler):
        def data_received(self, chunk: bytes) -> None:
            pass

        def post(self) -> None:
            self.write("ok")  # pyright: ignore[reportUnknownMemberType]

    class Stream(web.RequestHandler):
        async def get(self) -> None:
            for piece in endless():
                self.write(piece)  # pyright: ignore[reportUnknownMemberType]
                await self.flush()

    class Up(web.RequestHandler):
        async def get(self, name: str) -> None:
            if name == "tornado":
                await httpclient.AsyncHTTPClient().fetch(upstream())
            ASK[name]()

    async def serve() -> None:
        enable_pretty_logging()
        web.Application(
            [("/", Index), ("/read", Read), ("/stream", Stream), ("/up/(.*)", Up)]
        ).listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(serve())


def __getattr__(name: str) -> Any:
    makers = {
        "flask_app": make_flask,
        "starlette_app": make_starlette,
        "django_app": make_django,
    }
    if name not in makers:
        raise AttributeError(name)
    globals()[name] = makers[name]()
    return globals()[name]


if __name__ == "__main__":
    if sys.argv[1] == "tornado":
        run_tornado(int(sys.argv[2]))
    elif sys.argv[1] == "django":
        served = module("django.core.servers.basehttp")
        served.run(
            "127.0.0.1",
            int(sys.argv[2]),
            make_django(),
            threading=True,
            server_cls=served.WSGIServer,
        )
    elif sys.argv[1] == "werkzeug":
        from werkzeug.serving import run_simple

        run_simple("127.0.0.1", int(sys.argv[2]), make_flask(), threaded=True)
    elif sys.argv[1] == "waitress":
        logging.basicConfig()
        module("waitress").serve(plain, host="127.0.0.1", port=int(sys.argv[2]))
