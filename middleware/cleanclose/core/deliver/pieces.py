"""Which pieces of a response may wait until it is known whether more will follow.

On a blocking server a response comes in pieces that the server asks for. A piece that may be the
last waits until the application has said whether it is: so the whole response can be kept back
while the body is drained. It must not wait where the application may be at work for long, or where
it has nothing to say yet.
"""

from __future__ import annotations

import enum
from typing import Final

from cleanclose.core.server import Server

__all__ = ["SMALL_RESPONSE", "Source", "Taking", "may_block", "may_wait", "taking_of"]

SMALL_RESPONSE: Final = 64 * 1024
"""Bytes of a response that fit into the socket buffers of a client that is not reading yet. A
server that sends more may wait for a client that waits for the server to read."""


class Source(enum.Enum):
    """What makes the pieces of a response."""

    THERE = "they exist already, all of them"
    FILE = "the server's own wrapper, which reads a file: nobody reads the request's body meanwhile"
    GENERATOR = "a generator, which may work for any time after its last piece"
    ITERATOR = "any other iterator"


class Taking(enum.Enum):
    """How the pieces of a response are taken while its request's body is incomplete."""

    ONE_BY_ONE = "each may be the last, or the beginning of the response"
    ALL = "all at once: with them the response is complete"
    BY_SERVER = "the server sends them by itself: the response is complete at its declared length"


def taking_of(source: Source, *, begun: bool) -> Taking:
    """How the pieces of a response are taken.

    Args:
        source: What makes them.
        begun: Whether the response has begun. An application may begin it with the first piece.
    """
    if not begun:
        return Taking.ONE_BY_ONE
    return {Source.FILE: Taking.BY_SERVER, Source.THERE: Taking.ALL}.get(source, Taking.ONE_BY_ONE)


def may_wait(source: Source, size: int, server: Server) -> bool:
    """Whether a piece may wait until the next one is asked for.

    Args:
        source: What makes the pieces.
        size: The piece's length in bytes. An empty one may mean that the application has nothing
            to say yet.
        server: The server.
    """
    if source is Source.GENERATOR:
        return False
    return size > 0 or source is Source.THERE or server.ends_with_response


def may_block(unsent: int | None) -> bool:
    """Whether a server may wait for a client that waits for it, while it sends a response.

    Args:
        unsent: How many bytes it has still to send; None if nobody knows.
    """
    return unsent is None or unsent > SMALL_RESPONSE
