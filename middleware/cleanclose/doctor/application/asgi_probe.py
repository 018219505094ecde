"""The doctor's routes, as an ASGI application around the user's."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cleanclose.doctor.application import routes
from cleanclose.doctor.application.journal import Journal
from cleanclose.testing.uploads import SMUGGLED_PATH

__all__ = ["AsgiProbe"]

_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class AsgiProbe:
    """The user's application and the doctor's routes; it records every request in the journal.

    Args:
        app: The application.
        journal: The journal to write to.
        framework: The application's framework. The route that reads a body reads it as that
            framework does.
    """

    def __init__(self, app: _App, journal: Journal, framework: str | None) -> None:
        self.app = app
        self.journal = journal
        self.read_body: Callable[[_Scope, _Receive], Awaitable[bool]] = (
            _read_as_starlette if framework in _STARLETTE else _read
        )

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one request, or pass it on to the application."""
        if scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path: str = scope["path"]
        if path == SMUGGLED_PATH:
            self.journal.write("smuggled")
        exchange = _Exchange(scope, receive, send)
        case = exchange.header(routes.CASE_HEADER)
        self.journal.write("begin", path=path, case=case)
        try:
            if path.startswith(routes.PREFIX):
                await self._serve(path, scope, exchange)
            else:
                await self.app(scope, exchange.receive, exchange.send)
        finally:
            self.journal.write("end", path=path, case=case, **exchange.facts())

    async def _serve(self, path: str, scope: _Scope, exchange: _Exchange) -> None:
        send = exchange.send
        if path == routes.REFUSE:
            await _answer(send, 413, routes.REFUSAL)
        elif path == routes.REFUSE_LARGE:
            await _answer(send, 401, routes.LARGE)
        elif path == routes.READ:
            if await self.read_body(scope, exchange.receive):
                await _answer(send, 200, routes.OK)
        elif path == routes.SLOW:
            await _sleep(routes.SLOW_SECONDS)
            await _answer(send, 200, routes.OK)
        elif path == routes.STREAM:
            await _stream(send)
        elif path == routes.UPSTREAM:
            routes.fail_like_an_upstream()
        elif path == routes.COUNTERS:
            await _answer(send, 200, routes.counters_json())
        else:
            await _answer(send, 200, routes.OK)

    async def _lifespan(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        started = False

        async def watched(message: _Message) -> None:
            nonlocal started
            started = started or message["type"] == "lifespan.startup.complete"
            if message["type"] == "lifespan.startup.failed":
                lines = str(message.get("message", "")).strip().splitlines() or ["it failed"]
                self.journal.write("lifespan", state="failed", error=lines[-1])
            elif message["type"] == "lifespan.startup.complete":
                self.journal.write("lifespan", state="complete")
            await send(message)

        self.journal.write("lifespan", state="started")
        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if not started:
                text = "".join(traceback.format_exception_only(error)).strip()
                self.journal.write("lifespan", state="raised", error=text)
            raise


class _Exchange:
    """What an application did with its request: it counts what passes the two callables."""

    def __init__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        self._headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self._receive, self._send = receive, send
        self.read = 0
        self.ended = False
        self.status: int | None = None
        length = self.header("Content-Length")
        self.expected = int(length) if length and length.isdigit() else None

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode()
        return next(
            (value.decode("latin-1") for key, value in self._headers if key == wanted), None
        )

    async def receive(self) -> _Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)
        return message

    async def send(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def facts(self) -> dict[str, object]:
        return {
            "read": self.read,
            "read_to_end": self.ended,
            "expected": self.expected,
            "status": self.status,
        }


_STARLETTE = frozenset({"FastAPI", "Starlette"})


async def _read_as_starlette(scope: _Scope, receive: _Receive) -> bool:
    from starlette.requests import Request

    await Request(scope, receive).body()
    return True


async def _read(scope: _Scope, receive: _Receive) -> bool:
    """Read the body; return False if the client left before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        if not message.get("more_body", False):
            return True


async def _answer(send: _Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: _Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(routes.PIECES):
        await send({"type": "http.response.body", "body": routes.PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def _sleep(seconds: float) -> None:
    try:
        from anyio import sleep
    except ImportError:
        from asyncio import sleep
    await sleep(seconds)
