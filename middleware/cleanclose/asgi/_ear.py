"""Watches for a client's departure, for a request that asks, without taking a message away.

A server reports a departure through ``receive()``, which belongs to the application. So the ear
calls it only when nothing but the departure can still come, and keeps the message for the next
caller. While the body is incomplete, it looks at the server's own object instead.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

from cleanclose.asgi._messages import Message
from cleanclose.asgi._runtime import current_runtime
from cleanclose.core.blame.watch import COMPLETE, GONE

if TYPE_CHECKING:
    from cleanclose.asgi._witness import AsgiWatch

__all__ = ["Ear"]

_LOOK: Final = 0.04
"""Seconds between two looks at the server's own object."""
HOLD_SECONDS: Final = 10.0
"""Seconds for which the message about the departure waits until work has been stopped."""
_CLEANING_UP: Final = 0.1
"""The same for a task that is being cancelled itself. Its clean-up would wait for its own end; but
it is not at its clean-up yet where the server's call has swallowed the cancellation."""


class Ear:
    """The one task that watches for the departure, and the messages that it has received.

    Args:
        watch: The exchange.
    """

    def __init__(self, watch: AsgiWatch) -> None:
        self._watch = watch
        self._heard: deque[Message] = deque()
        self._listening = False
        self._reading = 0
        self._over = False
        self._scope: anyio.CancelScope | None = None
        self._changed: anyio.Event | None = None
        self._task = current_runtime().spawn(self._run)

    # The application's receive() once there is an ear.

    async def next(self) -> Message:
        """The next message for the application."""
        while self._listening and not self._heard:
            await self._change()
        if self._heard:
            return self._heard.popleft()
        self._reading += 1
        try:
            return await self._watch.server_receive()
        finally:
            self._reading -= 1
            self.notify()

    async def hold_back(self, message: Message) -> None:
        """Let work be stopped before anybody else learns that the client has left.

        Starlette cancels a stream as soon as it does, at every await: its clean-up would be cut
        short. If the caller is cancelled, the next one gets the message.
        """
        stops = self._watch.stops
        if stops is None:
            return
        stops.on_idle = self.notify
        cleaning_up = current_runtime().is_being_cancelled()
        try:
            with anyio.move_on_after(_CLEANING_UP if cleaning_up else HOLD_SECONDS):
                while stops.gone and stops.is_busy:
                    await self._change()
        except BaseException:
            self._heard.appendleft(message)
            raise

    # The task.

    def notify(self) -> None:
        """Something has changed: wake those who wait, to look again."""
        if self._changed is not None:
            self._changed.set()

    def close(self) -> None:
        """The exchange is over."""
        self._over = True
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        if self._over:
            return
        with anyio.CancelScope() as self._scope:
            try:
                while self._watch.progress not in (COMPLETE, GONE) and await self._listen():
                    pass
            except Exception:  # noqa: BLE001 - what the server raises is for the application to hear
                return
            finally:
                self.notify()

    async def _listen(self) -> bool:
        """Listen or look once; return whether there is something to listen for any more."""
        watch = self._watch
        if self._reading or watch.is_receiving or not watch.has_all:
            with anyio.move_on_after(_LOOK):
                await self._change()
            watch.ask()
            watch.ask_socket()
            return True
        self._listening = True
        try:
            message = await watch.server_receive()
        finally:
            self._listening = False
        self._heard.append(message)
        watch.heard(message)
        self.notify()
        return bool(message["type"] != "http.disconnect")

    async def _change(self) -> None:
        if self._changed is None or self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()
