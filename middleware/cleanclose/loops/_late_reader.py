"""A task that hardly ever has to be made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from cleanclose.loops._runtime import Runtime

__all__ = ["LateReader"]


class LateReader:
    """Reads while a server sends, once that takes more than some turns of the loop.

    Nearly always it does not, and a task with a scope to end it costs more than the response.

    Args:
        loop: The event loop.
        read: Reads until it is cancelled.
        turns: How many turns.
    """

    def __init__(self, loop: Runtime, read: Callable[[], Awaitable[None]], turns: int) -> None:
        self._loop = loop
        self._read = read
        self._turns = turns
        self._is_over = False
        self._task: object | None = None
        self._scope: anyio.CancelScope | None = None
        loop.next_turn(self._turn)

    def _turn(self) -> None:
        self._turns -= 1
        if self._turns and not self._is_over:
            self._loop.next_turn(self._turn)
        elif not self._is_over:
            self._task = self._loop.spawn(self._run)

    async def _run(self) -> None:
        if not self._is_over:
            with anyio.CancelScope() as self._scope:
                await self._read()

    def end(self) -> None:
        """The server has sent everything, or never will."""
        self._is_over = True
        if self._scope is not None:
            self._scope.cancel()
