"""Whose doing it was that a connection was closed, and what that says of its exchange.

For interfaces that show the closing itself (Tornado's stream): who called it is the only witness
that there is. A stream closes by itself for what its socket said, and for limits of its own; a
server closes when it stops or has waited long enough; all else is the application's doing.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness

__all__ = ["Closed", "Closer", "idle_verdict", "left_by", "read_closing"]


class Closer(enum.Enum):
    """Who has closed a connection."""

    UNSEEN = "Python does not tell"
    STREAM = "the stream itself"
    SERVER = "the server, which stops or has waited long enough"
    APPLICATION = "somebody else, whose connection it is as well"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """What a closing says of the exchange.

    Args:
        completed: Whether the response counts as complete.
        witness: Where the peer's departure was seen; None if it is no sign of one.
        mechanism: How the peer left; None for what the error says.
        error: What came out of the connection, if something did.
        stopping: Whether it was the server's doing.
        idle: Whether the exchange was over: no departure, but the error is the peer's.
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
    """What a closing says of the exchange on that connection.

    Args:
        closer: Who has closed it.
        error: The error that the stream keeps; None if it has met none. What is no `OSError` is a
            limit of the stream's own.
        whole: Whether the response was complete, with nothing left to write.
        said_goodbye: Whether the application had ended the exchange in good order, and only the
            peer's word for it was missing (a websocket's close frame).
        mechanism: How the server cut the peer off, if it was the server.
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
    """How the peer has left, if that is why the connection was closed.

    Args:
        closer: Who has closed it.
        error: The error that the stream keeps; None if it has met none.
    """
    if closer is not Closer.STREAM:
        return None
    if error is None:
        return Mechanism.EOF
    return Mechanism.of(error) if isinstance(error, OSError) else None


def idle_verdict(error: OSError) -> Verdict:
    """Whose an error is that ended a connection between two exchanges."""
    return Verdict(
        side=Side.CLIENT,
        phase=Phase.KEEPALIVE_IDLE,
        mechanism=Mechanism.of(error),
        witnesses=(Witness.STREAM,),
    )
