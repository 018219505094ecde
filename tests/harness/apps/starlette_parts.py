"""Endpoints that more than one of the Starlette applications has."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["read", "refuse"]


async def read(request: Request) -> Response:
    """Read the body, and tell its length."""
    return PlainTextResponse(str(len(await request.body())))


async def refuse(request: Request) -> Response:
    """413, from the headers alone."""
    return PlainTextResponse("too much", 413)
