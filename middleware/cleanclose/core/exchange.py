"""One request and its response: when to discard a body, when to answer, when to let go.

`Exchange` does no I/O and reads no clock. A shim tells it what happened and when; it answers
with the next step. The rules are the table `TRANSITIONS`; what is written around it only turns
what a shim says into one of the table's events, and a state into a step.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Final

from cleanclose.core.events import Cap, Facts, Mechanism, Outcome, UploadDrained
from cleanclose.core.framing import CHUNKED
from cleanclose.core.places import Place, Places
from cleanclose.core.servers import Continue, Server
from cleanclose.core.settings import Settings
from cleanclose.core.tcp_info import Connection

__all__ = [
    "TRANSITIONS",
    "Done",
    "Exchange",
    "Forward",
    "Happening",
    "Hold",
    "Keep",
    "Read",
    "Respond",
    "State",
    "Step",
]

SMALL_RESPONSE: Final = 64 * 1024
"""Bytes of a response that fit into the socket buffers of a client which is not reading yet.
A blocking server that sends more waits for a client which waits for the server."""

MIN_RATE_GRACE: Final = 5.0
"""Seconds of reading before `Settings.min_rate` is looked at: a new connection's first bytes
say nothing about its rate."""

ASK_AGAIN: Final = 1.0
"""Seconds between two questions to the kernel while nothing comes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """Pass on whatever the application and the server say."""


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Keep back what the application has sent so far; ask again after ``at_most_seconds``."""

    at_most_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read and discard a piece of the body, waiting for it ``at_most_seconds``."""

    at_most_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Respond:
    """Send what was kept back, but not the exchange's end; then say `Exchange.responded`.

    With ``close`` the connection cannot be reused: say so where the interface has a way. With
    ``whole`` the end goes out as well, and all of the response's body in one piece: the server
    takes the application's return for the exchange's end, but pieces for a stream of its own.
    """

    close: bool
    whole: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Keep the connection open without reading; ask again after ``seconds``, or when woken."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """Send everything that is still kept back, the exchange's end included.

    With ``close`` the connection must not be used again. With ``read_on`` the body must be read
    while the end is sent: the server's ``send`` waits for that.
    """

    close: bool
    read_on: bool = False


Step = Forward | Keep | Read | Respond | Hold | Done

_FORWARD: Final = Forward()
_DONE: Final = Done(close=False)
_DONE_AND_CLOSE: Final = Done(close=True)


class State(enum.Enum):
    """Where an exchange stands."""

    OPEN = "the application has the request and has not begun to respond"
    KEPT = "the response has begun and is kept back until it is known whether it is complete"
    STREAMING = "the response goes out as the application makes it"
    DRAINING = "the response is complete and kept back; the body is being discarded"
    QUEUED = "the response is out; unread, waiting for a turn to read"
    LINGERING = "the response is out, its end is not; the body is being discarded"
    HOLDING = "the response is out, its end is not; unread, so that the sender stops and looks"
    CLEARING = "the application has failed; the body is being discarded before the server says so"
    DONE = "over"


class Happening(enum.Enum):
    """What can happen to an exchange."""

    APP_READ = "the application asks for more of the body"
    HEAD = "the application sent the response's head"
    HEAD_LEFT_ALONE = "the same, and nothing is to be done about this response"
    PIECE = "the application sent a piece of the response, not the last"
    PIECE_TO_KEEP = "the same, and with its last byte the body could not be read any more"
    COMPLETE = "the response is complete, the body is not, and there is room to read"
    COMPLETE_DRAIN_FIRST = "the same, and behind the response's last byte nothing can be read"
    COMPLETE_RESPOND_FIRST = "the same, and the response must not wait for the body"
    COMPLETE_QUEUED = "the same, and others read already"
    COMPLETE_LEFT_ALONE = "the response is complete and nothing is to be done about the body"
    COMPLETE_REFUSED = "the response is complete, and reading is out of the question"
    RESPOND_AFTER = "what was kept back has been kept for long enough"
    TURN = "the exchange may read now"
    BODY_END = "the body has been read to its end"
    PEER_GONE = "the peer has left"
    MALFORMED = "the server cannot make out the rest of the body"
    SETTLED = "the peer's kernel has all of the response, and the peer has stopped sending"
    CAP = "a limit has been reached"
    HOLD_OVER = "the connection has been held for long enough"
    APP_END = "the application has returned or raised"
    APP_FAILED = "it raised, nobody has begun to respond, and the body can be read"
    ABANDONED = "the exchange cannot go on: cancelled, or the server is stopping"


class _Send(enum.Enum):
    """What a transition sends on its way."""

    NOTHING = enum.auto()
    KEPT = enum.auto()
    KEPT_AND_CLOSE = enum.auto()


_S, _H = State, Happening
_NOTHING, _KEPT, _CLOSE = _Send.NOTHING, _Send.KEPT, _Send.KEPT_AND_CLOSE

TRANSITIONS: Final[Mapping[tuple[State, Happening], tuple[State, _Send]]] = {
    # The application is at work. Its own reading shows that the response is no early one yet.
    (_S.OPEN, _H.HEAD): (_S.KEPT, _NOTHING),
    (_S.OPEN, _H.HEAD_LEFT_ALONE): (_S.STREAMING, _NOTHING),
    (_S.OPEN, _H.APP_END): (_S.DONE, _NOTHING),
    (_S.KEPT, _H.APP_READ): (_S.STREAMING, _KEPT),
    (_S.KEPT, _H.PIECE): (_S.STREAMING, _KEPT),
    (_S.KEPT, _H.RESPOND_AFTER): (_S.STREAMING, _KEPT),
    (_S.KEPT, _H.BODY_END): (_S.STREAMING, _KEPT),
    (_S.KEPT, _H.PEER_GONE): (_S.STREAMING, _KEPT),
    (_S.KEPT, _H.APP_END): (_S.DONE, _NOTHING),
    (_S.STREAMING, _H.PIECE_TO_KEEP): (_S.KEPT, _NOTHING),
    (_S.STREAMING, _H.APP_END): (_S.DONE, _NOTHING),
    # The response is complete: drain, then respond; or respond, then linger.
    (_S.OPEN, _H.COMPLETE): (_S.DRAINING, _NOTHING),
    (_S.KEPT, _H.COMPLETE): (_S.DRAINING, _NOTHING),
    (_S.STREAMING, _H.COMPLETE): (_S.LINGERING, _KEPT),
    (_S.KEPT, _H.COMPLETE_DRAIN_FIRST): (_S.DRAINING, _NOTHING),
    (_S.STREAMING, _H.COMPLETE_DRAIN_FIRST): (_S.DRAINING, _NOTHING),
    (_S.OPEN, _H.COMPLETE_RESPOND_FIRST): (_S.LINGERING, _CLOSE),
    (_S.KEPT, _H.COMPLETE_RESPOND_FIRST): (_S.LINGERING, _CLOSE),
    (_S.STREAMING, _H.COMPLETE_RESPOND_FIRST): (_S.LINGERING, _KEPT),
    (_S.OPEN, _H.COMPLETE_QUEUED): (_S.QUEUED, _CLOSE),
    (_S.KEPT, _H.COMPLETE_QUEUED): (_S.QUEUED, _CLOSE),
    (_S.STREAMING, _H.COMPLETE_QUEUED): (_S.QUEUED, _KEPT),
    (_S.OPEN, _H.COMPLETE_REFUSED): (_S.DONE, _CLOSE),
    (_S.KEPT, _H.COMPLETE_REFUSED): (_S.DONE, _CLOSE),
    (_S.STREAMING, _H.COMPLETE_REFUSED): (_S.DONE, _NOTHING),
    (_S.OPEN, _H.COMPLETE_LEFT_ALONE): (_S.DONE, _NOTHING),
    (_S.KEPT, _H.COMPLETE_LEFT_ALONE): (_S.DONE, _NOTHING),
    (_S.STREAMING, _H.COMPLETE_LEFT_ALONE): (_S.DONE, _NOTHING),
    # Drain.
    (_S.DRAINING, _H.BODY_END): (_S.DONE, _NOTHING),
    (_S.DRAINING, _H.RESPOND_AFTER): (_S.LINGERING, _CLOSE),
    (_S.DRAINING, _H.CAP): (_S.HOLDING, _CLOSE),
    (_S.DRAINING, _H.MALFORMED): (_S.DONE, _CLOSE),
    (_S.DRAINING, _H.PEER_GONE): (_S.DONE, _NOTHING),
    # Wait for a turn.
    (_S.QUEUED, _H.TURN): (_S.LINGERING, _NOTHING),
    (_S.QUEUED, _H.CAP): (_S.DONE, _NOTHING),
    (_S.QUEUED, _H.BODY_END): (_S.DONE, _NOTHING),
    (_S.QUEUED, _H.PEER_GONE): (_S.DONE, _NOTHING),
    # Linger.
    (_S.LINGERING, _H.BODY_END): (_S.DONE, _NOTHING),
    (_S.LINGERING, _H.SETTLED): (_S.DONE, _NOTHING),
    (_S.LINGERING, _H.CAP): (_S.HOLDING, _NOTHING),
    (_S.LINGERING, _H.MALFORMED): (_S.DONE, _NOTHING),
    (_S.LINGERING, _H.PEER_GONE): (_S.DONE, _NOTHING),
    # Hold.
    (_S.HOLDING, _H.HOLD_OVER): (_S.DONE, _NOTHING),
    (_S.HOLDING, _H.BODY_END): (_S.DONE, _NOTHING),
    (_S.HOLDING, _H.PEER_GONE): (_S.DONE, _NOTHING),
    # Whoever answers in the application's place does so when the body is out of the way.
    (_S.OPEN, _H.APP_FAILED): (_S.CLEARING, _NOTHING),
    (_S.CLEARING, _H.BODY_END): (_S.DONE, _NOTHING),
    (_S.CLEARING, _H.CAP): (_S.DONE, _NOTHING),
    (_S.CLEARING, _H.MALFORMED): (_S.DONE, _NOTHING),
    (_S.CLEARING, _H.PEER_GONE): (_S.DONE, _NOTHING),
    # It does so all the same, from a task that it has left behind.
    (_S.CLEARING, _H.HEAD): (_S.DONE, _NOTHING),
    (_S.CLEARING, _H.HEAD_LEFT_ALONE): (_S.DONE, _NOTHING),
    # Whatever is kept back goes out on this path too.
    (_S.OPEN, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.KEPT, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.STREAMING, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.DRAINING, _H.ABANDONED): (_S.DONE, _CLOSE),
    (_S.QUEUED, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.LINGERING, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.HOLDING, _H.ABANDONED): (_S.DONE, _NOTHING),
    (_S.CLEARING, _H.ABANDONED): (_S.DONE, _NOTHING),
}
"""State x happening -> next state, and what is sent on the way.

