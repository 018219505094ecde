"""How long a body is drained before its early response goes out, and how far that has come.

`Patience` names the ways, `patience_for` chooses one, and `Drain` keeps to it. All of it is pure:
the code that drains reports each piece.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Final

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.events import Cap
from cleanclose.core.settings import Settings

__all__ = [
    "ASK_STOPPING",
    "LOOK",
    "LOOKS_BEHIND",
    "MUCH_FRAMING",
    "SECONDS_TO_END",
    "SMALL_REMAINDER",
    "TURNS",
    "Connection",
    "Drain",
    "Patience",
    "patience_for",
    "turn_of",
]

SMALL_REMAINDER: Final = 256 * 1024
"""Bytes of a body that are worth waiting for, to keep the connection. For a larger body, discarding
it in the lingerer costs a tenth."""

SHORT_WAIT: Final = 0.5
"""Seconds to wait for a small remainder, and to read a body that arrives without a pause."""

MUCH_FRAMING: Final = 1024 * 1024
"""Bytes of a chunked body's framing, beside `FRAMING_PER_BYTE`, past which it is not drained any
further: chunk extensions can go on for ever (Go's net/http has such a limit since CVE-2023-39326).
A server may have taken that many bytes from the connection without passing on their content."""

FRAMING_PER_BYTE: Final = 8
"""Bytes of framing allowed for each byte of the body. A chunk of one byte takes five."""

RATE_GRACE: Final = 1.0
"""Seconds of draining before a body's rate so far can predict its end."""

MIN_RATE_GRACE: Final = 5.0
"""Seconds of draining before `Settings.min_rate` is checked: a new connection's first bytes say
nothing about its rate."""


TURNS: Final = 32
"""Turns of an event loop in which an application may still complete a response that it has
begun: middleware may hand each message on through a task of its own."""

LOOK: Final = 0.002
"""Seconds in which an event loop sees what has arrived."""

ASK_STOPPING: Final = 0.25
"""Seconds after which a drain asks whether the server is stopping: it must not wait for us."""


LOOKS_BEHIND: Final = 4
"""Turns of an event loop in which nearly every server has sent a response, and has closed the
connection behind it."""

SECONDS_TO_END: Final = 1.0
"""Seconds in which a response that is kept back has to go out once its task is cancelled."""


def turn_of(seconds: float) -> float:
    """For how many seconds one call of a drain on an event loop waits.

    Args:
        seconds: For how many the next piece may be waited for.
    """
    return min(seconds or LOOK, ASK_STOPPING)


class Patience(enum.Enum):
    """How long a body is drained before its response goes out."""

    NONE = "not at all: the response goes out at once"
    ARRIVED = "what has arrived, without waiting"
    SHORT = "a moment, while its end is due within that moment"
    SET = "for as long as the user has set"
    DUE = "for as long as its end is due, at its rate so far, within the limits"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What a delivery must know about the client's connection and its server.

    Args:
        address: The client's address, for its share of the places; None if it is not known.
        in_reach: Whether its socket is in reach, on a system where the lingerer can take it over.
        proxied: Whether the request shows a proxy (`cleanclose.core.deliver.proxied`).
        multiplexed: Whether other requests share it (HTTP/2 and 3). If so, it is never closed.
        blocking: Whether a worker waits while the body is drained, as on a WSGI server.
        threads: How many requests such a server's process serves at once; None if it does not show
            that.
        readable: Whether a reading of the body waits for no longer than it is asked to. If not, the
            response is left alone.
        half_closes: Whether the sending side may be shut down as soon as the response is out
            (`cleanclose.core.deliver.linger.Linger`).
        framed: Whether the interface says where the body ends; if not, it is not drained.
        worker_timeout: Seconds after which the server kills a worker that is busy with one
            request; None if it does not. Draining ends at half of that at the latest, counted from
            the request's start.
    """

    address: str | None = None
    in_reach: bool = False
    proxied: bool = False
    multiplexed: bool = False
    blocking: bool = False
    threads: int | None = None
    readable: bool = True
    half_closes: bool = True
    framed: bool = True
    worker_timeout: float | None = None

    @property
    def lingers(self) -> bool:
        """Whether it lingers after an early response: others may still need a shared one."""
        return self.in_reach and not self.multiplexed


def patience_for(
    connection: Connection,
    settings: Settings,
    *,
    left: int | None,
    awaits_continue: bool,
    only_worker: bool,
    take_place: Callable[[], bool],
) -> Patience:
    """Choose how long a body is drained, once its response is complete.

    Args:
        connection: The client's connection.
        settings: The limits.
        left: Bytes of the body that have not come yet; None for a chunked one.
        awaits_continue: Whether the client waits for a 100 that nothing has triggered.
        only_worker: Whether the worker that would wait is the only one of its process.
        take_place: Asks for one of the places for waiting requests. It is called at most once, and
            only if the patience that needs the place is chosen when there is one.
    """
    # If the client waits for a 100, our reading would ask for a body that nobody wants; after the
    # final response it would put a stray 100 on the wire.
    if not connection.framed or awaits_continue:
        return Patience.NONE
    if settings.respond_after is not None:
        wanted = Patience.SET if settings.respond_after > 0 else Patience.NONE
    elif connection.multiplexed or connection.proxied or not connection.lingers:
        wanted = Patience.DUE
    elif left is not None and left > SMALL_REMAINDER:
        return Patience.NONE
    elif left is None or connection.blocking:
        return Patience.ARRIVED
    else:
        return Patience.SHORT if take_place() else Patience.ARRIVED
    if wanted is Patience.NONE or take_place():
        return wanted
    if not (connection.blocking and connection.lingers):
        return Patience.NONE
    # The only worker of its process waits a moment, for what a proxy sends at full speed.
    return Patience.SHORT if only_worker else Patience.ARRIVED


class Drain:
    """One body, and how long to wait for the rest of it.

    Args:
        settings: The limits.
        length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
        received: Bytes of it that have already been read.
        started: The request's start, in seconds on any clock that only goes forward.
        worker_timeout: As `Connection`'s.
    """

    __slots__ = (
        "_deadline",
        "_idle_since",
        "_settings",
        "_since",
        "_started",
        "_wire",
        "_wire_before",
        "_wire_body",
        "drained",
        "length",
        "patience",
        "received",
    )

    def __init__(
        self,
        settings: Settings,
        *,
        length: int,
        received: int,
        started: float,
        worker_timeout: float | None = None,
    ) -> None:
        self._settings = settings
        self._started = self._since = self._idle_since = started
        self._deadline = math.inf if worker_timeout is None else started + worker_timeout / 2
        self.length: int = length
        """The body's length, or `CHUNKED`."""
        self.received: int = received
        """Bytes of the body that anybody has read."""
        self._wire = self._wire_body = 0
        self._wire_before: tuple[int, int] | None = None
        self.drained: int = 0
        """Bytes of it that nobody wanted."""
        self.patience: Patience = Patience.NONE
        """How long the body is drained, once the response is complete."""

    @property
    def left(self) -> int | None:
        """Bytes of the body that have not come yet; None for a chunked one."""
        return None if self.length == CHUNKED else self.length - self.received

    @property
    def all_received(self) -> bool:
        """Whether the whole declared length has come."""
        return self.received == self.length

    def refused_by(self, *, forbidden: bool) -> Cap:
        """The limit for which the body is not drained at all.

        Args:
            forbidden: Whether nobody may read it, because of what its client expects.
        """
        if forbidden:
            return Cap.EXPECT
        return Cap.MAX_SECONDS if self._settings.respond_after == 0 else Cap.MAX_LINGERING

    def begin(self, now: float) -> None:
        """The draining begins."""
        self._since = self._idle_since = now

    def arrived(self, size: int, now: float, *, unwanted: bool) -> None:
        """A piece of the body has come.

        Args:
            size: The piece's length in bytes.
            now: The time.
            unwanted: Whether it is discarded.
        """
        self.received += size
        if unwanted:
            self.drained += size
            if size:
                self._idle_since = now

    def on_wire(self, size: int, body: int) -> None:
        """Note the bytes taken from the connection since the draining began.

        Args:
            size: How many bytes, a chunked body's framing included.
            body: How many of them were the body's own.
        """
        self._wire, self._wire_body = size, body

    def counted(self, taken: int) -> None:
        """Note what the connection counts: `on_wire`, where only that is known.

        Args:
            taken: How many bytes anybody has taken from it since it began.
        """
        if self._wire_before is None:
            self._wire_before = taken, self.drained
        before, drained = self._wire_before
        self.on_wire(taken - before, self.drained - drained)

    def taken_by_server(self, size: int) -> None:
        """The server has taken bytes from the connection that nobody will get.

        Args:
            size: How many. Bytes of the next request may be among them.
        """
        left = self.left
        if left is not None:
            size = min(size, left)
        self.received += size
        self.drained += size

    def limit_reached(self, now: float) -> Cap | None:
        """The limit that ends the draining now; None if there is none."""
        settings = self._settings
        taken = max(self.drained, self._wire)
        if taken >= settings.max_bytes and not self.all_received:
            return Cap.MAX_BYTES
        if self._wire - self._wire_body > MUCH_FRAMING + FRAMING_PER_BYTE * self._wire_body:
            return Cap.MAX_BYTES
        if self.patience is Patience.ARRIVED:
            if taken > SMALL_REMAINDER:
                return Cap.MAX_BYTES
            # A body sent without a pause never stops arriving.
            return Cap.MAX_SECONDS if now >= self._since + SHORT_WAIT else None
        if self.patience is Patience.SHORT:
            return Cap.MAX_SECONDS if now >= self._since + SHORT_WAIT else None
        limits = (
            (self._end(), Cap.MAX_SECONDS),
            (self._idle_since + settings.idle_seconds, Cap.IDLE_SECONDS),
            (self._too_slow_at(), Cap.MIN_RATE),
        )
        return next((cap for at, cap in limits if now >= at), None)

    def is_due(self, now: float) -> bool:
        """Whether the body will end before the waiting does, at its rate so far."""
        left = self.left
        if self.patience not in (Patience.DUE, Patience.SHORT) or left is None:
            return True
        grace = RATE_GRACE if self.patience is Patience.DUE else SHORT_WAIT / 5
        if now < self._since + grace:
            return True
        end = self._end() if self.patience is Patience.DUE else self._since + SHORT_WAIT
        # Or at the rate of the drain alone: if the application thought before it answered, it kept
        # the client waiting, not the other way round.
        return self.received * (end - now) >= left * (now - self._started) or self.drained * (
            end - now
        ) >= left * (now - self._since)

    def wait(self, now: float) -> float:
        """How many seconds to wait for the next piece."""
        match self.patience:
            case Patience.NONE | Patience.ARRIVED:
                return 0.0
            case Patience.SHORT:
                end = self._since + SHORT_WAIT
            case Patience.SET:
                end = min(self._end(), self._idle_since + self._settings.idle_seconds)
            case Patience.DUE:
                idle = self._idle_since + self._settings.idle_seconds
                end = min(self._end(), idle, self._too_slow_at())
                if now < self._since + RATE_GRACE:
                    end = min(end, self._since + RATE_GRACE)
        return max(0.0, end - now)

    def _end(self) -> float:
        settings = self._settings
        if self.patience is Patience.SET and settings.respond_after is not None:
            return min(self._since + settings.respond_after, self._deadline)
        return min(self._since + settings.max_seconds, self._deadline)

    def _too_slow_at(self) -> float:
        if self._settings.min_rate <= 0 or self.patience is not Patience.DUE:
            return math.inf
        return self._since + max(MIN_RATE_GRACE, self.drained / self._settings.min_rate)
