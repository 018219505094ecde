"""How much of a request's body is taken: a server's own limit, answered like any early response."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cleanclose.core.deliver.framing import CHUNKED

__all__ = ["LimitedBody"]


class LimitedBody:
    """A body of which only so much is taken. The application may move the limit until it comes.

    Whoever holds what is known of the body is one: an object of its own would cost every request
    that has one.
    """

    if not TYPE_CHECKING:
        # Whoever is one has slots for both.
        __slots__ = ()

    length: int
    """The body's length, or `cleanclose.core.deliver.framing.CHUNKED`."""
    most: int
    """How many bytes of it are taken; of a chunked one, how many of those that are still to come.
    """

    @property
    def servers_own(self) -> int:
        """What the server's own limit has to be, whose answer is a bare one.

        A chunked body is counted here instead.
        """
        return sys.maxsize if self.length == CHUNKED else self.most

    def is_too_long(self) -> bool:
        """Whether the declared length is above it, so that the body need not come at all."""
        return self.length > self.most

    def passes(self, size: int) -> bool:
        """Whether a chunked body passes it with a piece that has come.

        Args:
            size: The piece's length in bytes. A body with a declared length has been compared.
        """
        if self.length != CHUNKED:
            return False
        self.most -= size
        return self.most < 0
