"""The two things that anyio has no word for: a task of its own, and a call from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Runtime", "current_runtime"]


class Runtime(Protocol):
    """The event loop that a request runs on."""

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        """Start a task, independent of the caller's; keep what this returns until it ends."""

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the loop. From any thread; nothing happens if the loop is gone."""


class _Asyncio:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        return asyncio.ensure_future(job(), loop=self._loop)

    def call_soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)


class _Trio:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        # A nursery would have to be open around the application, for every request; a system
        # task is trio's way to start one from inside.
        return self._trio.lowlevel.spawn_system_task(job)

    def call_soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(call)


def current_runtime() -> Runtime:
    """The loop that is running here: asyncio's (whatever its implementation) or trio's."""
    try:
        return _Asyncio(asyncio.get_running_loop())
    except RuntimeError:
        # Not asyncio: trio is running, so it has been imported by somebody.
        return _Trio(sys.modules["trio"])
