"""One websocket's callables, which report to the core what passes through them."""

from __future__ import annotations

import time
from typing import Final, cast

from cleanclose.asgi._messages import Message
from cleanclose.asgi._probe import probe_of
from cleanclose.asgi._witness import AsgiWatch
from cleanclose.core import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.blame.judge import judge
from cleanclose.core.blame.watch import OPEN
from cleanclose.core.conduct import End

__all__ = ["WebSocketWatch"]

_SERVICE_RESTART: Final = 1012
_ABNORMAL: Final = 1006


class WebSocketWatch(AsgiWatch):
    """One websocket's ``receive`` and ``send``."""

    __slots__ = ()

    is_websocket = True
    _said_goodbye = False

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        message = await self.server_receive()
        if message["type"] == "websocket.disconnect":
            self._disconnected(message, late=False)
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
        if self.progress != OPEN:
            return
        probe = probe_of(self.server_receive)
        if probe is None:
            return
        found = probe.gone(self.server_receive)
        if probe.is_queue and found:
            self._disconnected(cast("Message", found), late=True)
        elif found:
            self.peer_gone(probe.witness, time.monotonic(), late=True)

    def judge(self, error: BaseException) -> Verdict:
        verdict = super().judge(error)
        if verdict.side is Side.CLIENT or not self._said_goodbye or self.ended:
            return verdict
        # It left in good order, which is no departure. But the exception by which a framework says
        # so is still the client's.
        goodbye = judge(error, _GOODBYE, Phase.WEBSOCKET, self.key)
        return goodbye if goodbye.side is Side.CLIENT else verdict

    def may_stop(self) -> bool:
        # A goodbye is no departure, but nobody is left to work for.
        return self._said_goodbye or super().may_stop()

    def app_ended(self, now: float, error: BaseException | None = None) -> End:
        if error is not None and self.departure is None and self.judge(error) == _GOODBYE:
            # The application did not expect it: somebody has to report it.
            self.response_failed()
            self.peer_gone(Witness.RECEIVE, now, mechanism=Mechanism.EOF, late=True)
        return super().app_ended(now, error)

    def _disconnected(self, message: Message, *, late: bool) -> None:
        code = message.get("code", _ABNORMAL)
        if "reason" not in message:
            if code == _SERVICE_RESTART:
                # IANA's registry of close codes: the server's own word when it stops.
                self.stopping = True
            elif code == self.server.lost_code:
                code = _ABNORMAL
        if code not in (_ABNORMAL, _SERVICE_RESTART):
            # A closing handshake took place: nobody left without a word.
            self._said_goodbye = self.progress == OPEN
            self.response_completed()
            if self._said_goodbye and self.stops is not None:
                self.stops.peer_left()
        self.peer_gone(Witness.RECEIVE, time.monotonic(), late=late)


_GOODBYE: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.WEBSOCKET,
    mechanism=Mechanism.EOF,
    witnesses=(Witness.RECEIVE,),
)