A pair that is not in the table changes nothing: bytes for the application while it is at work,
an application that returns while its response is being delivered, anything after the end.
"""

_READING: Final = frozenset({State.DRAINING, State.LINGERING, State.CLEARING})
_TREATED: Final = frozenset(
    {State.DRAINING, State.QUEUED, State.LINGERING, State.HOLDING, State.CLEARING}
)


class Exchange:
    """The state of one request which has a body, and its response.

    Every method that tells what happened takes ``now``, seconds on any clock that only goes
    forward, and returns the next step. Steps repeat until something happens: a shim may ask
    `step` at any time.

    Args:
        settings: The limits.
        places: Where the turn to read is asked for.
        server: What is special about the server.
        facts: The request, for the event.
        length: The body's length, or `cleanclose.core.framing.CHUNKED`.
        expects_continue: Whether the client announced that it waits for a 100.
        blocking: Whether sending and reading exclude each other, as on a WSGI server: a large
            response then goes out only when the body has ended or a limit is reached.
        unbounded: Whether a reading may take longer than it is asked to: nothing must wait for
            it then, least of all the response.
        worker_timeout: Seconds after which the server kills a worker that is busy with one
            request; None if it does not. Delivering takes half of that at most, from the
            request's start.
        wake: Called (from any thread) when a `Hold` may be over early. It must not raise.
        now: The request's start.
    """

    __slots__ = (
        "_acked",
        "_asked",
        "_awaits_continue",
        "_blocking",
        "_cap",
        "_close",
        "_deadline",
        "_drained",
        "_facts",
        "_idle_since",
        "_left_alone",
        "_length",
        "_mechanism",
        "_outcome",
        "_peer_closed",
        "_place",
        "_places",
        "_received",
        "_respond",
        "_response_left",
        "_response_size",
        "_sent",
        "_server",
        "_settings",
        "_since",
        "_started",
        "_state",
        "_status",
        "_treated",
        "_unacked",
        "_unbounded",
        "_unreadable",
        "_wake",
        "_whole_first",
        "body_complete",
        "response_complete",
    )

    def __init__(
        self,
        settings: Settings,
        places: Places,
        *,
        server: Server,
        facts: Facts,
        length: int,
        expects_continue: bool,
        wake: Callable[[], None],
        now: float,
        blocking: bool = False,
        unbounded: bool = False,
        worker_timeout: float | None = None,
    ) -> None:
        self._settings = settings
        self._places = places
        self._server = server
        self._facts = facts
        self._length = length
        self._awaits_continue = expects_continue and server.sends_continue is not Continue.EAGER
        self._blocking = blocking
        self._unbounded = unbounded
        self._deadline = math.inf if worker_timeout is None else now + worker_timeout / 2
        self._wake = wake
        self._whole_first = server.ends_with_response
        """Whether all that is read must be read before the response goes out."""
        self._started = now

        self._state = State.OPEN
        self._since = now
        """When the present state began; while reading: when the reading began."""
        self._idle_since = now
        self._respond: Respond | None = None
        self._close = False
        self._place: Place | None = None
        # A client that stalls then keeps its worker for as long as it likes: never the last one.
        self._left_alone = unbounded and not places.others
        self._treated = False

        self._status: int | None = None
        self._response_left: int | None = None
        self._response_size = 0
        self._sent = False
        self._received = 0
        self._drained = 0
        self._unreadable = False
        self._outcome = Outcome.UNKNOWN
        self._cap: Cap | None = None
        self._mechanism: Mechanism | None = None

        self._asked = False
        """Whether the kernel has told anything of the connection."""
        self._acked = False
        """Whether the peer's kernel has all of the response."""
        self._unacked: int | None = None
        self._peer_closed = False

        self.body_complete = False
        """Whether the body has been read to its end, by whomever."""
        self.response_complete = False
        """Whether the application has completed its response."""

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
        self._response_size += size
        if self._response_left is not None:
            self._response_left -= size
        if size and self._state is State.STREAMING and self._ends_with_its_last_byte():
            return self._happen(Happening.PIECE_TO_KEEP, now)
        if size == 0 or self._response_left == 0:
            return self.step(now)
        return self._happen(Happening.PIECE, now)

    def release(self, now: float) -> Step:
        """What is kept back cannot be kept any longer, for a reason of the interface's own."""
        return self._happen(Happening.RESPOND_AFTER, now)

    def response_completed(self, now: float, last_size: int = 0) -> Step:
        """The application has sent all of its response. Saying it again changes nothing.

        Args:
            now: The time.
            last_size: The last piece's length in bytes.
        """
        if self.response_complete:
            return self.step(now)
        self._response_size += last_size
        if self._response_left is not None:
            self._response_left -= last_size
        self.response_complete = True
        if self._state is State.DONE or self._state is State.CLEARING:
            # Abandoned before, or it has a place: one that is taken now would never be given back.
            return self.step(now)
        return self._happen(self._completion(), now)

    def left_to_server(self, now: float) -> Step:
        """The application raised before it responded, and a blocking server will say so.

        It answers at once and ends the exchange with that, so there is nothing to be read behind
        the answer; nothing is done where reading could take longer than it is asked to.

        Args:
            now: The time.
        """
        if (
            self._state not in (State.OPEN, State.KEPT)
            or (self._unbounded and not self._server.ends_with_response)
            or self._awaits_continue
            or self.body_complete
        ):
            return self.step(now)
        self._whole_first = True
        self._response_left = None
        self._status = 500
        return self.response_completed(now)

    def app_ended(self, now: float) -> Step:
        """The application returned or raised."""
        return self._happen(Happening.APP_END, now)

    def app_failed(self, now: float) -> Step:
        """The application raised, and somebody else will answer: its framework, or the server.

        Only for where nobody else can want the body: not for a caller that has another
        application to try.
        """
        if (
            self._state is State.OPEN
            # Else our first read would promise that the body is wanted.
            and not self._awaits_continue
            and not self._cannot_be_treated()
        ):
            place = self._places.enter(self._wake)
            if place.reading:
                self._place = place
                self._treated = True
                return self._happen(Happening.APP_FAILED, now)
            # An exception waits for nobody's turn.
            place.leave()
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
        discarded = self._state in _TREATED
        if discarded:
            self._drained += size
            if size:
                self._idle_since = now
        if complete:
            self.body_complete = True
            if discarded:
                self._conclude(Outcome.DELIVERED)
            return self._happen(Happening.BODY_END, now)
        return self.tick(now)

    def peer_gone(self, mechanism: Mechanism, now: float) -> Step:
        """The peer has left; the exchange's own connection says so.

        Args:
            mechanism: How, as far as the interface tells.
            now: The time.
        """
        self._unreadable = True
        if mechanism is Mechanism.UNKNOWN and self._peer_closed:
            mechanism = Mechanism.EOF
        if self._state in _TREATED:
            self._mechanism = mechanism
            if mechanism is Mechanism.EOF and self._sent:
                # What was on its way to a peer that closes may yet be answered with a reset.
                arrived = self._acked or not self._asked
                self._conclude(Outcome.DELIVERED if arrived else Outcome.UNKNOWN)
            elif mechanism is Mechanism.RESET:
                self._conclude(Outcome.RESET)
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
        self._unreadable = True
        return self._cut(Cap.MALFORMED, Happening.MALFORMED, now)

    def response_lost(self) -> None:
        """The server could not send the response, although the body was read to its end."""
        if self._outcome is Outcome.DELIVERED:
            self._outcome = Outcome.UNKNOWN
        self._sent = False

    def abandoned(self, now: float) -> Step:
        """The exchange cannot go on: its task is cancelled, or the server is stopping."""
        return self._cut(Cap.APPLICATION, Happening.ABANDONED, now)

    def connection_state(
        self, connection: Connection | None, now: float, *, buffered: bool = False
    ) -> Step:
        """The kernel was asked about the exchange's own connection.

        To be said where the client's socket is in reach: while `asks_kernel`, when a waiting was
        in vain, when the peer has left without an error (before `peer_gone`), and at the end,
        before the `event`.

        Args:
            connection: Its answer; None if it does not tell: then this is a `tick`.
            now: The time.
            buffered: Whether the server still has a part of the response that it has not handed
                to the kernel.
        """
        if connection is None:
            return self.tick(now)
        self._asked = True
        if self._state is State.DONE:
            self._close_book(connection, buffered=buffered)
            return self.step(now)
        if self._sent:
            self._unacked = connection.unacked
        if connection.reset:
            return self.peer_gone(Mechanism.RESET, now)
        self._peer_closed = connection.peer_closed
        self._acked = (
            self._sent and self._respond is None and not buffered and not connection.unacked
        )
        return self.tick(now)

    # What the shim has done, and the time.

    def responded(self, now: float) -> Step:
        """What `Respond` asked for is done."""
        self._respond = None
        self._sent = True
        self._acked = False
        # Nothing was read while it was being sent: that time is not the client's.
        self._idle_since = now
        if self._state is not State.LINGERING:
            self._since = now
        return self.tick(now)

    def tick(self, now: float) -> Step:
        """Time has passed, or somebody called ``wake``."""
        settings = self._settings
        state = self._state
        if state is State.KEPT:
            if now >= self._since + settings.respond_after:
                return self._happen(Happening.RESPOND_AFTER, now)
        elif state in _READING:
            cap, deadline = self._reading_deadline()
            if self._is_past(settings.max_bytes):
                return self._cut(Cap.MAX_BYTES, Happening.CAP, now)
            if now >= deadline:
                if cap is None:
                    self._conclude(Outcome.DELIVERED)
                    self._close = True
                    return self._happen(Happening.SETTLED, now)
                return self._cut(cap, Happening.CAP, now)
            if state is State.DRAINING and now >= self._respond_at():
                return self._happen(Happening.RESPOND_AFTER, now)
        elif state is State.QUEUED:
            if self._place is not None and self._place.reading:
                return self._happen(Happening.TURN, now)
            if now >= self._since + settings.max_seconds:
                return self._cut(Cap.MAX_SECONDS, Happening.CAP, now)
        elif state is State.HOLDING and now >= self._since + settings.hold_seconds:
            return self._happen(Happening.HOLD_OVER, now)
        return self.step(now)

    # The answers.

    @property
    def response_begun(self) -> bool:
        """Whether the application has sent the response's head."""
        return self._status is not None

    @property
    def ends_with_response(self) -> bool:
        """Whether what is to be read must be read before the server gets to know the response."""
        return self._server.ends_with_response and not self._left_alone

    @property
    def lingers_before_end(self) -> bool:
        """Whether nothing may be left to read when the server is told of the response's end.

        Who was turned away gets what the server does by itself.
        """
        return self._server.discards and self._cap is not Cap.MAX_LINGERING

    @property
    def treated(self) -> bool:
        """Whether the response is complete and is being delivered at this moment."""
        return self._state in _TREATED

    @property
    def early(self) -> bool:
        """Whether the response is, or was, an early one that was to be delivered."""
        return self._treated

    @property
    def asks_kernel(self) -> bool:
        """Whether the response is on its way, and nothing tells yet that it has arrived."""
        return self._sent and not self._acked and self._state in _TREATED

    @property
    def reads(self) -> bool:
        """Whether the body is to be read, also while what `Respond` asks for is being sent.

        But a client that waits for a 100 must not get it before the response, by our reading.
        """
        return self._state in _READING and (self._sent or not self._awaits_continue)

    @property
    def state(self) -> State:
        """Where the exchange stands."""
        return self._state

    def step(self, now: float) -> Step:
        """What to do now. Asking changes nothing."""
        if self._respond is not None:
            return self._respond
        settings = self._settings
        match self._state:
            case State.KEPT:
                return Keep(_left(self._since + settings.respond_after, now))
            case State.DRAINING:
                _, deadline = self._reading_deadline()
                return Read(_left(min(self._respond_at(), deadline), now))
            case State.LINGERING | State.CLEARING:
                _, deadline = self._reading_deadline()
                if self._asked and not self._acked:
                    # To be asked again, if no byte comes meanwhile.
                    deadline = min(deadline, now + ASK_AGAIN)
                return Read(_left(deadline, now))
            case State.QUEUED:
                return Hold(_left(self._since + settings.max_seconds, now))
            case State.HOLDING:
                return Hold(_left(self._since + settings.hold_seconds, now))
            case State.DONE:
                if self._server.end_waits and self._treated and not self.body_complete:
                    return Done(close=self._close, read_on=True)
                return _DONE_AND_CLOSE if self._close else _DONE
            case State.OPEN | State.STREAMING:
                return _FORWARD

    def event(self, now: float) -> UploadDrained | None:
        """The event for an exchange that is done; None if its response was no early one."""
        if not self._treated:
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
            unacked=self._unacked,
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

    def _cannot_be_treated(self) -> bool:
        return (
            self.body_complete
            or self._received == self._length
            or self._unreadable
            or self._is_left_alone()
        )

    def _is_streamed(self) -> bool:
        """Whether the response's head went out before the response was complete."""
        return self._sent or self._state is State.STREAMING

    def _ends_with_its_last_byte(self) -> bool:
        """Whether what has been begun as a stream is over for the server when it is out."""
        return self._server.ends_at_length and self._response_left == 0 and self._is_streamed()

    def _completion(self) -> Happening:
        if (
            self._cannot_be_treated()
            # Shorter or longer than it said: an error, and the server's to raise at once.
            or self._response_left not in (None, 0)
        ):
            return Happening.COMPLETE_LEFT_ALONE
        self._treated = True
        if self._awaits_continue and self._server.sends_continue is Continue.LATE:
            self._conclude(Outcome.CUT, Cap.EXPECT)
            return Happening.COMPLETE_REFUSED
        place = self._place = self._places.enter(self._wake)
        if not place.admitted:
            self._conclude(Outcome.CUT, Cap.MAX_LINGERING)
            return Happening.COMPLETE_REFUSED
        if not place.reading:
            return Happening.COMPLETE_QUEUED
        if self._awaits_continue or (self._unbounded and not self._whole_first):
            return Happening.COMPLETE_RESPOND_FIRST
        if self._ends_with_its_last_byte():
            return Happening.COMPLETE_DRAIN_FIRST
        return Happening.COMPLETE

    def _is_past(self, max_bytes: int) -> bool:
        if self._received == self._length:
            # Only its end is left to be told of.
            return False
        if self._length == CHUNKED and max_bytes > 0:
            # The end of a chunked body is a piece of its own, which may come next.
            return self._drained > max_bytes
        return self._drained >= max_bytes

    def _respond_at(self) -> float:
        if self._whole_first or (self._blocking and self._response_size > SMALL_RESPONSE):
            return math.inf
        if self._ends_with_its_last_byte():
            return math.inf
        return self._since + self._settings.respond_after

    def _reading_deadline(self) -> tuple[Cap | None, float]:
        """The first limit that ends the reading if no byte comes, and when.

        None is no limit: the response has arrived, and the peer has stopped sending.
        """
        settings = self._settings
        since = self._since
        idle = settings.idle_seconds
        if self._waits_in_vain():
            # A client which waits for its 100 sends nothing, and closes when it is answered.
            # Only one that did not wait has bytes under way.
            idle = min(idle, settings.hold_seconds)
        elif self._sent and self._response_left is None and not self._blocking:
            # The response ends where the exchange does. A client that has stopped sending may
            # be waiting for that.
            idle = min(idle, 2 * settings.hold_seconds)
        deadlines: list[tuple[float, Cap | None]] = [
            (self._idle_since + idle, None if self._acked else Cap.IDLE_SECONDS),
            (since + settings.max_seconds, Cap.MAX_SECONDS),
            (self._deadline, Cap.MAX_SECONDS),
        ]
        if settings.min_rate > 0:
            too_slow_at = since + max(MIN_RATE_GRACE, self._drained / settings.min_rate)
            deadlines.append((too_slow_at, Cap.MIN_RATE))
        deadline, cap = min(deadlines, key=lambda pair: pair[0])
        return cap, deadline

    def _close_book(self, connection: Connection, *, buffered: bool) -> None:
        """The kernel's last word, when the server has sent all that it will send."""
        if self._sent or connection.reset:
            self._unacked = connection.unacked
        if connection.reset:
            # The kernel has the same word for a peer that does not answer any more. And what had
            # been acknowledged was there, whatever the peer did then.
            is_new = self._outcome is not Outcome.DELIVERED or connection.unacked > 0
            if is_new and self._mechanism is not Mechanism.TIMEOUT:
                self._mechanism = Mechanism.RESET
                self._conclude(Outcome.RESET)
        elif self._cap is Cap.IDLE_SECONDS and self._sent and not (buffered or connection.unacked):
            # It was silent before it had the response, or it was slow to take it.
            self._outcome, self._cap = Outcome.DELIVERED, None

    def _waits_in_vain(self) -> bool:
        return self._drained == 0 and self._awaits_continue

    def _conclude(self, outcome: Outcome, cap: Cap | None = None) -> None:
        # What ended it stands: a peer that leaves during the hold was cut all the same.
        if self._cap is None:
            self._outcome = outcome
            self._cap = cap

    def _cut(self, cap: Cap, happening: Happening, now: float) -> Step:
        if self._state in _TREATED:
            # A client that kept to its Expect sent nothing which could have been cut.
            if not (cap is Cap.IDLE_SECONDS and self._waits_in_vain()):
                self._conclude(Outcome.CUT, cap)
            self._close = True
        return self._happen(happening, now)

    def _happen(self, happening: Happening, now: float) -> Step:
        transition = TRANSITIONS.get((self._state, happening))
        if transition is None:
            return self.step(now)
        state, send = transition
        close = send is _Send.KEPT_AND_CLOSE
        if happening is Happening.RESPOND_AFTER and not self._server.heeds_close:
            # It keeps the connection if the body ends after all, and closes it if not.
            close = False
        if send is not _Send.NOTHING:
            whole = (
                self._server.ends_at_length and self.response_complete and not self._is_streamed()
            )
            self._respond = Respond(close=close, whole=whole)
        if close:
            self._close = True
        if self._state is State.STREAMING:
            self._sent = True
        self._enter(state, now)
        return self.step(now)

    def _enter(self, state: State, now: float) -> None:
        if not (self._state is State.DRAINING and state is State.LINGERING):
            self._since = self._idle_since = now
        self._state = state
        if state is State.DONE:
            # The shim's object refers to this one: with its wake() it would be a cycle.
            self._wake = _do_nothing
            if self._place is not None:
                self._place.leave()
                self._place = None
        elif state is State.HOLDING and self._place is not None:
            if self._blocking:
                # So short a wait may take any worker: the next one would else be turned away.
                self._place.leave()
            else:
                self._place.stop_reading()


def _do_nothing() -> None:
    pass


def _left(deadline: float, now: float) -> float:
    return max(0.0, deadline - now)
