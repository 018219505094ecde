"""What the draining of one body brings where a reading may wait for it, told to its exchange.

On a blocking server a reading returns when everything that it asked for is there. Until then only
the socket below shows what has come; so bytes are counted when they come, and not again when the
reading returns with them. In chunks a reading alone shows what is the body's and what is framing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.table import Step
from cleanclose.core.events import Mechanism

__all__ = ["Drained", "Draining", "tell_reading"]

UNTOLD: Final = 64 * 1024
"""Bytes of one chunk that may come before they are counted: it may be endless."""


class Drained(Protocol):
    """Learns what a drain brings, and says how it goes on."""

    @property
    def left(self) -> int | None:
        """Bytes of the body that are still to come; None if only its end tells its length."""
        ...

    def step(self) -> Step:
        """The next step."""
        ...

    def came(self, size: int) -> Step:
        """So many bytes have come from the client, and no reading has returned with them yet."""
        ...

    def drained(self, size: int, *, at_end: bool) -> Step:
        """A reading has returned with so many bytes; ``at_end`` if it found the stream's end."""
        ...

    def nothing_came(self) -> Step:
        """The time is over."""
        ...


class Draining:
    """One drain.

    Args:
        exchange: The exchange whose body is drained.
        left: Bytes of the body that are still to come; None if only its end tells its length.
        clock: The exchange's clock, in seconds.
    """

    def __init__(self, exchange: Exchange, left: int | None, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._left = left
        self._untold = 0
        # Told before a reading has returned with them.
        self._ahead = 0
        self._came = 0
        self._read = 0

    @property
    def left(self) -> int | None:
        """Bytes of the body that no reading has returned with; None if only its end tells."""
        return self._left

    def step(self) -> Step:
        """The next step."""
        return self._exchange.tick(self._clock())

    def came(self, size: int) -> Step:
        """So many bytes have come, and no reading has returned with them yet."""
        self._untold += size
        self._came += size
        # In chunks, only a read shows what is framing; but one chunk may be endless.
        if self._left is not None:
            return self._tell()
        if self._untold >= UNTOLD:
            self._tell()
        return self._exchange.on_wire(self._came, self._read, self._clock())

    def drained(self, size: int, *, at_end: bool) -> Step:
        """A reading has returned with so many bytes; ``at_end`` if it found the stream's end."""
        new = max(0, size - self._ahead)
        self._ahead = max(0, self._ahead - size)
        self._untold = 0
        self._read += size
        if self._left is None:
            complete = at_end
        else:
            self._left -= size
            complete = self._left <= 0
        return tell_reading(
            self._exchange, new, at_end=at_end, complete=complete, now=self._clock()
        )

    def nothing_came(self) -> Step:
        """The time is over."""
        self._tell()
        return self._exchange.nothing_came(self._clock())

    def _tell(self) -> Step:
        """Count what has come, though its reading may never return."""
        size, self._untold = self._untold, 0
        self._ahead += size
        return self._exchange.body_received(size, False, self._clock())


def tell_reading(
    exchange: Exchange, size: int, *, at_end: bool, complete: bool, now: float
) -> Step:
    """A reading of the body has returned.

    Args:
        exchange: The exchange.
        size: How many bytes it brought.
        at_end: Whether it found the stream's end.
        complete: Whether the body is complete with it. A stream that ends before is that of a peer
            whose half of the connection is closed.
        now: The time.
    """
    step = exchange.body_received(size, complete, now)
    return exchange.peer_gone(Mechanism.EOF, now) if at_end and not complete else step
