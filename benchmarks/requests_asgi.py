"""Requests to uvicorn's own request cycle, without a socket below it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from benchmarks.requests import ANSWER, BARE, BODY, FORWARDING, WRAPPED, Batch, Method, fields
from cleanclose.asgi import CleanCloseMiddleware

__all__ = ["batches"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOGGER: Final = logging.getLogger("uvicorn.error")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What is measured: it reads what there is, and answers."""
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


class Forwarding:
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


class Nowhere(asyncio.Transport):
    """A connection that takes everything at once."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take it."""

    def is_closing(self) -> bool:
        """It stays open."""
        return False


def _scope(method: Method) -> Scope:
    return {
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
        "headers": [(name.encode(), value.encode()) for name, value in fields(method)],
        "state": {},
    }


def _cycle(method: Method) -> RequestResponseCycle:
    """One request, as uvicorn has it when all of it has arrived."""
    transport = Nowhere()
    arrived = asyncio.Event()
    arrived.set()
    cycle = RequestResponseCycle(
        scope=_scope(method),  # type: ignore[arg-type]
        transport=transport,
        flow=FlowControl(transport),
        logger=_LOGGER,
        access_logger=_LOGGER,
        access_log=False,
        default_headers=[(b"date", b"Fri, 27 Nov 2026 08:00:00 GMT"), (b"server", b"uvicorn")],
        message_event=arrived,
        expect_100_continue=False,
        keep_alive=True,
        on_response=_done,
    )
    cycle.body = bytearray(BODY if method == "POST" else b"")
    cycle.more_body = False
    return cycle


def _done() -> None:
    pass


class _Batch:
    """Some requests, one after the other, each in a task of its own as uvicorn has them."""

    def __init__(self, runner: asyncio.Runner, app: ASGIApp, method: Method) -> None:
        self._runner = runner
        self._app: Any = app
        self._method: Method = method

    def prepare(self, requests: int) -> Callable[[], None]:
        """Make the requests; return what serves them."""
        cycles: list[RequestResponseCycle] = []

        async def make() -> None:
            cycles.extend(_cycle(self._method) for _ in range(requests))

        self._runner.run(make())

        def serve() -> None:
            self._runner.run(self._serve(cycles))
            cycles.clear()

        return serve

    async def _serve(self, cycles: list[RequestResponseCycle]) -> None:
        loop = asyncio.get_running_loop()
        while cycles:
            cycle = cycles.pop()
            await loop.create_task(cycle.run_asgi(self._app))
            assert cycle.response_complete


def batches(runner: asyncio.Runner, method: Method) -> dict[str, Batch]:
    """By variant, what serves requests.

    Args:
        runner: The event loop.
        method: The requests' method.
    """
    apps: dict[str, ASGIApp] = {
        BARE: app,
        FORWARDING: Forwarding(app),
        WRAPPED: CleanCloseMiddleware(app, surge=False),
    }
    return {name: _Batch(runner, each, method).prepare for name, each in apps.items()}
