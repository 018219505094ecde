"""One request with a body, and its response: when to drain the body, and when to respond.

`Exchange` does no I/O and reads no clock. A shim tells it what happened and when; it answers
with the next step. The rules are the table `TRANSITIONS` and the choice of a `Patience`; what
becomes of the connection behind the response is `cleanclose.core.deliver.linger`'s.

An early response is one that the application has completed while the body is unread. If the
connection closes then with unread bytes, the kernel answers them with a reset, and the client may
lose the response. So either the body is drained before the response goes out (the connection can
be used again, and proxies get the response at all), or the response goes out at once and the
connection is handed to the lingerer.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Final

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.linger import Linger
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.table import (
    TRANSITIONS,
    Done,
    Forward,
    Happening,
    Keep,
    Read,
    Respond,
    State,
    Step,
)
from cleanclose.core.events import Cap, Facts, Mechanism, Outcome, UploadDrained
from cleanclose.core.server import Continue, Server
from cleanclose.core.settings import Settings

__all__ = ["SMALL_REMAINDER", "Connection", "Exchange", "Patience"]

SMALL_REMAINDER: Final = 256 * 1024
"""Bytes of a body that are worth waiting for, for the sake of the connection. Anything larger
costs a tenth when the lingerer discards it."""

SHORT_WAIT: Final = 0.5
"""Seconds that a small remainder is waited for."""

RATE_GRACE: Final = 1.0
"""Seconds of draining before a body's rate so far says when its end is due."""

MIN_RATE_GRACE: Final = 5.0
"""Seconds of draining before `Settings.min_rate` is looked at: a new connection's first bytes
say nothing about its rate."""


class Patience(enum.Enum):
    """How long a body is drained before its response goes out."""

    NONE = "not at all: the response goes out at once"
    ARRIVED = "what has arrived, without waiting"
    SHORT = "a moment, while its end is due within that moment"
    SET = "for as long as the user has set"
    DUE = "for as long as its end is due, at its rate so far, within the limits"


