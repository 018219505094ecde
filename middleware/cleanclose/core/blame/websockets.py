"""One websocket's end: a closing handshake is no departure, but its exceptions are the peer's."""

from __future__ import annotations

from typing import Final, NamedTuple

from cleanclose.core.blame.judge import judge
from cleanclose.core.blame.watch import OPEN, Watch
from cleanclose.core.conduct import End
from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness

__all__ = ["Closing", "WebSocketEnd", "read_close"]

_ABNORMAL: Final = 1006
"""RFC 6455, section 7.4.1: no close frame has come."""
_SERVICE_RESTART: Final = 1012
"""IANA's registry of close codes: the server's own word when it stops."""
_GOODBYE: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.WEBSOCKET,
    mechanism=Mechanism.EOF,
    witnesses=(Witness.RECEIVE,),
)


class Closing(NamedTuple):
    """What the code of a websocket's end says.

    Args:
        in_order: Whether a closing handshake took place: nobody left without a word.
        stopping: Whether it was the server's doing, because it stops.
    """

    in_order: bool
    stopping: bool = False


def read_close(code: int | None, *, explained: bool, lost_code: int) -> Closing:
    """What the code of a websocket's end says.

    Args:
        code: The code; None if the server gives none.
        explained: Whether a reason came with it, so that a close frame has come.
        lost_code: The code that the server gives for a lost connection, without a reason
            (`cleanclose.core.server.Server.lost_code`).
    """
    if code is None or code == _ABNORMAL:
        return Closing(in_order=False)
    if code == _SERVICE_RESTART:
        return Closing(in_order=False, stopping=not explained)
    return Closing(in_order=explained or code != lost_code)


class WebSocketEnd(Watch):
    """The end of one websocket, for a shim's own watch to build on."""

    __slots__ = ()

    is_websocket = True
    _said_goodbye: bool = False

    def disconnected(self, closing: Closing, now: float, *, late: bool) -> None:
        """The server reports the websocket's end.

        Args:
            closing: What its code says.
            now: The time.
            late: As of `Watch.peer_gone`.
        """
        if closing.stopping:
            self.stopping = True
        if closing.in_order:
            self._said_goodbye = self.progress == OPEN
            self.response_completed()
            if self._said_goodbye and self.stops is not None:
                self.stops.peer_left()
        self.peer_gone(Witness.RECEIVE, now, late=late)

    def judge(self, error: BaseException) -> Verdict:
        """Whose fault an exception of this exchange is."""
        verdict = super().judge(error)
        if verdict.side is Side.CLIENT or not self._said_goodbye or self.ended:
            return verdict
        # It left in good order, which is no departure. But the exception by which a framework says
        # so is still the client's.
        goodbye = judge(error, _GOODBYE, Phase.WEBSOCKET, self.key)
        return goodbye if goodbye.side is Side.CLIENT else verdict

    def may_stop(self) -> bool:
        """Whether the work may be stopped: as of `Watch`, and after a goodbye.

        That is no departure, but nobody is left to work for.
        """
        return self._said_goodbye or super().may_stop()

    def app_ended(self, now: float, error: BaseException | None = None) -> End:
        """The application has returned or raised: as of `Watch`."""
        if error is not None and self.departure is None and self.judge(error) == _GOODBYE:
            # The application did not expect it: somebody has to report it.
            self.peer_gone(Witness.RECEIVE, now, mechanism=Mechanism.EOF, late=True, unsent=True)
        return super().app_ended(now, error)
