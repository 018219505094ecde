"""What the calls of a server's ``receive`` and ``send`` show of its peer.

A server gives an application two callables for each exchange, usually methods of one object. What
comes out of their own code comes out of the exchange's connection. And the time that a call takes,
with the size of what was sent, says how much of the response the server may still hold.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Final

from cleanclose.core.blame.provenance import (
    behind,
    is_closed_handle,
    passed_methods,
    was_inside,
)
from cleanclose.core.server import UNKNOWN, Server

__all__ = ["LastPiece", "Shows", "held_after", "is_aftermath_of", "is_late", "raised_by_calls"]

_HIGH_WATER: Final = 64 * 1024
"""Bytes that a transport takes before a writer has to wait (asyncio's ``FlowControlMixin``)."""

_AT_ONCE: Final = 0.0005
"""Seconds in which a call returns that has nothing to wait for."""

Call = Callable[..., Any]


def is_late(asked: float, now: float) -> bool:
    """Whether what a call has brought had been there for longer, because it came at once.

    Args:
        asked: When the call began, in seconds.
        now: When it returned, on the same clock.
    """
    return now - asked < _AT_ONCE


class LastPiece(enum.Enum):
    """When the last piece of a response makes it complete for the watch."""

    WHEN_HANDED_OVER = "before the server's send: what it tells from then on is no departure"
    IN_TWO_STEPS = "the same behind its bytes, which may take longer: its end is a piece of its own"
    WHEN_SENT = "when the server's send has returned"


class Shows(enum.Enum):
    """What the object behind a server's ``receive`` shows of a departure."""

    NOTHING = "nothing: only a call of it can tell"
    MESSAGES = "the messages to come, among them one that says so; it comes behind every end, too"
    STATE = "its state, whose change behind the response's end means nothing"
    SETTLED = "its state, which stays as it is behind the response's end"

    def counts(self, *, complete: bool) -> bool:
        """Whether it is a sign at this moment.

        Args:
            complete: Whether the response is complete.
        """
        return self is Shows.SETTLED or (self is not Shows.NOTHING and not complete)

    @property
    def waits(self) -> bool:
        """Whether the server's ``send`` may wait until it has written.

        A server whose state is settled takes a piece at once, and waits in its next ``send``.
        """
        return self is not Shows.SETTLED

    @property
    def watches_each_piece(self) -> bool:
        """Whether somebody has to look again when a response's only piece has been sent."""
        return self in (Shows.MESSAGES, Shows.STATE)

    def last_piece(self, size: int, *, streaming: bool) -> LastPiece:
        """When the last piece of a response makes it complete.

        Args:
            size: The piece's bytes.
            streaming: Whether there was a piece before, or the response is watched as if there was.
        """
        if self in (Shows.STATE, Shows.SETTLED):
            return LastPiece.WHEN_SENT
        if self is Shows.MESSAGES and streaming and size >= _HIGH_WATER:
            return LastPiece.IN_TWO_STEPS
        return LastPiece.WHEN_HANDED_OVER


def held_after(size: int, *, waits: bool) -> int:
    """How many bytes of a piece a server may still hold when its ``send`` has returned.

    Args:
        size: The piece's bytes.
        waits: As of `Shows.waits`.
    """
    return 0 if waits or size <= _HIGH_WATER else size


def raised_by_calls(
    error: BaseException, server: Server, calls: Sequence[Call], names: Container[str]
) -> Iterator[BaseException]:
    """An error that came out of a server's own code, at work for this exchange; and its causes.

    The causes are what the server was handling when it raised that one: the websockets library's
    ``drain()`` catches its own ConnectionResetError, and raises ConnectionClosedError. What the
    application was handling is not among these.

    Args:
        error: What somebody has raised.
        server: The server. Instead of an unknown one something may stand around us, and its own
            connections pass its callables as well.
        calls: The server's callables.
        names: The names of their methods: one of them is enough, found by its object.

    Yields:
        Nothing if it came from somewhere else.
    """
    # uvloop raises a RuntimeError for a write to a connection that is lost.
    if server is UNKNOWN or not (isinstance(error, OSError) or is_closed_handle(error)):
        return
    owners = [getattr(call, "__self__", None) for call in calls]
    if passed_methods(error, names, [owner for owner in owners if owner is not None]):
        yield error
        for each in behind(error):
            if isinstance(each, Exception) and any(was_inside(each, call) for call in calls):
                yield each


def is_aftermath_of(error: BaseException, call: Call) -> bool:
    """Whether an error is a server's own trouble with a lost connection, and nobody else's.

    Args:
        error: The error.
        call: The server's ``send`` for that connection.
    """
    if not isinstance(error, ConnectionError) and not is_closed_handle(error):
        return False
    if error.__cause__ is not None or error.__context__ is not None:
        return False
    return was_inside(error, call)
