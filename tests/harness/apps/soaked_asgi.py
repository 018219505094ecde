"""The plain ASGI app for the soak: with outlets that misbehave, and a census."""

from __future__ import annotations

import asyncio
from typing import Any

from cleanclose.asgi import CleanCloseMiddleware
from tests.harness.apps import raw_asgi, routes, soaking


def tasks() -> int:
    """How many tasks there are, with this one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


async def bare(scope: raw_asgi.Scope, receive: raw_asgi.Receive, send: raw_asgi.Send) -> None:
    """The app."""
    if scope["type"] == "http" and scope["path"] == soaking.CENSUS:
        await raw_asgi.answer(send, 200, soaking.census(tasks(), raw_asgi.seen))
    else:
        await raw_asgi.bare(scope, receive, send)


app: Any = bare
if routes.wrapped():
    app = CleanCloseMiddleware(bare, outlets=soaking.outlets(), **routes.settings())
