"""Drain and respond, as a table: the states, the happenings, and the steps that a shim takes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

__all__ = [
    "TRANSITIONS",
    "Done",
    "Forward",
    "Happening",
    "Keep",
    "Read",
    "Respond",
    "State",
    "Step",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """Send what is kept back, and pass on whatever the application and the server say."""


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Keep back what the application has sent so far, until it has had its next turn.

    If by then it does anything but send more, call `Exchange.turn_over`.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read and discard a piece of the body, waiting for it ``at_most_seconds``.

    With 0, read only what has arrived. If nothing comes, call `Exchange.nothing_came`.
    """

    at_most_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Respond:
    """Send all that is kept back, including the response's end; then call `Exchange.responded`.

    Args:
        close: Whether the connection must not be used again. If so, say it to the server, and in
            the head if that is still kept back.
        linger: Whether to hand the connection to the lingerer, with `Exchange.linger`.
        in_one_piece: Whether the body must be one message.
    """

    close: bool
    linger: bool
    in_one_piece: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """Send all that is kept back, including the response's end; nothing else is left to do.

    Args:
        in_one_piece: Whether the body must be one message.
    """

    in_one_piece: bool = False


Step = Forward | Keep | Read | Respond | Done


class State(enum.Enum):
    """Where an exchange stands."""

    if not TYPE_CHECKING:
        # Enum's is written in Python, and each step looks two members up.
        __hash__ = object.__hash__

    OPEN = "the application has the request and has not begun to respond"
    KEPT = "the response has begun and is kept back until the application has had its next turn"
    STREAMING = "the response goes out as the application makes it"
    DRAINING = "the response is complete, or somebody else will make it; the body is discarded"
    RESPONDING = "what is kept back goes out, and the connection is not used again"
    DONE = "over"


class Happening(enum.Enum):
    """What can happen to an exchange."""

    if not TYPE_CHECKING:
        # Enum's is written in Python, and each step looks two members up.
        __hash__ = object.__hash__

    APP_READ = "the application asks for more of the body"
    HEAD = "the application sent the response's head"
    HEAD_LEFT_ALONE = "the same, and nothing is to be done about this response"
    PIECE = "the application sent a piece of the response, not the last"
    PIECE_TO_KEEP = "the same, and with its last byte the body could not be read any more"
    TURN_OVER = "the application has had its turn, and the response is not complete"
    COMPLETE_DRAIN = "the response is complete, and the body is worth draining"
    COMPLETE_RESPOND = "the response is complete, and goes out at once"
    COMPLETE_LEFT_ALONE = "the response is complete, and nothing is to be done about the body"
    BODY_END = "the body has been read to its end"
    PEER_GONE = "the peer has left"
    MALFORMED = "the server cannot make out the rest of the body"
    ENOUGH = "the body has been waited for long enough, or a limit has been reached"
    RESPONDED = "what was kept back has been sent"
    APP_END = "the application has returned or raised"
    ABANDONED = "the exchange cannot go on: cancelled, or the server is stopping"


_S, _H = State, Happening

TRANSITIONS: Final[Mapping[tuple[State, Happening], State]] = {
    # The application is at work. What it sends and reads keeps its order.
    (_S.OPEN, _H.HEAD): _S.KEPT,
    (_S.OPEN, _H.HEAD_LEFT_ALONE): _S.STREAMING,
    (_S.OPEN, _H.APP_END): _S.DONE,
    (_S.KEPT, _H.APP_READ): _S.STREAMING,
    (_S.KEPT, _H.PIECE): _S.STREAMING,
    (_S.KEPT, _H.TURN_OVER): _S.STREAMING,
    (_S.KEPT, _H.BODY_END): _S.STREAMING,
    (_S.KEPT, _H.PEER_GONE): _S.STREAMING,
    (_S.KEPT, _H.APP_END): _S.DONE,
    (_S.STREAMING, _H.PIECE_TO_KEEP): _S.KEPT,
    (_S.STREAMING, _H.APP_END): _S.DONE,
    # The response is complete: drain, then respond; or respond at once.
    (_S.OPEN, _H.COMPLETE_DRAIN): _S.DRAINING,
    (_S.KEPT, _H.COMPLETE_DRAIN): _S.DRAINING,
    (_S.STREAMING, _H.COMPLETE_DRAIN): _S.DRAINING,
    (_S.OPEN, _H.COMPLETE_RESPOND): _S.RESPONDING,
    (_S.KEPT, _H.COMPLETE_RESPOND): _S.RESPONDING,
    (_S.STREAMING, _H.COMPLETE_RESPOND): _S.RESPONDING,
    (_S.OPEN, _H.COMPLETE_LEFT_ALONE): _S.DONE,
    (_S.KEPT, _H.COMPLETE_LEFT_ALONE): _S.DONE,
    (_S.STREAMING, _H.COMPLETE_LEFT_ALONE): _S.DONE,
    # Drain.
    (_S.DRAINING, _H.BODY_END): _S.DONE,
    (_S.DRAINING, _H.PEER_GONE): _S.DONE,
    # The lingerer needs no framing.
    (_S.DRAINING, _H.MALFORMED): _S.RESPONDING,
    (_S.DRAINING, _H.ENOUGH): _S.RESPONDING,
    # An application that has failed still answers, from a task that it left behind.
    (_S.DRAINING, _H.HEAD): _S.DONE,
    (_S.DRAINING, _H.HEAD_LEFT_ALONE): _S.DONE,
    # Respond.
    (_S.RESPONDING, _H.RESPONDED): _S.DONE,
    # Anything kept back goes out on this path too.
    (_S.OPEN, _H.ABANDONED): _S.DONE,
    (_S.KEPT, _H.ABANDONED): _S.DONE,
    (_S.STREAMING, _H.ABANDONED): _S.DONE,
    (_S.DRAINING, _H.ABANDONED): _S.RESPONDING,
}
"""State x happening -> next state.

A pair outside the table changes nothing: bytes for the application while it works, an application
that returns while its response is being delivered, anything after the end.
"""
