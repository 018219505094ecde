"""Passes an upstream's response through as it comes, by httpx."""

from __future__ import annotations

import os
from typing import Any

import httpx

from tests.harness.apps.noise_asgi import Receive, Scope, Send, answer, prepare
from tests.harness.proxying import URL


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] != "http" or scope["path"] != "/pass":
        await answer(send, b"ok")
        return
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("GET", os.environ[URL]) as upstream,
    ):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in upstream.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


app: Any = prepare(bare)
