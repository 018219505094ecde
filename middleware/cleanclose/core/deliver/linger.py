"""One connection whose response is out, or on its way: how long it stays open, and how it ends.

`Linger` does no I/O and reads no clock. `cleanclose.linger` reports what happens on the connection
and what the kernel says; `Linger` answers with the next step. The rules are the table
`TRANSITIONS`.

First the server sends: nothing is shut down until it has let go of the connection. Then the sending
side is shut down, so that a client that reads to the end sees the end (RFC 9112, section 9.6), and
everything that arrives is discarded. At a limit the reading stops: a client that back-pressure
stops looks for the response that waits for it. Finally the connection is closed.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cleanclose.core.events import Cap, Facts, Mechanism, Outcome, UploadDrained
from cleanclose.core.settings import Settings
from cleanclose.core.tcp_info import Connection

__all__ = [
    "TRANSITIONS",
    "Close",
    "Discard",
    "Happening",
    "Hold",
    "Linger",
    "State",
    "Step",
    "Wait",
]

MIN_RATE_GRACE: Final = 5.0
"""Seconds of discarding before `Settings.min_rate` is checked."""

FIRST_LOOK: Final = 0.001
"""Seconds before the first check whether the server has let go. Each further check waits twice as
long, up to `LAST_LOOK`."""

LAST_LOOK: Final = 0.05

UNSEEN: Final = 256 * 1024
"""Bytes of a body that a server may itself have read before it let go."""

SILENT: Final = 1.0
"""Seconds of silence after which a chunked body may have ended."""

ASK_AGAIN: Final = 1.0
"""Seconds between two questions to the kernel about whether the response has arrived."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Check after so many seconds whether the server has let go. Read meanwhile if ``read``."""

    seconds: float
    read: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Discard:
    """Read and discard what arrives; ask again after so many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Keep the connection open without reading; ask again after so many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """Close the connection and report the event."""


Step = Wait | Discard | Hold | Close

_CLOSE: Final = Close()


class State(enum.Enum):
    """Where a connection stands."""

    if not TYPE_CHECKING:
        # Enum's is written in Python, and each step looks two members up.
        __hash__ = object.__hash__

    SENDING = "the server still has it"
    LINGERING = "the response is out; what comes is discarded"
    HOLDING = "unread, so that the sender stops and looks"
    CLOSED = "over"


class Happening(enum.Enum):
    """What can happen to it."""

    if not TYPE_CHECKING:
        # Enum's is written in Python, and each step looks two members up.
        __hash__ = object.__hash__

    LET_GO = "the server has sent what it had, and does not have the connection any more"
    ENDED = "the peer has closed"
    RESET = "the peer has reset the connection, or the kernel has given up"
    SETTLED = "the peer's kernel has all of the response, and the peer has stopped sending"
    CAP = "a limit has been reached"
    KEPT = "the server does not let go: it uses the connection as it likes"
    HOLD_OVER = "the connection has been held for long enough"
    TURNED_OUT = "another connection needs the place"
    STOPPED = "the process ends"


_S, _H = State, Happening

TRANSITIONS: Final[Mapping[tuple[State, Happening], State]] = {
    (_S.SENDING, _H.LET_GO): _S.LINGERING,
    (_S.SENDING, _H.KEPT): _S.CLOSED,
    (_S.SENDING, _H.RESET): _S.CLOSED,
    (_S.SENDING, _H.TURNED_OUT): _S.CLOSED,
    (_S.SENDING, _H.STOPPED): _S.CLOSED,
    (_S.LINGERING, _H.ENDED): _S.CLOSED,
    (_S.LINGERING, _H.RESET): _S.CLOSED,
    (_S.LINGERING, _H.SETTLED): _S.CLOSED,
    (_S.LINGERING, _H.CAP): _S.HOLDING,
    (_S.LINGERING, _H.TURNED_OUT): _S.CLOSED,
    (_S.LINGERING, _H.STOPPED): _S.CLOSED,
    (_S.HOLDING, _H.HOLD_OVER): _S.CLOSED,
    (_S.HOLDING, _H.RESET): _S.CLOSED,
    (_S.HOLDING, _H.TURNED_OUT): _S.CLOSED,
    (_S.HOLDING, _H.STOPPED): _S.CLOSED,
}
"""State x happening -> next state. A pair that is not in the table changes nothing."""


class Linger:
    """One connection's state. Times are seconds on any clock that only goes forward.

    Args:
        settings: The limits.
        facts: The request, for the event.
        status: The response's status; None if it is not known.
        proxied: Whether the request showed a proxy. A proxy that closes before the body's end may
            have thrown the response away.
        awaits_continue: Whether the client waits for a 100, and so has nothing to send.
        received: Bytes of the body that anybody had read before.
        drained: How many of these were discarded.
        left: Bytes of the body that had not come yet; None if only its end tells.
        started: When the request began.
        now: The time.
        half_closes: Whether the sending side is shut down as soon as the response is out. Not where
            a relay (uWSGI's HTTP router) would then close its client's connection unread.
        reads: Whether to read while the server sends: only if the server certainly reads no more,
            and closes.
    """

    __slots__ = (
        "_awaits_continue",
        "_cap",
        "_discarded",
        "_drained",
        "_ended",
        "_facts",
        "_idle_since",
        "_left",
        "_look",
        "_mechanism",
        "_outcome",
        "_proxied",
        "_received",
        "_settings",
        "_since",
        "_started",
        "_state",
        "_status",
        "_unacked",
        "half_closes",
        "reads",
    )

    def __init__(
        self,
        settings: Settings,
        *,
        facts: Facts,
        status: int | None,
        proxied: bool,
        awaits_continue: bool,
        received: int,
        drained: int,
        left: int | None,
        started: float,
        now: float,
        half_closes: bool = True,
        reads: bool = False,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._status = status
        self._proxied = proxied
        self._awaits_continue = awaits_continue
        self._received = received
        self._drained = drained
        self._left = left
        self._started = started
        self._since = self._idle_since = now
        self._state = State.SENDING
        self._look = FIRST_LOOK
        self._discarded = 0
        self._ended = False
        self._unacked: int | None = None
        self._outcome = Outcome.UNKNOWN
        self._cap: Cap | None = None
        self._mechanism: Mechanism | None = None
        self.half_closes: bool = half_closes
        self.reads: bool = reads

    # Reports from the connection.

    def let_go(self, now: float) -> Step:
        """The server has sent everything, and the sending side is shut down."""
        return self._happen(Happening.LET_GO, now)

    def received(self, size: int, now: float, *, heard: float | None = None) -> Step:
        """Bytes were discarded.

        Args:
            size: How many.
            now: The time.
            heard: When the last of them came; None if it was just now.
        """
        self._discarded += size
        self._idle_since = now if heard is None else max(heard, self._idle_since)
        return self.tick(now)

    def ended(self, connection: Connection | None, now: float) -> Step:
        """The peer has closed, in good order.

        Args:
            connection: What the kernel says; None if it does not tell.
            now: The time.
        """
        self._ended = True
        self._note(connection)
        if self._state is State.LINGERING:
            self._mechanism = Mechanism.EOF
            arrived = connection is None or not connection.unacked
            # A proxy that stops its own client may also have thrown the response away.
            if arrived and not (self._proxied and self._is_far_from_end()):
                self._outcome = Outcome.DELIVERED
        return self._happen(Happening.ENDED, now)

    def reset(self, mechanism: Mechanism, connection: Connection | None, now: float) -> Step:
        """The connection is no more.

        Args:
            mechanism: How.
            connection: What the kernel says; None if it does not tell.
            now: The time.
        """
        self._note(connection)
        if self._cap is None:
            self._mechanism = mechanism
            self._outcome = Outcome.RESET if mechanism is Mechanism.RESET else Outcome.UNKNOWN
        return self._happen(Happening.RESET, now)

    def kernel_says(self, connection: Connection | None, now: float) -> Step:
        """The kernel has answered. Call it before the connection is closed, too."""
        self._note(connection)
        if connection is not None and connection.reset and not self._ended:
            # The error that reading raised says more: the kernel's own time-out may have ended it.
            return self.reset(self._mechanism or Mechanism.RESET, connection, now)
        return self.tick(now)

    # Reports of other things.

    def turned_out(self, now: float) -> Step:
        """Another connection needs its place."""
        self._cut(Cap.MAX_LINGERING)
        return self._happen(Happening.TURNED_OUT, now)

    def stopped(self, now: float) -> Step:
        """The process ends."""
        self._cut(Cap.APPLICATION)
        return self._happen(Happening.STOPPED, now)

    def tick(self, now: float) -> Step:
        """Time has passed."""
        settings = self._settings
        match self._state:
            case State.SENDING if now >= self._since + settings.max_seconds:
                return self._happen(Happening.KEPT, now)
            case State.SENDING:
                self._look = min(self._look * 2, LAST_LOOK)
                if self._discarded >= settings.max_bytes:
                    self.reads = False
            case State.LINGERING:
                # Each piece of the body comes through here: the limits are looked at once.
                seconds = self._seconds_left(now)
                if seconds > 0 and self._discarded < settings.max_bytes:
                    return Discard(seconds)
                cap = self._limit_reached(now)
                if cap is Cap.IDLE_SECONDS and self._settled():
                    return self._happen(Happening.SETTLED, now)
                if cap is not None:
                    self._cut(cap)
                    return self._happen(Happening.CAP, now)
            case State.HOLDING if now >= self._since + settings.hold_seconds:
                return self._happen(Happening.HOLD_OVER, now)
            case _:
                pass
        return self.step(now)

    # The answers.

    @property
    def state(self) -> State:
        """The connection's state."""
        return self._state

    @property
    def asks_kernel(self) -> bool:
        """Whether there is no proof yet that the response has arrived."""
        return self._state is State.LINGERING and self._unacked != 0

    def step(self, now: float) -> Step:
        """The next step. Asking changes nothing."""
        match self._state:
            case State.SENDING:
                return Wait(self._look, read=self.reads)
            case State.LINGERING:
                return Discard(max(0.0, self._seconds_left(now)))
            case State.HOLDING:
                return Hold(max(0.0, self._since + self._settings.hold_seconds - now))
            case State.CLOSED:
                return _CLOSE

    def event(self, now: float) -> UploadDrained:
        """The event, once the connection is closed."""
        body = self._discarded if self._left is None else min(self._discarded, self._left)
        drained = self._drained + body
        expected = None if self._left is None else self._received + self._left
        return UploadDrained(
            facts=self._facts,
            age_ms=round((now - self._started) * 1000, 3),
            outcome=self._outcome,
            cap=self._cap,
            mechanism=self._mechanism,
            status=self._status,
            bytes_in=self._received + body,
            drained=drained,
            expected_in=expected,
            unacked=self._unacked,
        )

    # The rules behind the table's happenings.

    def _seconds_left(self, now: float) -> float:
        """Seconds to the first limit, or to the next question; 0 or less if a limit is reached."""
        over_at = self._since + self._settings.max_seconds
        seconds = min(self._silent_at(), over_at, self._too_slow_at()) - now
        return min(seconds, ASK_AGAIN) if self._unacked != 0 else seconds

    def _silent_at(self) -> float:
        settings = self._settings
        idle = settings.idle_seconds
        if self._awaits_continue and not self._discarded:
            # It honours its Expect, sends nothing, and closes when it has its answer.
            idle = min(idle, settings.hold_seconds)
        return self._idle_since + idle

    def _too_slow_at(self) -> float:
        rate = self._settings.min_rate
        if rate <= 0 or not self._is_unfinished():
            return math.inf
        at = self._since + max(MIN_RATE_GRACE, self._discarded / rate)
        # Nothing here tells where chunks end: a silent client may have sent everything.
        return math.inf if self._left is None and at > self._idle_since + SILENT else at

    def _limit_reached(self, now: float) -> Cap | None:
        most = self._settings.max_bytes
        if self._discarded > most or (self._discarded == most and self._is_unfinished()):
            return Cap.MAX_BYTES
        if now >= self._silent_at():
            return Cap.IDLE_SECONDS
        if now >= self._since + self._settings.max_seconds:
            return Cap.MAX_SECONDS
        return Cap.MIN_RATE if now >= self._too_slow_at() else None

    def _is_unfinished(self) -> bool:
        # The wire's bytes are at least the body's.
        return self._left is None or self._discarded < self._left

    def _is_far_from_end(self) -> bool:
        # For a proxy's sake, a chunked body that had ended would have been drained.
        return self._left is None or self._discarded + UNSEEN < self._left

    def _settled(self) -> bool:
        """Whether silence is harmless: the response has arrived, or there was nothing to send."""
        if self._unacked == 0:
            self._outcome = Outcome.DELIVERED
            return True
        return self._awaits_continue and not self._discarded

    def _note(self, connection: Connection | None) -> None:
        if connection is not None:
            self._unacked = connection.unacked

    def _cut(self, cap: Cap) -> None:
        # The first end counts: a peer that leaves during the hold was cut all the same.
        if self._cap is None:
            self._outcome, self._cap = Outcome.CUT, cap

    def _happen(self, happening: Happening, now: float) -> Step:
        state = TRANSITIONS.get((self._state, happening))
        if state is not None:
            self._state = state
            self._since = now
            if state is State.LINGERING:
                self._idle_since = now
        return self.step(now)