_FORWARD: Final = Forward()
_KEEP: Final = Keep()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What a delivery must know of the client's connection and of who serves it.

    Args:
        address: The client's address, for its share of the places; None if it is not known.
        lingers: Whether the lingerer can have it: its socket is in reach.
        proxied: Whether the request shows a proxy (`cleanclose.core.deliver.proxied`).
        multiplexed: Whether other requests share it (HTTP/2 and 3): it is never closed then.
        blocking: Whether a worker waits while the body is drained, as on a WSGI server.
        half_closes: Whether the sending side may be shut down as soon as the response is out
            (`cleanclose.core.deliver.linger.Linger`).
        framed: Whether the interface says where the body ends; if not, it is not drained.
        worker_timeout: Seconds after which the server kills a worker that is busy with one
            request; None if it does not. Draining takes half of that at most, from the request's
            start.
    """

    address: str | None = None
    lingers: bool = False
    proxied: bool = False
    multiplexed: bool = False
    blocking: bool = False
    half_closes: bool = True
    framed: bool = True
    worker_timeout: float | None = None


class Exchange:
    """The state of one request which has a body, and its response.

    Every method that tells what happened takes ``now``, seconds on any clock that only goes
    forward, and returns the next step. A shim may ask `step` at any time.

    Args:
        settings: The limits.
        places: Where a place is asked for before a client is waited for.
        server: What is special about the server.
        connection: The client's connection.
        facts: The request, for the event.
        length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
        awaits_continue: Whether the client announced that it waits for a 100, and nobody has asked
            for the body yet.
        received: Bytes of the body that have been read before.
        started: The request's start.
    """

    __slots__ = (
        "_awaits_continue",
        "_cap",
        "_connection",
        "_deadline",
        "_drained",
        "_facts",
        "_idle_since",
        "_left_alone",
        "_length",
        "_mechanism",
        "_outcome",
        "_patience",
        "_places",
        "_received",
        "_response_left",
        "_sent",
        "_server",
        "_settings",
        "_since",
        "_started",
        "_state",
        "_status",
        "_streamed",
        "_takes_place",
        "_treated",
        "_unreadable",
        "body_complete",
        "handed_over",
        "response_complete",
    )

    def __init__(
        self,
        settings: Settings,
        places: Places,
        *,
        server: Server,
        connection: Connection,
        facts: Facts,
        length: int,
        awaits_continue: bool,
        started: float,
        received: int = 0,
    ) -> None:
        self._settings = settings
        self._places = places
        self._server = server
        self._connection = connection
        self._facts = facts
        self._length = length
        self._awaits_continue = awaits_continue and server.sends_continue is not Continue.EAGER
        timeout = connection.worker_timeout
        self._deadline = math.inf if timeout is None else started + timeout / 2
        self._started = self._since = self._idle_since = started

        self._state = State.OPEN
        self._patience = Patience.NONE
        self._takes_place = False
        self._left_alone = False
        self._treated = False

        self._status: int | None = None
        self._response_left: int | None = None
        self._streamed = False
        self._sent = False
        self._received = received
        self._drained = 0
        self._unreadable = False
        self._outcome = Outcome.UNKNOWN
        self._cap: Cap | None = None
        self._mechanism: Mechanism | None = None

        self.body_complete = False
        """Whether the body has been read to its end, by whomever."""
        self.response_complete = False
        """Whether the application has completed its response."""
        self.handed_over = False
        """Whether the lingerer has the connection: the event is its to report."""

    # What the application does.

    def leave_alone(self) -> None:
        """Send this response as if there were no middleware: the per-response opt-out."""
        self._left_alone = True

    def app_read(self, now: float) -> Step:
        """The application asks for a piece of the body."""
        # Reading is what makes a server send the 100, if it has not by itself.
        self._awaits_continue = False
        return self._happen(Happening.APP_READ, now)

    def response_started(self, status: int, content_length: int | None, now: float) -> Step:
        """The application sent the response's head.

        Args:
            status: The status code.
            content_length: The response's Content-Length, if it has a valid one.
            now: The time.
        """
        self._status = status
        self._response_left = content_length
        if self.body_complete or self._is_left_alone():
            return self._happen(Happening.HEAD_LEFT_ALONE, now)
        return self._happen(Happening.HEAD, now)

    def response_piece(self, size: int, now: float) -> Step:
        """The application sent a piece of the response and says that more may come.

        A piece that reaches the response's Content-Length is kept back like the head: what may
        still come is the word that it was the last. The application could also go on reading,
        so the response does not count as complete until that word has come.

        Args:
            size: The piece's length in bytes.
            now: The time.
        """
        if self._response_left is not None:
            self._response_left -= size
        if size and self._state is State.STREAMING and self._ends_with_its_last_byte():
            return self._happen(Happening.PIECE_TO_KEEP, now)
        if size == 0 or self._response_left == 0:
            return self.step(now)
        return self._happen(Happening.PIECE, now)

    def turn_over(self, now: float) -> Step:
        """The application has had its turn, and did not complete the response."""
        return self._happen(Happening.TURN_OVER, now)

    def response_completed(self, now: float, last_size: int = 0) -> Step:
        """The application has sent all of its response. Saying it again changes nothing.

        Args:
            now: The time.
            last_size: The last piece's length in bytes.
        """
        if self.response_complete:
            return self.step(now)
        if self._response_left is not None:
            self._response_left -= last_size
        self.response_complete = True
        if self._state not in (State.OPEN, State.KEPT, State.STREAMING):
            # Abandoned before: a place that is taken now would never be given back.
            return self.step(now)
        return self._happen(self._completion(), now)

    def app_failed(self, now: float) -> Step:
        """The application raised before it responded, and somebody else will answer.

        Only for where nobody else can want the body: not for a caller that has another
        application to try.
        """
        if self._state is not State.OPEN:
            return self._happen(Happening.APP_END, now)
        happening = self._completion()
        if happening is Happening.COMPLETE_LEFT_ALONE:
            happening = Happening.APP_END
        return self._happen(happening, now)

    def app_ended(self, now: float) -> Step:
        """The application returned or raised."""
        return self._happen(Happening.APP_END, now)

    # What comes from the connection.

    def body_received(self, size: int, complete: bool, now: float) -> Step:
        """A piece of the body came in, for the application or to be discarded.

        Args:
            size: The piece's length in bytes.
            complete: Whether the body ends with it.
            now: The time.
        """
        self._received += size
        if self.treated:
            self._drained += size
            if size:
                self._idle_since = now
        if complete:
            self.body_complete = True
            if self._state is State.DRAINING:
                self._outcome = Outcome.DELIVERED
            return self._happen(Happening.BODY_END, now)
        return self.tick(now)

    def nothing_came(self, now: float) -> Step:
        """What `Read` asked for has not come in its time."""
        if self._state is State.DRAINING and self._patience is Patience.ARRIVED:
            return self._happen(Happening.ENOUGH, now)
        return self.tick(now)

    def peer_gone(self, mechanism: Mechanism, now: float) -> Step:
        """The peer has left; the exchange's own connection says so.

        Args:
            mechanism: How, as far as the interface tells.
            now: The time.
        """
        self._unreadable = True
        if self._state is State.DRAINING:
            self._mechanism = mechanism
            if mechanism is Mechanism.RESET:
                self._outcome = Outcome.RESET
        return self._happen(Happening.PEER_GONE, now)

    def reading_failed(self, error: Exception, now: float) -> Step:
        """Reading the body raised, whoever read.

        An OSError is the connection's. Anything else is a server's own word for a body that it
        cannot make out: gunicorn's errors for a bad chunk are no OSErrors.

        Args:
            error: What was raised.
            now: The time.
        """
        if isinstance(error, OSError):
            return self.peer_gone(Mechanism.of(error), now)
        return self.body_malformed(now)

    def body_malformed(self, now: float) -> Step:
        """The server cannot make out the rest of the body."""
        if self._state is State.DRAINING and not self._connection.lingers:
            self._cut(Cap.MALFORMED)
        elif not self._connection.lingers:
            self._unreadable = True
        return self._happen(Happening.MALFORMED, now)

    def response_lost(self) -> None:
        """The server could not send the response, although the body was read to its end."""
        if self._outcome is Outcome.DELIVERED:
            self._outcome = Outcome.UNKNOWN
        self._sent = False

    def abandoned(self, now: float) -> Step:
        """The exchange cannot go on: its task is cancelled, or the server is stopping."""
        if self._state is State.DRAINING and not self._connection.lingers:
            self._cut(Cap.APPLICATION)
        return self._happen(Happening.ABANDONED, now)

    # What the shim has done, and the time.

    def linger(self, now: float, *, unread: int = 0) -> Linger:
        """What the lingerer is to know of this exchange's connection, whose event it reports.

        Args:
            now: The time.
            unread: Bytes that the server has taken from the connection, and that nobody will get.
        """
        self.handed_over = True
        if self._length != CHUNKED:
            unread = min(unread, self._length - self._received)
        self._received += unread
        self._drained += unread
        left = None if self._length == CHUNKED else self._length - self._received
        return Linger(
            self._settings,
            facts=self._facts,
            status=self._status,
            proxied=self._connection.proxied,
            awaits_continue=self._awaits_continue,
            received=self._received,
            drained=self._drained,
            left=left,
            started=self._started,
            now=now,
            half_closes=self._connection.half_closes,
        )

    def no_descriptor(self) -> None:
        """There was none left for the lingerer: the connection ends as without us."""
        self.handed_over = False
        self._cut(Cap.NO_DESCRIPTOR)

    def responded(self, now: float) -> Step:
        """What `Respond` asked for is done."""
        self._sent = True
        return self._happen(Happening.RESPONDED, now)

    def tick(self, now: float) -> Step:
        """Time has passed."""
        if self._state is State.DRAINING:
            cap = self._limit_reached(now)
            if cap is not None:
                if not self._connection.lingers:
                    self._cut(cap)
                return self._happen(Happening.ENOUGH, now)
            if not self._is_due(now):
                if not self._connection.lingers:
                    self._cut(Cap.MAX_SECONDS)
                return self._happen(Happening.ENOUGH, now)
        return self.step(now)

    # The answers.

    @property
    def response_begun(self) -> bool:
        """Whether the application has sent the response's head."""
        return self._status is not None

    @property
    def treated(self) -> bool:
        """Whether the response is complete and is being delivered at this moment."""
        return self._state in (State.DRAINING, State.RESPONDING)

    @property
    def early(self) -> bool:
        """Whether the response is, or was, an early one that was to be delivered."""
        return self._treated

    @property
    def state(self) -> State:
        """Where the exchange stands."""
        return self._state

    @property
    def may_read(self) -> bool:
        """Whether the body may be read for nobody: a client that waits for a 100 gets none."""
        return not self._awaits_continue and not self._unreadable

    @property
    def patience(self) -> Patience:
        """How long the body is drained, once the response is complete."""
        return self._patience

    def step(self, now: float) -> Step:
        """What to do now. Asking changes nothing."""
        match self._state:
            case State.KEPT:
                return _KEEP
            case State.DRAINING:
                return Read(self._wait(now))
            case State.RESPONDING:
                multiplexed = self._connection.multiplexed
                return Respond(
                    close=not multiplexed,
                    linger=self._connection.lingers and not multiplexed and not self._unreadable,
                    in_one_piece=self._in_one_piece(),
                )
            case State.DONE:
                return Done(in_one_piece=self._in_one_piece())
            case State.OPEN | State.STREAMING:
                return _FORWARD

    def event(self, now: float) -> UploadDrained | None:
        """The event for an exchange that is done.

        Returns:
            None if its response was no early one, or if the lingerer has it.
        """
        if not self._treated or self.handed_over:
            return None
        return UploadDrained(
            facts=self._facts,
            age_ms=round((now - self._started) * 1000, 3),
            outcome=self._outcome,
            cap=self._cap,
            mechanism=self._mechanism,
            status=self._status if self._sent or self._outcome is Outcome.DELIVERED else None,
            bytes_in=self._received,
            drained=self._drained,
            expected_in=None if self._length == CHUNKED else self._length,
            unacked=None,
        )

    # The rules behind the table's happenings.

    def _is_left_alone(self) -> bool:
        statuses = self._settings.only_statuses
        return (
            self._left_alone
            or self._server.reads_first
            # 101 hands the connection over to another protocol.
            or self._status == 101
            # Where an application has failed without one, a 500 is on its way.
            or (statuses is not None and (self._status or 500) not in statuses)
        )

    def _completion(self) -> Happening:
        if (
            self.body_complete
            or self._received == self._length
            or self._unreadable
            or self._is_left_alone()
            # Shorter or longer than it said: an error, and the server's to raise at once.
            or self._response_left not in (None, 0)
        ):
            return Happening.COMPLETE_LEFT_ALONE
        self._treated = True
        self._patience = self._choose_patience()
        if self._patience is Patience.NONE:
            if not self._connection.lingers:
                self._cut(self._refused())
            return Happening.COMPLETE_RESPOND
        return Happening.COMPLETE_DRAIN

    def _choose_patience(self) -> Patience:
        connection, settings = self._connection, self._settings
        if not connection.framed:
            return Patience.NONE
        if self._awaits_continue:
            # Our reading would ask for a body that nobody wants; behind the final response it
            # would put a stray 100 on the wire.
            return Patience.NONE
        if settings.respond_after is not None:
            wanted = Patience.SET if settings.respond_after > 0 else Patience.NONE
        elif connection.multiplexed or connection.proxied or not connection.lingers:
            wanted = Patience.DUE
        else:
            return self._patience_for_a_direct_client()
        if wanted is Patience.NONE or self._take_place():
            return wanted
        if not (connection.blocking and connection.lingers):
            return Patience.NONE
        # The only worker of its process waits a moment: what a proxy sends at full speed.
        return Patience.SHORT if self._places.most == 0 else Patience.ARRIVED

    def _patience_for_a_direct_client(self) -> Patience:
        left = self._length - self._received
        if self._length != CHUNKED and left > SMALL_REMAINDER:
            return Patience.NONE
        if self._length == CHUNKED or self._connection.blocking:
            return Patience.ARRIVED
        return Patience.SHORT if self._take_place() else Patience.ARRIVED

    def _refused(self) -> Cap:
        """Which limit it is that nothing can be done, where no connection can be taken over."""
        if self._awaits_continue:
            return Cap.EXPECT
        return Cap.MAX_SECONDS if self._settings.respond_after == 0 else Cap.MAX_LINGERING

    def _take_place(self) -> bool:
        self._takes_place = self._places.take(self._connection.address)
        return self._takes_place

    def _in_one_piece(self) -> bool:
        return self._server.ends_at_length and self.response_complete and not self._streamed

    def _ends_with_its_last_byte(self) -> bool:
        """Whether what has been begun as a stream is over for the server when it is out."""
        return self._server.ends_at_length and self._response_left == 0

    def _limit_reached(self, now: float) -> Cap | None:
        settings = self._settings
        if self._drained >= settings.max_bytes and self._received != self._length:
            return Cap.MAX_BYTES
        if self._patience is Patience.ARRIVED:
            return Cap.MAX_BYTES if self._drained > SMALL_REMAINDER else None
        if self._patience is Patience.SHORT:
            return Cap.MAX_SECONDS if now >= self._since + SHORT_WAIT else None
        limits = (
            (self._end(), Cap.MAX_SECONDS),
            (self._idle_since + settings.idle_seconds, Cap.IDLE_SECONDS),
            (self._too_slow_at(), Cap.MIN_RATE),
        )
        return next((cap for at, cap in limits if now >= at), None)

    def _is_due(self, now: float) -> bool:
        """Whether the body's end will have come before the waiting is over, at its rate so far."""
        if self._patience not in (Patience.DUE, Patience.SHORT) or self._length == CHUNKED:
            return True
        grace = RATE_GRACE if self._patience is Patience.DUE else SHORT_WAIT / 5
        if now < self._since + grace:
            return True
        end = self._end() if self._patience is Patience.DUE else self._since + SHORT_WAIT
        left = self._length - self._received
        # Or at the rate of the drain alone: an application that thinks before it answers has kept
        # the client waiting, not the other way round.
        return self._received * (end - now) >= left * (now - self._started) or self._drained * (
            end - now
        ) >= left * (now - self._since)

    def _end(self) -> float:
        settings = self._settings
        if self._patience is Patience.SET and settings.respond_after is not None:
            return min(self._since + settings.respond_after, self._deadline)
        return min(self._since + settings.max_seconds, self._deadline)

    def _too_slow_at(self) -> float:
        if self._settings.min_rate <= 0 or self._patience is not Patience.DUE:
            return math.inf
        return self._since + max(MIN_RATE_GRACE, self._drained / self._settings.min_rate)

    def _wait(self, now: float) -> float:
        """For how long the next piece is waited for."""
        match self._patience:
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

    def _cut(self, cap: Cap) -> None:
        if self._cap is None:
            self._outcome, self._cap = Outcome.CUT, cap

    def _happen(self, happening: Happening, now: float) -> Step:
        state = TRANSITIONS.get((self._state, happening))
        if state is not None:
            self._enter(state, now)
        return self.step(now)

    def _enter(self, state: State, now: float) -> None:
        if state is State.DRAINING:
            self._since = self._idle_since = now
        elif state is State.STREAMING:
            self._streamed = True
        self._state = state
        if self._takes_place and state is not State.DRAINING:
            self._takes_place = False
            self._places.give_back(self._connection.address)
