"""The only exception that this project raises in an application."""

from __future__ import annotations

import errno

__all__ = ["TruncatedBodyError"]


class TruncatedBodyError(ConnectionResetError):
    """The client left before it had sent all of its request's body.

    The read that meets the early end raises it, where a server hands over a part of a body as if it
    were the whole. It is an OSError, so that frameworks treat it like any client that is gone.

    Args:
        received: Bytes of the body that have come.
        expected: The body's declared length.
    """

    def __init__(self, received: int, expected: int) -> None:
        super().__init__(
            errno.ECONNRESET,
            f"the client left after {received} of the {expected} bytes of its request's body",
        )
        self.received = received
        self.expected = expected

    def __reduce__(self) -> tuple[type[TruncatedBodyError], tuple[int, int]]:
        return type(self), (self.received, self.expected)
