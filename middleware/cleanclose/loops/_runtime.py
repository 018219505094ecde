"""What anyio does not have: an independent task, and the loop's next turn."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Runtime", "current_runtime"]

# anyio imports it when it is first needed: the loop would stand still for that, and with it the
# first early response.
with contextlib.suppress(ImportError):
    importlib.import_module("anyio._backends._asyncio")


class Runtime(Protocol):
    """The event loop that a request runs on."""

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        """Start a task, independent of the caller's; keep what this returns until it ends."""

    def next_turn(self, call: Callable[[], None]) -> None:
        """Run ``call`` in the loop's next turn, when all that is ready now has run."""

    def is_being_cancelled(self) -> bool:
        """Whether somebody has cancelled the current task, so that it may be cleaning up.

        Not on trio: waiting in a cancelled scope does not wait there.
        """
        ...


class _Asyncio:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        return asyncio.ensure_future(job(), loop=self._loop)

    def next_turn(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)

    def is_being_cancelled(self) -> bool:
        task = asyncio.current_task(self._loop)
        return task is not None and task.cancelling() > 0


class _Trio:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()

    def spawn(self, job: Callable[[], Awaitable[None]]) -> object:
        # A nursery would have to be open around the application, for every request; a system
        # task is trio's way to start one from inside.
        return self._trio.lowlevel.spawn_system_task(job)

    def next_turn(self, call: Callable[[], None]) -> None:
        self._token.run_sync_soon(call)

    def is_being_cancelled(self) -> bool:
        return False


def current_runtime() -> Runtime:
    """The loop that is running here: asyncio's (whatever its implementation) or trio's."""
    try:
        return _Asyncio(asyncio.get_running_loop())
    except RuntimeError:
        # Not asyncio: trio is running, so somebody has imported it.
        return _Trio(sys.modules["trio"])
