"""Who closed a connection, and what that means for its exchange.

This is for interfaces that show the closing itself (Tornado's stream): the caller of `close` is the
only witness there. A stream closes itself for an error of its socket and at its own limits; a
server closes it when it stops or has waited long enough; every other close is the application's.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness

__all__ = ["Closed", "Closer", "idle_verdict", "left_by", "read_closing"]


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
