"""Watches for a client's departure, for a request that asks, without taking a message away.

A server reports a departure through ``receive()``, which belongs to the application. So the ear
calls it only when nothing but the departure can still come, and keeps the message for the next
caller. While the body is incomplete, it looks at the server's own object instead.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from cleanclose.asgi._messages import Message
from cleanclose.core.blame.watch import COMPLETE, GONE
from cleanclose.core.stop.waiting import LOOK_SECONDS, hold_seconds
from cleanclose.loops import Bell, current_runtime

if TYPE_CHECKING:
    from cleanclose.asgi._witness import AsgiWatch

__all__ = ["Ear"]


class Ear:
    """The one task that watches for the departure, and the messages that it has received.

    Args:
        watch: The exchange.
    """

    def __init__(self, watch: AsgiWatch) -> None:
        self._watch = watch
        self._heard: deque[Message] = deque()
        self._listening = False
        self._over = False
        self._scope: anyio.CancelScope | None = None
        self.bell = Bell()
        self._task = current_runtime().spawn(self._run)

    async def next(self) -> Message:
        """The application's ``receive`` once there is an ear."""
        while self._listening and not self._heard:
            await self.bell.wait()
        return self._heard.popleft() if self._heard else await self._watch.server_receive()

    async def hold_back(self, message: Message) -> None:
        """Have the work stopped before anybody else learns that the client has left.

        If the caller is cancelled, the next one gets the message.
        """
        stops = self._watch.stops
        if stops is None:
            return
        stops.on_idle = self.bell.ring
        cleaning_up = current_runtime().is_being_cancelled()
        try:
            with anyio.move_on_after(hold_seconds(cleaning_up=cleaning_up)):
                while stops.gone and stops.is_busy:
                    await self.bell.wait()
        except BaseException:
            self._heard.appendleft(message)
            raise

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
                while self._watch.progress not in (COMPLETE, GONE):
                    if not self._watch.only_departure_comes:
                        await self.bell.wait(LOOK_SECONDS)
                        self._watch.ask()
                        self._watch.ask_socket()
                    elif await self._listen() == "http.disconnect":
                        break
            except Exception:  # noqa: BLE001 - what the server raises is for the application to hear
                return
            finally:
                self.bell.ring()

    async def _listen(self) -> str:
        self._listening = True
        try:
            message = await self._watch.server_receive()
        finally:
            self._listening = False
        self._heard.append(message)
        self._watch.heard(message)
        self.bell.ring()
        return str(message["type"])
