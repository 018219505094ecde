"""What ASGI applications do when their client leaves, and when an upstream of theirs does.

`prepare` makes an application ready for the tests. The applications are in ``noise_asgi_raw`` and
in ``noise_asgi_frameworks``.

==================  =============================================================================
``/``               200 ``ok``
``/read``           reads the body, then 200; returns without an answer if the client leaves
``/work``           reads the body, works (`work_on`), then 200
``/work-thread``    the same in a thread
``/stream``         pieces of `PIECE` without an end
``/big``            `BIG` in one piece
``/late``           `PIECE`, and an empty end of the response once it is on its way
``/poll``           asks `client_gone` for up to `PATIENCE` seconds, then 200
``/poll-thread``    the same in a thread
``/fail``           `fail` with the query's ``kind``, and ``behind`` which part of its work
``/fail-stream``    the same in the middle of a streamed response
websocket ``/echo`` sends back what comes, until an exception ends it
websocket ``/push`` sends `PIECE` without an end
``/seen``           JSON of what handlers have seen, by the request's ``X-Request-ID``
``/counters``       JSON of ``cleanclose.core.snapshot()``
==================  =============================================================================
"""

# Some of the client libraries are not typed for strict checkers.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx

from cleanclose.core import client_gone
from tests.harness import tap
from tests.harness.apps import routes

__all__ = [
    "BIG",
    "BUSY",
    "CAME",
    "DONE",
    "EDGE",
    "GATE",
    "HOLDS",
    "PATIENCE",
    "PIECE",
    "SEEN",
    "UPSTREAM_PORT",
    "WORKS",
    "all_have_left",
    "answer",
    "between_pieces",
    "fail",
    "note",
    "poll",
    "poll_in_thread",
    "prepare",
    "work_in_thread",
    "work_on",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATIENCE: Final = 30.0
"""Seconds after which nobody leaves any more; no test that passes waits for it."""
PIECE: Final = b"x" * 65536
BIG: Final = b"x" * (16 << 20)
UPSTREAM_PORT: Final = "TEST_UPSTREAM_PORT"
"""The environment variable with the port of a server that resets whoever talks to it."""
GATE: Final = "TEST_GATE"
"""The environment variable with the path of a file that is there once all clients have left."""
BUSY: Final = "TEST_BUSY"
"""The environment variable which says that handlers hold the loop while their client leaves."""

SEEN: Final[dict[str, object]] = {}
"""What handlers have seen, by the request's ``X-Request-ID``."""
FORKING: Final = threading.Lock()
FAILED: Final[list[str]] = []
"""The kinds that `fail` has been through with."""
_WHO: Final = ContextVar("_WHO", default="")
"""The ``X-Request-ID`` of the request that is dealt with."""
CAME: Final = "came"
"""The note that a request has come to the application."""
WORKS: Final = "works"
"""The note that its handler works, and does not read any more."""
DONE: Final = "done"
"""The note that its handler has come to its end."""
EDGE: Final = "TEST_EDGE"
"""The environment variable with the name of one of the applications in ``edges_asgi``."""
HOLDS: Final = "holds"
"""The note that its handler holds the loop."""


def note(what: str) -> None:
    """Note how far the request is that is dealt with."""
    tap.note(what, _WHO.get())


async def poll(request_id: str) -> None:
    """Wait for `client_gone`, and note whether it came true."""
    note(WORKS)
    deadline = time.monotonic() + PATIENCE
    while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110 - it is polled
        await asyncio.sleep(0.02)
    SEEN[request_id] = client_gone()


def poll_in_thread(request_id: str) -> None:
    """The same, without a loop."""
    note(WORKS)
    deadline = time.monotonic() + PATIENCE
    while not client_gone() and time.monotonic() < deadline:
        time.sleep(0.02)
    SEEN[request_id] = client_gone()


def all_have_left() -> bool:
    """Whether all clients have left that were going to."""
    return Path(os.environ[GATE]).exists()


async def work_on() -> None:
    """Work that goes on until all clients have left, and for a turn of the loop longer."""
    note(WORKS)
    deadline = time.monotonic() + 2 * PATIENCE
    while not all_have_left() and time.monotonic() < deadline:  # noqa: ASYNC110 - a file
        await anyio.sleep(0.02)
    # Until the server has had a look at their connections.
    await anyio.sleep(0.1)


def work_in_thread() -> None:
    """Such work that holds a thread."""
    note(WORKS)
    _hold()


def _hold() -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not all_have_left() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)


async def between_pieces() -> None:
    """A moment between two pieces of a response.

    With `BUSY` the loop sees nothing of the client's leaving: the next piece is what finds out.
    """
    await anyio.sleep(0.01)
    if BUSY in os.environ and not all_have_left():
        note(HOLDS)
        _hold()


async def fail(kind: str) -> None:
    """Let something break that is not the client's connection, and count it."""
    try:
        await _fail(kind)
    finally:
        FAILED.append(kind)


async def _fail(kind: str) -> None:
    port = int(os.environ[UPSTREAM_PORT])
    match kind:
        case "recv":
            await anyio.to_thread.run_sync(_read_from_a_socket, port)
        case "streams":
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"hello")
                await reader.read(1)
                # uvloop may have taken the reset for an end.
                while True:
                    await asyncio.sleep(0.01)
                    await writer.drain()
            finally:
                writer.transport.abort()
        case "httpx":
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{port}/")
        case "websockets":
            await _fail_websocket()
        case "pipe":
            await anyio.to_thread.run_sync(_write_to_the_dead)
        case "anyio":
            give, take = anyio.create_memory_object_stream[bytes]()
            take.close()
            with give:
                await give.send(b"hello")
        case "fed":
            # An end of nobody's connection.
            stream = asyncio.StreamReader()
            stream.feed_data(b"half")
            stream.feed_eof()
            await stream.readexactly(8)
        case "timeout":
            raise TimeoutError(errno.ETIMEDOUT, "the upstream does not answer")
        case "wrapped":
            try:
                await _fail("recv")
            except ConnectionResetError as error:
                raise RuntimeError("the database is away") from error
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail("streams"))
        case _:
            raise AssertionError(kind)
    raise AssertionError(f"{kind} did not fail")


def _read_from_a_socket(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"hello")
        sock.recv(1)


def _write_to_the_dead() -> None:
    # One at a time: until it executes its program, a child has all pipes of the others. And
    # without a buffer: closing it would write, and fail, once more.
    with (
        FORKING,
        subprocess.Popen(("true",), stdin=subprocess.PIPE, bufsize=0) as process,
    ):
        process.wait()
        assert process.stdin is not None
        process.stdin.write(b"hello")


async def _fail_websocket() -> None:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import ServerConnection, serve

    async def quit_at_once(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with serve(quit_at_once, "127.0.0.1", 0) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/") as connection:
            await connection.recv()


def prepare(bare: App) -> App:
    """Wrap an application as the environment asks for it, and let it be looked at."""
    tap.tap_logging()
    wrapped: App = bare
    if routes.wrapped():
        from cleanclose.asgi import CleanCloseMiddleware

        wrapped = CleanCloseMiddleware(bare, outlets=tap.outlets(), **routes.settings())

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        # The server's callables are passed on as they are.
        _WHO.set(dict(scope.get("headers", ())).get(b"x-request-id", b"").decode())
        note(CAME)
        match scope.get("path") if scope["type"] == "http" else None:
            case "/seen":
                await answer(send, json.dumps({**SEEN, "failed": len(FAILED)}).encode())
            case routes.COUNTERS:
                await answer(send, routes.counters_json())
            case _:
                await wrapped(scope, receive, send)

    return front


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
