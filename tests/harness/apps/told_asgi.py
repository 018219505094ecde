"""Starlette, for the tests about outlets, trackers and access logs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import client_gone
from tests.harness.apps import told
from tests.harness.apps.starlette_parts import read, refuse

told.prepare_logging()
if "TEST_SENTRY" in os.environ:
    from sentry_sdk.integrations.starlette import StarletteIntegration

    # Its spans would stand between the middleware and the server.
    told.prepare_sentry(StarletteIntegration(middleware_spans=False))


async def index(request: Request) -> Response:
    return Response(told.counters())


async def work(request: Request) -> Response:
    deadline = time.monotonic() + 10
    while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110 - it is polled
        await asyncio.sleep(0.01)
    return PlainTextResponse("late")


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield told.PIECE
            await asyncio.sleep(0.001)

    return StreamingResponse(pieces())


async def reset(request: Request) -> Response:
    told.reset_upstream()
    return PlainTextResponse("never")


async def reset_later(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        told.reset_upstream()

    return StreamingResponse(pieces())


starlette = Starlette(
    routes=[
        Route("/", index),
        Route("/read", read, methods=["POST"]),
        Route("/refuse", refuse, methods=["POST"]),
        Route("/work", work, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route("/stream", stream),
        Route("/reset", reset),
        Route("/reset-later", reset_later),
    ]
)
app: Any = starlette
if os.environ["CLEANCLOSE"] == "1":
    if os.environ.get("TEST_OUTERMOST") == "1":
        app = CleanCloseMiddleware(starlette, outlets=told.outlets())
    else:
        starlette.add_middleware(CleanCloseMiddleware, outlets=told.outlets())
if os.environ.get("TEST_SENTRY_ASGI") == "1":
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    app = SentryAsgiMiddleware(app)
