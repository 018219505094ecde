"""A service like those before a language model: tokens, one after the other, for whoever waits.

The model is a stand-in. ``/local`` has it in this process, where each token burns CPU in a worker
thread; ``/remote`` asks another service for them over HTTP, which stops when nobody reads. As in
most services there is a ``BaseHTTPMiddleware`` around the routes.

Run it from the root of the checkout, the upstream first::

    uvicorn example_apps.llm:upstream --port 8001
    LLM_UPSTREAM=http://127.0.0.1:8001 uvicorn example_apps.llm:app

``LLM_MODE`` says what happens when the client leaves: ``bare`` (nothing), ``polling``
(``request.is_disconnected()`` before each token) or ``block`` (``stop_work()``, the default).
``python -m example_apps.llm_demo`` shows the difference.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import anyio
import httpx
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import JSONResponse, Response, StreamingResponse

from cleanclose.asgi import CleanCloseMiddleware, stop_work

MODE: Final = os.environ.get("LLM_MODE", "block")
UPSTREAM: Final = os.environ.get("LLM_UPSTREAM", "http://127.0.0.1:8001")
TOKEN_SECONDS: Final = 0.02
"""CPU seconds, or seconds, that a token takes."""


class Usage:
    """What has been burnt so far."""

    def __init__(self) -> None:
        self.active = 0
        self.tokens = 0
        self.cpu_seconds = 0.0

    def page(self) -> Response:
        """The figures."""
        return JSONResponse(vars(self))


class Model:
    """A stand-in for a model: a token is so much work for a CPU."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def token(self) -> str:
        """Compute one token. Blocks; other threads run meanwhile."""
        began = time.thread_time()
        while time.thread_time() - began < TOKEN_SECONDS:
            hashlib.pbkdf2_hmac("sha256", b"prompt", b"salt", 2000)
        self._usage.tokens += 1
        self._usage.cpu_seconds += time.thread_time() - began
        return "token "


usage = Usage()
model = Model(usage)
service = FastAPI()


def guard() -> AbstractAsyncContextManager[Any]:
    """What ends the work when nobody waits for it."""
    return stop_work() if MODE == "block" else nullcontext()


async def nobody_waits(request: Request) -> bool:
    """What many services ask before each token."""
    return MODE == "polling" and await request.is_disconnected()


@service.get("/usage")
async def show_usage() -> Response:
    """What has been burnt so far."""
    return usage.page()


@service.get("/local")
async def local(request: Request, tokens: int = 100) -> Response:
    """Tokens of a model in this process."""
    usage.active += 1
    words: list[str] = []
    try:
        async with guard():
            for _ in range(tokens):
                if await nobody_waits(request):
                    break
                words.append(await anyio.to_thread.run_sync(model.token))
    finally:
        usage.active -= 1
    return JSONResponse({"text": "".join(words)})


@service.get("/remote")
async def remote(request: Request, tokens: int = 100) -> Response:
    """Tokens of a model behind another service."""
    usage.active += 1
    words: list[str] = []
    try:
        async with (
            guard(),
            httpx.AsyncClient(timeout=60) as client,
            client.stream("GET", f"{UPSTREAM}/tokens", params={"count": tokens}) as response,
        ):
            async for word in response.aiter_text():
                if await nobody_waits(request):
                    break
                words.append(word)
    finally:
        usage.active -= 1
    return JSONResponse({"text": "".join(words)})


class Accounting(BaseHTTPMiddleware):
    """A header for the bill: the kind of middleware that every service has."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Serve one request."""
        response = await call_next(request)
        response.headers["X-Tokens"] = str(usage.tokens)
        return response


service.add_middleware(Accounting)
app: Any = CleanCloseMiddleware(service) if MODE == "block" else service


upstream = FastAPI()
sold = Usage()


@upstream.get("/usage")
async def show_sold() -> Response:
    """What has been produced so far."""
    return sold.page()


@upstream.get("/tokens")
async def tokens_of_upstream(count: int = 100) -> Response:
    """Tokens, as they come."""

    async def words() -> AsyncIterator[str]:
        sold.active += 1
        try:
            for _ in range(count):
                await anyio.sleep(TOKEN_SECONDS)
                sold.tokens += 1
                yield "token "
        finally:
            sold.active -= 1

    return StreamingResponse(words(), media_type="text/plain")
