"""The routes as a plain ASGI app, without any framework."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from tests.harness.apps import routes

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

seen = routes.Seen()


class LeftEarlyError(Exception):
    """The client disconnected in the middle of its body."""


async def pieces(receive: Receive, size: int | None = None) -> list[bytes]:
    """The body, or at least its first ``size`` bytes."""
    read: list[bytes] = []
    total = 0
    while size is None or total < size:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise LeftEarlyError
        read.append(message.get("body", b""))
        total += len(read[-1])
        if not message.get("more_body"):
            break
    return read


async def answer(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], length: bool = True
) -> None:
    """A complete response in two messages."""
    framing = [(b"content-length", str(len(body)).encode())] if length else []
    start = [(b"content-type", b"text/plain"), *framing, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def refuse_streaming(send: Send) -> None:
    """A response in pieces, as a template engine makes them."""
    await send({"type": "http.response.start", "status": 413, "headers": []})
    for number, chunk in enumerate(routes.CHUNKS):
        if number:
            await anyio.sleep(routes.CHUNK_PAUSE)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def accept(receive: Receive, send: Send) -> None:
    """Read everything and say what came."""
    digest = hashlib.sha256()
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise LeftEarlyError
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, 200, routes.accepted_json(size, digest.hexdigest()))


async def echo(receive: Receive, send: Send) -> None:
    """Send the body back while it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise LeftEarlyError
        more = message.get("more_body", False)
        await send(
            {"type": "http.response.body", "body": message.get("body", b""), "more_body": more}
        )


async def respond(path: str, receive: Receive, send: Send) -> None:
    """Dispatch one request."""
    match path:
        case routes.REFUSE:
            await answer(send, 413, routes.REFUSAL)
        case routes.REFUSE_LARGE:
            await answer(send, 401, routes.LARGE)
        case routes.REFUSE_AFTER:
            await pieces(receive, routes.READ_FIRST)
            await answer(send, 413, routes.REFUSAL)
        case routes.REFUSE_STREAMING:
            await refuse_streaming(send)
        case routes.REFUSE_UNSIZED:
            await answer(send, 413, routes.REFUSAL, length=False)
        case routes.REFUSE_BACKGROUND:
            await answer(send, 413, routes.REFUSAL)
            await anyio.sleep(routes.WORK_SECONDS)
            seen.count_background()
        case routes.REFUSE_LATE:
            await anyio.sleep(routes.LATE_SECONDS)
            await answer(send, 413, routes.REFUSAL)
        case routes.REDIRECT:
            await answer(send, 303, b"", (b"location", b"/"))
        case routes.NOTHING:
            await answer(send, 204, b"", length=False)
        case routes.ERROR:
            raise RuntimeError("the app failed, as this route promises")
        case routes.ACCEPT:
            await accept(receive, send)
        case routes.ECHO:
            await echo(receive, send)
        case routes.SLEEP:
            await anyio.sleep(routes.LATE_SECONDS)
            await answer(send, 200, routes.OK_BODY)
        case routes.COUNTERS:
            await answer(send, 200, routes.counters_json())
        case routes.SEEN:
            await answer(send, 200, seen.json())
        case routes.INDEX:
            await pieces(receive)
            await answer(send, 200, routes.OK_BODY)
        case _:
            await answer(send, 404, b"There is no such route.\n")


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's two questions."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The app."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    seen.count(scope["path"])
    try:
        await respond(scope["path"], receive, send)
    except LeftEarlyError:
        seen.count_failure()


if routes.wrapped():
    from cleanclose.asgi import CleanCloseMiddleware

    app: Any = CleanCloseMiddleware(bare, **routes.settings())
else:
    app = bare
