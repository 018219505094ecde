"""The end of an exchange: what happens to the application's exception, and what is reported.

Two tables. The first says what the server would do with an exception by itself. The second says,
from that and from whose fault the exception is, what a shim does instead:

- The peer's exception ends here: nobody is left to answer, and the departure is the event.
- An upstream's exception is an event. If the server takes it for its client's, or would not answer
  it, the shim restores it: it answers with a 500 if no response has begun.
- Any other exception goes to the server, unless the server would hide it: then the shim restores it
  too.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from cleanclose.core.events import Event, Mechanism, Side, Verdict
from cleanclose.core.server import Server

__all__ = [
    "CONDUCT",
    "CUT_SHORT",
    "TOO_LARGE",
    "Answer",
    "Conduct",
    "End",
    "Treatment",
    "answer_of",
    "asgi_treatment",
    "breaks_off",
    "ends_quietly",
    "is_lost_midway",
    "is_unanswered",
    "wsgi_treatment",
]


class Treatment(enum.Enum):
    """What a server does with an exception that it sees."""

    SHOWN = "the server logs it, and answers 500"
    HIDDEN = "the server takes it for its client's: it says nothing of it, and sends no 500"
    UNANSWERED = "the server logs it, and sends no 500"
    UNCERTAIN = "a server that we do not know may hide it"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conduct:
    """What becomes of an exception of the application.

    Args:
        quiet: Whether it ends here, because it only says that the peer had left.
        told: Whether it is an event, `cleanclose.core.UpstreamReset`.
        restored: Whether the server would have hidden it, so that only the event reports it.
        status: What to answer in the server's place, if it is not too late; None if the answer
            is the server's.
    """

    quiet: bool = False
    told: bool = False
    restored: bool = False
    status: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """What follows from the end of an exchange.

    Args:
        events: The events, in this order: the outcome of an early response, an upstream's reset, a
            departure. A departure that an early response's event covers has none of its own.
        conduct: What happens to the application's exception.
        error: That exception, or the application's own if the client's had hidden it.
    """

    events: tuple[Event, ...]
    conduct: Conduct
    error: BaseException | None = None


CUT_SHORT: Final = 400
"""The status for a client that has not sent all of its body, and which nobody reads."""
TOO_LARGE: Final = 413
"""The status for a body above a limit."""

_QUIET: Final = Conduct(quiet=True, status=CUT_SHORT)
_SEEN: Final = Conduct()
_TOLD: Final = Conduct(told=True)
_RESTORED: Final = Conduct(told=True, restored=True, status=500)
# It is raised anyway. Two reports are better than none.
_TOLD_TOO: Final = Conduct(told=True, restored=True)

CONDUCT: Final[Mapping[tuple[Side, Treatment], Conduct]] = {
    **{(side, each): _QUIET for side in (Side.CLIENT, Side.SERVER) for each in Treatment},
    (Side.UPSTREAM, Treatment.SHOWN): _TOLD,
    (Side.UPSTREAM, Treatment.HIDDEN): _RESTORED,
    (Side.UPSTREAM, Treatment.UNANSWERED): _RESTORED,
    (Side.UPSTREAM, Treatment.UNCERTAIN): _TOLD_TOO,
    (Side.UNKNOWN, Treatment.SHOWN): _SEEN,
    (Side.UNKNOWN, Treatment.HIDDEN): _RESTORED,
    (Side.UNKNOWN, Treatment.UNANSWERED): _SEEN,
    (Side.UNKNOWN, Treatment.UNCERTAIN): _SEEN,
}
"""By the verdict's side and the server's treatment; no row is missing."""


def wsgi_treatment(
    server: Server | None, error: BaseException, *, answerable: bool, lost: bool
) -> Treatment:
    """What a WSGI server does with an exception.

    Args:
        server: The server that calls us; None if nobody knows what it hides.
        error: The exception.
        answerable: Whether an answer is still possible. It is not after the response.
        lost: Whether nothing more of a response that has begun can be written.
    """
    if lost and server is not None and server.masks:
        return Treatment.HIDDEN
    if not isinstance(error, OSError):
        return Treatment.SHOWN
    if server is None or server.hides is None:
        return Treatment.UNCERTAIN
    if server.hides(error):
        return Treatment.HIDDEN
    return Treatment.SHOWN if server.answers or not answerable else Treatment.UNANSWERED


def asgi_treatment(
    server: Server, error: BaseException, side: Side, *, complete: bool
) -> Treatment:
    """What an ASGI server does with an exception.

    Args:
        server: The server.
        error: The exception.
        side: Whose it is.
        complete: Whether it came after a complete response.
    """
    # Nobody else would report a broken connection.
    broke = isinstance(error, OSError) or side is Side.UPSTREAM
    return Treatment.HIDDEN if complete and server.hides_after_end and broke else Treatment.SHOWN


def is_unanswered(
    error: BaseException, *, begun: bool, body_complete: bool, stopped: bool = False
) -> bool:
    """Whether somebody must still answer for an application that failed during an upload.

    That answer is an early one: it has to be delivered as the application's own would be.

    Args:
        error: What the application has raised.
        begun: Whether its response has begun.
        body_complete: Whether nothing of the request's body is still to come.
        stopped: Whether the work was stopped because nobody waits for it.
    """
    return isinstance(error, Exception) and not (begun or body_complete or stopped)


def is_lost_midway(departure: Verdict | None, *, begun: bool, closing: bool) -> bool:
    """Whether a server can write nothing more of a response that has begun.

    Args:
        departure: How the peer has left; None if it has not.
        begun: Whether the response has begun.
        closing: Whether the server is closing it already, and writes no more anyway.
    """
    if departure is None or closing or not begun:
        return False
    # A peer that has only ended its sending goes on reading.
    return departure.mechanism is not Mechanism.EOF


def ends_quietly(conduct: Conduct, *, begun: bool, wants_answer: bool) -> bool:
    """Whether an application's exception ends in the shim, and the exchange without an answer.

    Args:
        conduct: What becomes of the exception.
        begun: Whether the response has begun.
        wants_answer: Whether whoever has called the application takes an end without any response
            for an error of the application's.
    """
    return conduct.quiet and (begun or not wants_answer)


Answer = tuple[str, list[tuple[str, str]], bytes]
"""An answer of our own: its status line, its headers, and its body."""

_ANSWERS: Final[Mapping[int, tuple[str, bytes]]] = {
    CUT_SHORT: ("400 Bad Request", b""),
    # Python's table has another phrase since 3.13.
    TOO_LARGE: ("413 Request Entity Too Large", b"413: Request Entity Too Large\n"),
    500: ("500 Internal Server Error", b"Internal Server Error\n"),
}


def answer_of(status: int, *, alone: bool = True) -> Answer:
    """An answer of our own.

    Args:
        status: The status that a `Conduct` names, `CUT_SHORT` or `TOO_LARGE`.
        alone: Whether its body is all that the server has to send. If the server has got pieces of
            another response before, it may send them behind this head: so that names no length.
    """
    line, body = _ANSWERS[status]
    length = [("Content-Length", str(len(body)))] if alone else []
    return line, [("Content-Type", "text/plain"), *length], body


def breaks_off(error: BaseException, conduct: Conduct, server: Server) -> bool:
    """Whether a response whose head is out ends with a broken pipe, in place of an error.

    Only an error of the connection's, or the server's own, ends it quietly by itself: the server
    knows best how to handle its own file.

    Args:
        error: The application's exception.
        conduct: What becomes of it.
        server: The server.
    """
    is_servers = type(error).__module__.partition(".")[0] == server.name
    return not (conduct.quiet and (is_servers or isinstance(error, OSError)))
