"""The server's end of one request whose client leaves in a chosen turn of the loop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from typing import Any, Final

import anyio
import anyio.lowlevel
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

__all__ = [
    "LEFT_OPEN",
    "Passing",
    "Server",
    "is_older",
    "nothing_is_left",
    "on_asyncio",
    "tasks_now",
]


def is_older(package: str, *version: int) -> bool:
    """Whether the installed version is below this one."""
    numbers = re.findall(r"\d+", importlib.metadata.version(package))
    return tuple(map(int, numbers)) < version


_TREATMENT: Final = "ignore" if is_older("starlette", 0, 45, 1) else "error"
LEFT_OPEN: Final = f"{_TREATMENT}:Unclosed <MemoryObject"
"""A filter for warnings. Those versions close the stream between a ``BaseHTTPMiddleware`` and its
application only when the response is complete; bare, too, whoever is cancelled leaves it open."""


class Server:
    """The server's end of one request, whose client leaves when it is told to."""

    def __init__(self, where: str) -> None:
        self._left = anyio.Event()
        self._begun = False
        self.has_body = where in ("unread", "upload")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST" if self.has_body else "GET",
            "path": f"/{where}",
            "query_string": b"",
            "headers": [(b"host", b"test")]
            + ([(b"content-length", b"100")] if self.has_body else []),
            "client": ("192.0.2.1", 1234),
        }

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Any:
        if not self._begun:
            self._begun = True
            return {"type": "http.request", "body": b"half", "more_body": self.has_body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()


class Passing(BaseHTTPMiddleware):
    """Does nothing; that is enough."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def tasks_now() -> set[asyncio.Task[Any]]:
    """The tasks of this loop, but for the one that runs."""
    return asyncio.all_tasks() - {asyncio.current_task()} if on_asyncio() else set()


async def nothing_is_left(before: set[asyncio.Task[Any]]) -> None:
    """No more tasks than before, once those that have been told to end have done so."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert tasks_now() <= before
