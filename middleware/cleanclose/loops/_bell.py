"""A bell, which asyncio's and trio's tasks can wait for."""

from __future__ import annotations

import math

import anyio

__all__ = ["Bell"]


class Bell:
    """Wakes those who wait, to look again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        # Only once there is something to wait for.
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Something has changed."""
        if self._event is not None:
            self._event.set()

    async def wait(self, seconds: float = math.inf) -> None:
        """Wait until something changes.

        Args:
            seconds: For how long at most.
        """
        if self._event is None or self._event.is_set():
            self._event = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._event.wait()
