"""Who closed a connection, and what that means for its exchange.

This is for interfaces that show the closing itself (Tornado's stream): the caller of `close` is the
only witness there. A stream closes itself for an error of its socket and at its own limits; a
server closes it when it stops or has waited long enough; every other close is the application's.

`ClosingWatch` is the watch of such an exchange: it draws these conclusions, and reports the end.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.watch import COMPLETE, Watch, current
from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.setup import Setup

__all__ = ["Closed", "Closer", "ClosingWatch", "idle_verdict", "left_by", "read_closing"]

_SWITCHING_PROTOCOLS: Final = 101


class Closer(enum.Enum):
    """Who closed a connection."""

    UNSEEN = "Python does not tell"
    STREAM = "the stream itself"
    SERVER = "the server, which stops or has waited long enough"
    APPLICATION = "somebody else, whose connection it is as well"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """What a closing means for the exchange.

    Args:
        completed: Whether the response counts as complete.
        witness: Where the peer's departure was seen; None if the closing shows no departure.
        mechanism: How the peer left; None if the error says it.
        error: The error that came out of the connection, if any.
        stopping: Whether the server closed it.
        idle: Whether the exchange was over: then nobody departed, but the error is the peer's.
    """

    completed: bool = False
    witness: Witness | None = None
    mechanism: Mechanism | None = None
    error: OSError | None = None
    stopping: bool = False
    idle: bool = False


_NO_SIGN: Final = Closed()
_UNSEEN: Final = Closed(completed=True)


def read_closing(
    closer: Closer,
    error: object,
    *,
    whole: bool,
    said_goodbye: bool,
    mechanism: Mechanism | None,
) -> Closed:
    """Work out what a closing means for the exchange on that connection.

    Args:
        closer: Who closed it.
        error: The error that the stream keeps; None if it met none. An error that is not an
            `OSError` comes from one of the stream's own limits.
        whole: Whether the response was complete, with nothing left to write.
        said_goodbye: Whether the application had ended the exchange in good order, and only the
            peer's answer was missing (a websocket's close frame).
        mechanism: How the server cut the peer off, if the server did.
    """
    match closer:
        case Closer.UNSEEN:
            return _UNSEEN
        case Closer.SERVER:
            return Closed(witness=Witness.SERVER, mechanism=mechanism, stopping=True)
        case Closer.APPLICATION:
            return _NO_SIGN
        case Closer.STREAM:
            pass
    if error is None:
        return Closed(completed=said_goodbye, witness=Witness.STREAM, mechanism=Mechanism.EOF)
    if not isinstance(error, OSError):
        return Closed(completed=said_goodbye)
    if whole:
        return Closed(completed=said_goodbye, error=error, idle=True)
    return Closed(completed=said_goodbye, witness=Witness.STREAM, error=error)


def left_by(closer: Closer, error: object) -> Mechanism | None:
    """Work out how the peer left, if the connection was closed for that.

    Args:
        closer: Who closed it.
        error: The error that the stream keeps; None if it met none.
    """
    if closer is not Closer.STREAM:
        return None
    if error is None:
        return Mechanism.EOF
    return Mechanism.of(error) if isinstance(error, OSError) else None


def idle_verdict(error: OSError) -> Verdict:
    """Judge an error that ended a connection between two exchanges."""
    return Verdict(
        side=Side.CLIENT,
        phase=Phase.KEEPALIVE_IDLE,
        mechanism=Mechanism.of(error),
        witnesses=(Witness.STREAM,),
    )


class ClosingWatch(Watch):
    """One exchange on an interface that shows the closing of its connection.

    Nobody sees the application return or raise: its response's end is the end of the exchange, or
    the connection's is.
    """

    __slots__ = ("setup",)

    setup: Setup
    """Whose reporter gets the events."""
    _status: int | None = None
    _failed_in: Phase | None = None
    """How far it had come when the application failed: the server's error page does not count."""
    _has_ended: bool = False

    @property
    def status(self) -> int | None:
        """The response's status, once the application has begun to respond."""
        return self._status

    @property
    def phase(self) -> Phase:
        """How far the exchange has come."""
        return self._failed_in or super().phase

    def response_begins(self, status: int, *, failed: bool) -> None:
        """The response's head comes.

        Args:
            status: Its status.
            failed: Whether the server answers in the place of an application that has failed.
        """
        if failed:
            self._failed_in = super().phase
        if self.is_websocket and status != _SWITCHING_PROTOCOLS and self.departure is None:
            # A request for an upgrade that got a plain answer.
            self.is_websocket = False
        self._status = status

    def response_over(self, now: float, error: BaseException | None) -> None:
        """The application has said that its response is over, or the server in its place.

        Args:
            now: The time.
            error: The application's error that the server answers, if any.
        """
        if self.ended or self._status == _SWITCHING_PROTOCOLS:
            return
        self.response_completed()
        if self.is_sample:
            # An early response is over twice: for the application, and on the wire.
            self.is_sample = False
            self.setup.reporter.request_over(self)
        # If there is nothing to say yet, the connection's end may still find bytes unsent.
        if error is not None or self.progress != COMPLETE:
            self.end(now, error)

    def end(self, now: float, error: BaseException | None = None) -> None:
        """The exchange is over. What there is to say is said once.

        Args:
            now: The time.
            error: The application's error that the server has logged, if any.
        """
        if self.ended or self._has_ended:
            return
        self._has_ended = True
        self.setup.reporter.app_ended(self, now, error)
        # A websocket's handler goes on when its peer has left, and may ask whether it has.
        self.ended: bool = not self.is_websocket

    def taken_over(self, now: float) -> None:
        """The application has taken the connection over, for a protocol that only it knows.

        Args:
            now: The time.
        """
        if self.departure is None:
            self.response_completed()
        self.end(now)

    def connection_closed(
        self,
        closer: Closer,
        error: object,
        now: float,
        *,
        mechanism: Mechanism | None,
        unsent: bool,
        none_sent: bool,
        said_goodbye: bool | None,
    ) -> None:
        """The connection has been closed.

        Args:
            closer: Who has closed it.
            error: The error that the stream keeps; None if it has met none.
            now: The time.
            mechanism: How the server cut the peer off, if it was the server.
            unsent: Whether there was something left to write.
            none_sent: Whether nothing of the response has left, although it had begun.
            said_goodbye: As `read_closing`'s, for an open websocket; None for any other exchange.
        """
        if self.ended:
            return
        finished = self.progress == COMPLETE
        if unsent:
            # The peer has not received all of it.
            self.in_flight: int = self.bytes_out + 1
            self.response_failed()
        closed = read_closing(
            closer,
            error,
            whole=finished and not unsent,
            said_goodbye=bool(said_goodbye),
            mechanism=mechanism,
        )
        status = self._status
        if none_sent:
            # The peer was gone before the response began.
            self._status = None
            self.bytes_out: int = 0
        self._conclude(closed, now)
        self._status = status
        if said_goodbye is not None or (finished and self.departure is not None):
            self.end(now)

    def websocket_call_failed(
        self, error: BaseException, lost: BaseException | None, now: float
    ) -> None:
        """The application's own call on its websocket has raised.

        Args:
            error: What it raised, since the websocket is closed.
            lost: What the connection has raised, if that is why.
            now: The time.
        """
        # Elsewhere (in another client's handler, in a task that serves all clients) it is that
        # code's own error, whose remaining work has not been done.
        if self.departure is None or current() is not self:
            return
        if lost is not None:
            self.peer_gone(Witness.WRITE, now, lost)
        self.peer_gone(Witness.WRITE, now, error)

    def callback_failed(self, error: BaseException | None, now: float) -> None:
        """The server logs what one of the application's callbacks has raised, and nothing more.

        It may be long after the peer has left.

        Args:
            error: What the callback has raised.
            now: The time.
        """
        if not isinstance(error, Exception):
            return
        # The server does not look while a callback runs.
        self.ask()
        verdict = self.judge(error)
        if verdict.side is Side.UPSTREAM:
            self.setup.reporter.report(self.upstream_reset(error, verdict, now))

    def _conclude(self, closed: Closed, now: float) -> None:
        if closed.completed:
            self.response_completed()
        if closed.stopping:
            self.stopping = True
        if closed.idle and closed.error is not None:
            # The server may log it, and it is certainly the peer's.
            mark(closed.error, idle_verdict(closed.error))
        elif closed.witness is not None:
            self.peer_gone(closed.witness, now, closed.error, closed.mechanism)
