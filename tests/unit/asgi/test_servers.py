"""Which server it is, and whether somebody stands between it and us."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Awaitable, Callable, MutableMapping
from types import CodeType
from typing import Any, Final

import pytest
from starlette.middleware.errors import ServerErrorMiddleware

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import Event, Outcome, UploadDrained
from cleanclose.core.server import UNKNOWN
from cleanclose.servers import asgi_server

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]

PIECES: Final = 5
SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "method": "POST",
    "http_version": "1.1",
    "path": "/",
    "headers": [(b"content-length", b"5")],
}


class FailedError(Exception):
    """What the application raises."""


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise FailedError


class Server:
    """Calls an application as one of the servers does, from a module of that server's."""

    def __init__(self, module: str) -> None:
        self.pieces = PIECES
        self.scope: dict[str, Any] = dict(SCOPE)
        self.sent: list[Message] = []

        async def receive() -> Message:
            self.pieces -= 1
            return {"type": "http.request", "body": b"x", "more_body": self.pieces > 0}

        async def send(message: Message) -> None:
            self.sent.append(message)

        receive.__module__ = send.__module__ = module
        self.receive, self.send = receive, send
        code: CodeType = compile(
            "async def call(app, *arguments): await app(*arguments)", "server.py", "exec"
        )
        namespace: dict[str, Any] = {"__name__": module}
        exec(code, namespace)
        self._call: App = namespace["call"]

    def call(self, app: App) -> None:
        asyncio.run(self.run(app))

    async def run(self, app: App) -> None:
        await self._call(app, self.scope, self.receive, self.send)


@pytest.mark.parametrize("module", ["uvicorn.protocols.http.h11_impl", "gunicorn.asgi.protocol"])
def test_a_failed_applications_body_is_read(module: str) -> None:
    server = Server(module)
    with pytest.raises(FailedError):
        server.call(CleanCloseMiddleware(fails))
    assert server.pieces == 0
    assert server.sent == []


def test_a_task_that_a_failed_application_left_behind_answers_as_without_us() -> None:
    """Its head comes alone: nobody knows yet how long its response will be."""
    server = Server("uvicorn.protocols.http.h11_impl")
    answer: list[Message] = [
        {"type": "http.response.start", "status": 500, "headers": []},
        {"type": "http.response.body", "body": b"late"},
    ]
    read, answered = server.receive, asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def receive() -> Message:
        await answered.wait()
        return await read()

    async def answers_late(send: Any) -> None:
        for message in answer:
            await send(message)
        answered.set()

    async def fails_and_goes_on(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.ensure_future(answers_late(send)))
        raise FailedError

    receive.__module__ = read.__module__
    server.receive = receive
    with pytest.raises(FailedError):
        server.call(CleanCloseMiddleware(fails_and_goes_on, outlets=[]))
    assert server.sent == answer


def test_inside_of_starlettes_outermost_middleware_too() -> None:
    server = Server("uvicorn.protocols.http.h11_impl")
    with pytest.raises(FailedError):
        server.call(ServerErrorMiddleware(CleanCloseMiddleware(fails)))
    assert server.pieces == 0
    assert server.sent[0]["status"] == 500


def test_whoever_may_have_another_application_to_try_finds_the_body() -> None:
    read = b""

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        more = True
        while more:
            message = await receive()
            read += message["body"]
            more = message["more_body"]

    async def tries(scope: Any, receive: Any, send: Any) -> None:
        try:
            await CleanCloseMiddleware(fails)(scope, receive, send)
        except FailedError:
            await reads(scope, receive, send)

    Server("uvicorn.protocols.http.h11_impl").call(tries)
    assert read == b"x" * PIECES


def test_behind_a_server_that_is_not_known_nothing_is_read() -> None:
    server = Server("somebody.elses")
    with pytest.raises(FailedError):
        server.call(CleanCloseMiddleware(fails))
    assert server.pieces == PIECES


def test_what_is_raised_is_the_applications_error_and_not_that_of_our_reading() -> None:
    """The uwsgi protocol of gunicorn, for one, reads the socket within receive()."""
    server = Server("gunicorn.asgi.protocol")
    events: list[Event] = []

    async def breaks() -> Message:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    breaks.__module__ = "gunicorn.asgi.protocol"
    server.receive = breaks
    with pytest.raises(FailedError):
        server.call(CleanCloseMiddleware(fails, outlets=[events.append]))
    (event,) = events
    assert isinstance(event, UploadDrained)
    assert event.outcome is Outcome.RESET


def test_a_body_that_was_not_asked_for_is_not_by_us_while_the_response_goes_out() -> None:
    """A server's first receive() sends the 100, and its send() may wait before it writes."""
    server = Server("uvicorn.protocols.http.h11_impl")
    said: list[str] = []

    async def receive() -> Message:
        said.append("100")
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0.01)
        said.append(message["type"])

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413})
        await send({"type": "http.response.body"})

    receive.__module__ = send.__module__ = "uvicorn.protocols.http.h11_impl"
    server.receive, server.send = receive, send
    server.scope["headers"] = [*SCOPE["headers"], (b"expect", b"100-continue")]
    server.call(CleanCloseMiddleware(refuses, outlets=[]))
    assert said[0] == "http.response.start"


def test_a_cancellation_waits_for_nothing() -> None:
    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    server = Server("uvicorn.protocols.http.h11_impl")
    with pytest.raises(asyncio.CancelledError):
        server.call(CleanCloseMiddleware(cancelled))
    assert server.pieces == PIECES


def test_a_cancellation_ends_the_reading() -> None:
    """The server is stopping: it gets its CancelledError, and the failure as its context."""
    server = Server("uvicorn.protocols.http.h11_impl")

    async def stalls() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("nobody has cancelled this")

    stalls.__module__ = "uvicorn.protocols.http.h11_impl"
    server.receive = stalls

    async def main() -> None:
        task = asyncio.create_task(server.run(CleanCloseMiddleware(fails)))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


async def _takes(connection: object, message: Message) -> None: ...


_takes.__module__ = "daphne.server"


async def somebody_elses(message: Message) -> None: ...


@pytest.mark.parametrize(
    ("send", "name"),
    [(functools.partial(_takes, None), "daphne"), (Server("hypercorn.protocol").send, "hypercorn")],
    ids=["daphne", "hypercorn"],
)
def test_a_server_that_only_its_send_shows_is_known(send: Any, name: str) -> None:
    """Also in Starlette's middleware, behind the one that is always outermost."""
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(asgi_server(receive, send).name)
        await send({"type": "http.response.start", "status": 204})

    queue: asyncio.Queue[Message] = asyncio.Queue()
    assert asgi_server(queue.get, send).name == name
    assert asgi_server(queue.get, somebody_elses) is UNKNOWN
    asyncio.run(ServerErrorMiddleware(app)(dict(SCOPE), queue.get, send))
    assert found == [name]
