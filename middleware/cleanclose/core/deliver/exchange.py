"""One request with a body, and its response: when to drain the body, and when to respond.

`Exchange` does no I/O and reads no clock. A shim tells it what happened and when; it answers
with the next step. The rules are the table `TRANSITIONS`, and the choice of a `Patience`.
`cleanclose.core.deliver.linger` decides what happens to the connection after the response.

An early response is one that the application has completed while the body is unread. If the
connection then closes with unread bytes, the kernel answers them with a reset, and the client may
lose the response. So either the body is drained before the response goes out (the connection can be
used again, and some proxies get the response only this way), or the response goes out at once and
the lingerer takes the connection.
"""

from __future__ import annotations

from typing import Final

from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.linger import Linger
from cleanclose.core.deliver.patience import Connection, Drain, Patience, patience_for
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
from cleanclose.core.server import Server
from cleanclose.core.settings import Settings

__all__ = ["Connection", "Exchange"]

_FORWARD: Final = Forward()
_KEEP: Final = Keep()


class Exchange:
    """The state of one request with a body, and of its response.

    Every method that reports what happened takes ``now``, seconds on any clock that only goes
    forward, and returns the next step. A shim may ask `step` at any time.

    Args:
        settings: The limits.
        places: The places. Waiting for a client needs one.
        server: What is special about the server.
        connection: The client's connection.
        facts: The request, for the event.
        length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
        expectation: What the client expects before it sends the body.
        received: Bytes of the body that have been read before.
        started: The request's start.
    """

    __slots__ = (
        "_cap",
        "_connection",
        "_drain",
        "_expectation",
        "_facts",
        "_left_alone",
        "_mechanism",
        "_outcome",
        "_places",
        "_response_left",
        "_sent",
        "_server",
        "_settings",
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
        expectation: Expectation,
        started: float,
        received: int = 0,
    ) -> None:
        self._settings = settings
        self._places = places
        self._server = server
        self._connection = connection
        self._facts = facts
        self._expectation = expectation
        self._started = started
        self._drain = Drain(
            settings,
            length=length,
            received=received,
            started=started,
            worker_timeout=connection.worker_timeout,
        )

        self._state = State.OPEN
        self._takes_place = False
        self._left_alone = False
        self._treated = False

        self._status: int | None = None
        self._response_left: int | None = None
        self._streamed = False
        self._sent = False
        self._unreadable = False
        self._outcome = Outcome.UNKNOWN
        self._cap: Cap | None = None
        self._mechanism: Mechanism | None = None

        self.body_complete: bool = False
        """Whether anybody has read the body to its end."""
        self.response_complete: bool = False
        """Whether the application has completed its response."""
        self.handed_over: bool = False
        """Whether the lingerer has the connection, and so reports the event."""

    # What the application does.

    def leave_alone(self) -> None:
        """Send this response as if there were no middleware: the per-response opt-out."""
        self._left_alone = True

    def app_read(self, now: float) -> Step:
        """The application asks for a piece of the body."""
        self._expectation.met()
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

        A piece that reaches the response's Content-Length is kept back like the head: the message
        that it was the last one may still follow. The application could also go on reading, so the
        response does not count as complete before that message.

        Args:
            size: The piece's length in bytes.
            now: The time.
        """
        if self._response_left is not None:
            self._response_left -= size
        ends = self._server.ends_at_length and self._response_left == 0
        if size and ends and self._state is State.STREAMING:
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
            # Abandoned before: a place taken now would never be given back.
            return self.step(now)
        return self._happen(self._completion(), now)

    def app_failed(self, now: float) -> Step:
        """The application raised before it responded, and somebody else will answer.

        Only if nobody else can want the body, so not for a caller that may try another application.
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
        """A piece of the body has come, for the application or to be discarded.

        Args:
            size: The piece's length in bytes.
            complete: Whether the body ends with it.
            now: The time.
        """
        self._drain.arrived(size, now, unwanted=self.treated)
        if complete:
            self.body_complete = True
            if self._state is State.DRAINING:
                self._outcome = Outcome.DELIVERED
            return self._happen(Happening.BODY_END, now)
        return self.tick(now)

    def on_wire(self, size: int, body: int, now: float) -> Step:
        """Note the bytes that a chunked body has taken on the connection since its draining began.

        Args:
            size: How many bytes have been taken, the framing included.
            body: How many of them were the body's own.
            now: The time.
        """
        self._drain.on_wire(size, body)
        return self.tick(now)

    def counted(self, taken: int | None, now: float) -> Step:
        """`on_wire`, where only the connection itself counts what has been taken from it.

        Args:
            taken: How many bytes, since it began; None if it does not tell.
            now: The time.
        """
        if taken is not None:
            self._drain.counted(taken)
        return self.tick(now)

    def nothing_came(self, now: float) -> Step:
        """Nothing came within the time that `Read` gave."""
        if self._state is State.DRAINING and self.patience is Patience.ARRIVED:
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

    def is_moot(self, error: Exception) -> bool:
        """Whether an error of sending the response is nobody's to see.

        A server may raise in its ``send`` when the client has left (ASGI 2.4). Without us the
        application would have ended before that, if the client left while its body was drained.
        """
        return isinstance(error, OSError) and self._mechanism is not None

    def reading_failed(self, error: Exception, now: float) -> Step:
        """Somebody's reading of the body raised.

        An OSError is the connection's. Anything else is a server's own error for a body that it
        cannot parse: gunicorn's errors for a bad chunk are not OSErrors.

        Args:
            error: What was raised.
            now: The time.
        """
        if isinstance(error, OSError):
            return self.peer_gone(Mechanism.of(error), now)
        return self.body_malformed(now)

    def body_malformed(self, now: float) -> Step:
        """The server cannot parse the rest of the body."""
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

    def connection_closes(self, error: object, seen: Mechanism | None, now: float) -> Step:
        """The server is about to close the connection, while something may be kept back.

        Args:
            error: The error for which it does, if it is for one.
            seen: How the peer has left, by the kernel; None if it has not.
            now: The time.
        """
        if isinstance(error, Exception):
            return self.reading_failed(error, now)
        if seen is not None:
            return self.peer_gone(seen, now)
        # It stops, or has waited for the body for long enough.
        return self.abandoned(now)

    # What the shim has done, and the time.

    def linger(self, now: float, *, unread: int = 0) -> Linger:
        """Make the lingerer's state for this exchange's connection, whose event it will report.

        Args:
            now: The time.
            unread: Bytes that the server has taken from the connection, and that nobody will get.
        """
        self.handed_over = True
        drain = self._drain
        drain.taken_by_server(unread)
        return Linger(
            self._settings,
            facts=self._facts,
            status=self._status,
            proxied=self._connection.proxied,
            awaits_continue=self._expectation.awaited,
            received=drain.received,
            drained=drain.drained,
            left=drain.left,
            started=self._started,
            now=now,
            half_closes=self._connection.half_closes,
        )

    def no_descriptor(self) -> None:
        """No descriptor was left for the lingerer: the connection ends as without us."""
        self.handed_over = False
        self._cut(Cap.NO_DESCRIPTOR)

    def responded(self, now: float) -> Step:
        """What `Respond` asked for is done."""
        self._sent = True
        return self._happen(Happening.RESPONDED, now)

    def tick(self, now: float) -> Step:
        """Time has passed."""
        if self._state is State.DRAINING:
            cap = self._drain.limit_reached(now)
            if cap is None and not self._drain.is_due(now):
                cap = Cap.MAX_SECONDS
            if cap is not None:
                if not self._connection.lingers:
                    self._cut(cap)
                return self._happen(Happening.ENOUGH, now)
        return self.step(now)

    # The answers.

    @property
    def response_begun(self) -> bool:
        """Whether the application has sent the response's head."""
        return self._status is not None

    def takes(self, *, head: bool) -> bool:
        """Whether a response's head, or else a piece of its body, may come now."""
        return not self.response_complete and self.response_begun is not head

    @property
    def treated(self) -> bool:
        """Whether the response is complete and is being delivered at this moment."""
        return self._state in (State.DRAINING, State.RESPONDING)

    @property
    def early(self) -> bool:
        """Whether the response is, or was, an early one that was to be delivered."""
        return self._treated

    @property
    def is_kept_whole(self) -> bool:
        """Whether all of an early response is there: if its head is, too, it gets a length."""
        return self._treated and self.response_complete

    @property
    def state(self) -> State:
        """The exchange's state."""
        return self._state

    @property
    def may_read(self) -> bool:
        """Whether the body may be read for nobody: a client that waits for a 100 gets none."""
        return not self._unreadable and not self._forbids_reading

    @property
    def frames_unseen(self) -> bool:
        """Whether the interface hides bytes of the body that is drained: those of its framing."""
        hides = self._drain.length == CHUNKED and not self._connection.multiplexed
        return hides and self._state is State.DRAINING

    @property
    def drained(self) -> int:
        """Bytes of the body that were discarded before the response."""
        return self._drain.drained

    @property
    def most_received(self) -> int:
        """Bytes of a body without a length that a server may take which reads on as it responds."""
        return self._drain.received + self._settings.max_bytes

    @property
    def patience(self) -> Patience:
        """How long the body is drained, once the response is complete."""
        return self._drain.patience

    def step(self, now: float) -> Step:
        """The next step. Asking changes nothing."""
        match self._state:
            case State.KEPT:
                return _KEEP
            case State.DRAINING:
                return Read(self._drain.wait(now))
            case State.RESPONDING:
                return Respond(
                    close=not self._connection.multiplexed,
                    linger=self._connection.lingers and not self._unreadable,
                    in_one_piece=self._in_one_piece(),
                )
            case State.DONE:
                return Done(in_one_piece=self._in_one_piece())
            case State.OPEN | State.STREAMING:
                return _FORWARD

    def event(self, now: float) -> UploadDrained | None:
        """The event for an exchange that is done.

        Returns:
            None if its response was not an early one, or if the lingerer has it.
        """
        if not self._treated or self.handed_over:
            return None
        drain = self._drain
        return UploadDrained(
            facts=self._facts,
            age_ms=round((now - self._started) * 1000, 3),
            outcome=self._outcome,
            cap=self._cap,
            mechanism=self._mechanism,
            status=self._status if self._sent or self._outcome is Outcome.DELIVERED else None,
            bytes_in=drain.received,
            drained=drain.drained,
            expected_in=None if drain.length == CHUNKED else drain.length,
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
            # If an application has failed without a response, a 500 is on its way.
            or (statuses is not None and (self._status or 500) not in statuses)
        )

    def _completion(self) -> Happening:
        if (
            self.body_complete
            or self._drain.all_received
            or self._unreadable
            or self._is_left_alone()
            # Shorter or longer than declared: an error that the server raises at once.
            or self._response_left not in (None, 0)
        ):
            return Happening.COMPLETE_LEFT_ALONE
        self._treated = True
        self._drain.patience = patience_for(
            self._connection,
            self._settings,
            left=self._drain.left,
            awaits_continue=self._forbids_reading,
            only_worker=self._places.most == 0,
            take_place=self._take_place,
        )
        if self.patience is Patience.NONE:
            if not self._connection.lingers:
                self._cut(self._drain.refused_by(forbidden=self._forbids_reading))
            return Happening.COMPLETE_RESPOND
        return Happening.COMPLETE_DRAIN

    @property
    def _forbids_reading(self) -> bool:
        return self._expectation.forbids_reading(streamed=self._streamed)

    def _take_place(self) -> bool:
        self._takes_place = self._places.take(self._connection.address)
        return self._takes_place

    def _in_one_piece(self) -> bool:
        return self._server.ends_at_length and self.response_complete and not self._streamed

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
            self._drain.begin(now)
        elif state is State.STREAMING:
            self._streamed = True
        self._state = state
        if self._takes_place and state is not State.DRAINING:
            self._takes_place = False
            self._places.give_back(self._connection.address)
