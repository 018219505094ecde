"""The routes of ``noise_asgi`` without a framework."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import parse_qs

import anyio.to_thread

from cleanclose.core import client_gone
from tests.harness.apps.noise_asgi import (
    BIG,
    PATIENCE,
    PIECE,
    SEEN,
    Receive,
    Scope,
    Send,
    answer,
    between_pieces,
    fail,
    poll,
    poll_in_thread,
    prepare,
    work_in_thread,
    work_on,
)


class Left(Exception):
    """The client has left while its body was being read."""


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        piece: bytes = message.get("body", b"")
        body += piece
        if not message.get("more_body", False):
            return body


async def _start_stream(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": PIECE, "more_body": True})


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode()
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    match scope["path"]:
        case "/":
            await answer(send, b"ok")
        case "/read":
            try:
                await _read(receive)
            except Left:
                return
            await answer(send, b"ok")
        case "/work":
            await _read(receive)
            await work_on()
            await answer(send, b"ok")
        case "/work-thread":
            await anyio.to_thread.run_sync(work_in_thread)
            await answer(send, b"ok")
        case "/stream":
            await _start_stream(send)
            deadline = time.monotonic() + PATIENCE
            # A server may let it write for nobody.
            while not client_gone() and time.monotonic() < deadline:
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                await between_pieces()
        case "/big":
            await answer(send, BIG)
        case "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": BIG, "more_body": True})
            await send({"type": "http.response.body"})
        case "/poll":
            await poll(request_id)
            await answer(send, b"ok")
        case "/poll-thread":
            await anyio.to_thread.run_sync(poll_in_thread, request_id)
            await answer(send, b"ok")
        case "/fail":
            if "wait" in query:
                await work_on()
            if "behind" in query:
                await answer(send, b"ok")
            await fail(query["kind"][0])
        case "/fail-stream":
            await _start_stream(send)
            if "wait" in query:
                await work_on()
            await fail(query["kind"][0])
        case _:
            await answer(send, b"there is no such route")


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    if scope["path"] == "/push":
        deadline = time.monotonic() + PATIENCE
        while not client_gone() and time.monotonic() < deadline:
            await send({"type": "websocket.send", "bytes": PIECE})
            await between_pieces()
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            SEEN[dict(scope["headers"]).get(b"x-request-id", b"").decode()] = message["code"]
            return
        await send({"type": "websocket.send", "text": message["text"]})


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The app without a framework."""
    match scope["type"]:
        case "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        case "websocket":
            await _websocket(scope, receive, send)
        case _:
            await _http(scope, receive, send)


app: Final = prepare(bare)
