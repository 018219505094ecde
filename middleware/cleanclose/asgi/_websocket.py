"""One websocket's callables, which report to the core what passes through them."""

from __future__ import annotations

import time

from cleanclose.asgi._messages import Message
from cleanclose.asgi._witness import AsgiWatch
from cleanclose.core.blame.calls import Shows
from cleanclose.core.blame.watch import OPEN
from cleanclose.core.blame.websockets import WebSocketEnd, read_close
from cleanclose.servers import sign_of

__all__ = ["WebSocketWatch"]


class WebSocketWatch(WebSocketEnd, AsgiWatch):
    """One websocket's ``receive`` and ``send``."""

    __slots__ = ()

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        message = await self.server_receive()
        if message["type"] == "websocket.disconnect":
            self._ended_by(message, late=False)
        return message

    async def send(self, message: Message) -> None:
        """What the application has as ``send``."""
        kind = message["type"]
        if kind == "websocket.close" or (
            kind == "websocket.http.response.body" and not message.get("more_body", False)
        ):
            self.response_completed()
        try:
            await self.send_to(message)
        except Exception as error:
            self.find_witness(error)
            raise

    def ask(self) -> None:
        sign = sign_of(self.server_receive)
        found = sign.gone(self.server_receive) if self.progress == OPEN else None
        if found and sign.shows is Shows.MESSAGES:
            self._ended_by(found, late=True)
        elif found:
            self.peer_gone(sign.witness, time.monotonic(), late=True)

    def _ended_by(self, message: Message, *, late: bool) -> None:
        closing = read_close(
            message.get("code"), explained="reason" in message, lost_code=self.server.lost_code
        )
        self.disconnected(closing, time.monotonic(), late=late)
