"""ASGI and WSGI requests without a server: what remains is the application and its wrapper.

The stand-ins for a server do as little as the interface allows. A real one does much more for
each request, so in a real process all of these ratios are nearer to 1.
"""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from functools import partial
from typing import Any, Final, Literal

from benchmarks.rounds import Costs, take_turns
from cleanclose.asgi import CleanCloseMiddleware as AsgiMiddleware
from cleanclose.wsgi import CleanCloseMiddleware as WsgiMiddleware

__all__ = [
    "ANSWER",
    "BARE",
    "BODY",
    "FORWARDING",
    "HEADERS",
    "POST_HEADERS",
    "WRAPPED",
    "Method",
    "compare_asgi",
    "compare_wsgi",
    "count_garbage",
]

Method = Literal["GET", "POST"]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

BARE: Final = "bare"
FORWARDING: Final = "forwarding"
WRAPPED: Final = "cleanclose"

# What a browser sends behind a proxy.
HEADERS: Final = (
    ("host", "uploads.example"),
    ("connection", "keep-alive"),
    ("x-forwarded-for", "192.0.2.17"),
    ("x-forwarded-proto", "https"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
)
BODY: Final = b'{"name": "report.pdf", "size": 16777216, "digest": "sha-256"}'
POST_HEADERS: Final = (
    *HEADERS,
    ("content-type", "application/json"),
    ("content-length", str(len(BODY))),
)
ANSWER: Final = b'{"status": "ok"}'


# ASGI


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] == "POST":
        more = True
        while more:
            more = (await receive()).get("more_body", False)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(ANSWER)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": ANSWER})


class ForwardingAsgi:
    """What every middleware costs that looks at the messages: two closures.

    A class, as each one is that ``add_middleware`` can add.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def forward_receive() -> Message:
            return await receive()

        async def forward_send(message: Message) -> None:
            await send(message)

        await self.app(scope, forward_receive, forward_send)


class Cycle:
    """One request as an ASGI server has it."""

    def __init__(self, method: Method) -> None:
        headers = HEADERS if method == "GET" else POST_HEADERS
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "scheme": "http",
            "method": method,
            "root_path": "",
            "path": "/files",
            "raw_path": b"/files",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "state": {},
        }
        self.complete = False

    async def receive(self) -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


async def _time_asgi(app: ASGIApp, method: Method, requests: int) -> float:
    # Fresh for each request, and made before the clock runs: a scope that a middleware has
    # written to would make the next one cheaper or dearer.
    cycles = [Cycle(method) for _ in range(requests)]
    calls = [(cycle.scope, cycle.receive, cycle.send) for cycle in cycles]
    started = time.perf_counter_ns()
    for scope, receive, send in calls:
        await app(scope, receive, send)
    spent = time.perf_counter_ns() - started
    assert all(cycle.complete for cycle in cycles)
    return spent / requests


def _run(runner: asyncio.Runner, app: ASGIApp, method: Method, requests: int) -> float:
    return runner.run(_time_asgi(app, method, requests))


def compare_asgi(method: Method, *, rounds: int, requests: int) -> Costs:
    """The cost of a request that an ASGI application answers, bare and behind two wrappers."""
    with asyncio.Runner() as runner:

        def batch(app: ASGIApp) -> Callable[[], float]:
            return partial(_run, runner, app, method, requests)

        return _compare({name: batch(app) for name, app in _asgi_apps().items()}, rounds)


def _asgi_apps() -> dict[str, ASGIApp]:
    return {
        BARE: asgi_app,
        FORWARDING: ForwardingAsgi(asgi_app),
        WRAPPED: AsgiMiddleware(asgi_app),
    }


# WSGI


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]
    start_response("200 OK", headers)
    return [ANSWER]


class ForwardedBody:
    """A response's iterable, looked at."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result
        self._pieces = iter(result)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        close = getattr(self._result, "close", None)
        if close is not None:
            close()


def forwarding_wsgi(app: WSGIApp) -> WSGIApp:
    """What every middleware costs that looks at the response's head and its end."""

    def wrapper(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def forward(status: str, headers: object, exc_info: object = None) -> Any:
            return start_response(status, headers, exc_info)

        return ForwardedBody(app(environ, forward))

    return wrapper


def make_environ(method: Method) -> Environ:
    """One request as a WSGI server has it."""
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/files",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(BODY if method == "POST" else b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in HEADERS if method == "GET" else POST_HEADERS:
        key = name.upper().replace("-", "_")
        plain = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        environ[key if plain else f"HTTP_{key}"] = value
    return environ


class Response:
    """What a WSGI server has behind ``start_response``."""

    status = ""

    def start_response(
        self, status: str, headers: object, exc_info: object = None
    ) -> Callable[[bytes], object]:
        self.status = status
        return self.write

    def write(self, data: bytes) -> None:
        pass


def _time_wsgi(app: WSGIApp, method: Method, requests: int) -> float:
    responses = [Response() for _ in range(requests)]
    calls = [(make_environ(method), response.start_response) for response in responses]
    started = time.perf_counter_ns()
    for environ, start_response in calls:
        result = app(environ, start_response)
        for _piece in result:
            pass
        close = getattr(result, "close", None)
        if close is not None:
            close()
    spent = time.perf_counter_ns() - started
    assert all(response.status for response in responses)
    return spent / requests


def compare_wsgi(method: Method, *, rounds: int, requests: int) -> Costs:
    """The cost of a request that a WSGI application answers, bare and behind two wrappers."""

    def batch(app: WSGIApp) -> Callable[[], float]:
        return partial(_time_wsgi, app, method, requests)

    return _compare({name: batch(app) for name, app in _wsgi_apps().items()}, rounds)


def _wsgi_apps() -> dict[str, WSGIApp]:
    return {
        BARE: wsgi_app,
        FORWARDING: forwarding_wsgi(wsgi_app),
        WRAPPED: WsgiMiddleware(wsgi_app),
    }


def _compare(variants: dict[str, Callable[[], float]], rounds: int) -> Costs:
    # As timeit does: a collection in the middle of one variant would be charged to it.
    gc.collect()
    gc.disable()
    try:
        return take_turns(variants, rounds)
    finally:
        gc.enable()


def count_garbage(method: Method, *, requests: int) -> dict[str, dict[str, float]]:
    """By interface and variant: objects per request that only the cyclic collector could free."""
    with asyncio.Runner() as runner:
        batches: dict[str, dict[str, Callable[[], float]]] = {
            "asgi": {
                name: partial(_run, runner, app, method, requests)
                for name, app in _asgi_apps().items()
            },
            "wsgi": {
                name: partial(_time_wsgi, app, method, requests)
                for name, app in _wsgi_apps().items()
            },
        }
        return {
            interface: {name: _garbage(batch) / requests for name, batch in variants.items()}
            for interface, variants in batches.items()
        }


def _garbage(batch: Callable[[], float]) -> int:
    # The first one fills the caches.
    batch()
    gc.collect()
    gc.disable()
    try:
        batch()
        return gc.collect()
    finally:
        gc.enable()
