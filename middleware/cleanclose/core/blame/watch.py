"""What the witnesses of one exchange have seen of its peer, and what follows from it at the end.

`Watch` does no I/O and reads no clock. A shim reports what passes through the callables that it
gave to the application. Every verdict rests on that provenance.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

from cleanclose.core.blame.departures import announce
from cleanclose.core.blame.judge import CARRIERS, judge, mark, marked, masked, unmask
from cleanclose.core.blame.provenance import calls_into, chain, frames_of, raised_by
from cleanclose.core.blame.upstreams import library_of, likely_cause_of
from cleanclose.core.conduct import CONDUCT, Conduct, End, Treatment
from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.events import (
    ClientDeparted,
    Event,
    Facts,
    Mechanism,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UpstreamReset,
    Verdict,
    Witness,
)
from cleanclose.core.stop import UNSAFE_METHODS, Stops

__all__ = [
    "COMPLETE",
    "CURRENT",
    "GONE",
    "OPEN",
    "STREAMING",
    "Watch",
    "current",
]

OPEN: Final = 0
"""Nothing of the response's body has been handed over."""
STREAMING: Final = 1
"""Pieces of it have, but not the last."""
COMPLETE: Final = 2
"""The application has handed over all of its response."""
GONE: Final = 3
"""The peer has left before that."""


class Watch:
    """One exchange's peer, as its witnesses see it.

    Each shim has a subclass, which holds the facts and the callables that it gives to the
    application.

    Nearly every exchange ends with nothing to report. So the start sets only what such an exchange
    needs, in slots; everything else has its default on the class.

    Args:
        now: The request's start, in seconds on any clock that only goes forward.
    """

    __slots__ = ("__dict__", "progress", "started")

    started: float
    progress: int
    """How far the response has come: `OPEN` and so on. A shim may itself set it from `OPEN` to
    `COMPLETE`, as nearly every request does; for all other changes there are methods.
    """
    is_sample: bool = False
    """Whether it is a sample of the requests that come. The reporter sets it."""
    is_websocket: bool = False
    """Whether the exchange is a websocket's."""
    body_complete: bool = True
    """Whether the application has received all of the request's body."""
    bytes_in: int = 0
    """Bytes of the request's body that it has received."""
    has_read: bool = False
    """Whether anybody has begun to read it: a client that waits for a 100 has received one."""
    read_error: Exception | None = None
    """What the application's reading of the body has raised, where that shows."""
    body_arrived: bool = False
    """Whether the server has all of it, read or not."""
    expected_in: int | None = None
    """The body's declared length, if it has one."""
    bytes_out: int = 0
    """Bytes of the response's body that the server has received, without the last piece."""
    sends_unseen: bool = False
    """Whether the server sends the body by itself, so that nobody knows how much it has sent."""
    in_flight: int = 0
    """How many of these the server may still hold, because it has to wait until it can write."""
    departure: Verdict | None = None
    """What the witnesses say; None if none has seen the peer leave."""
    goodbye: Verdict | None = None
    """The same for a peer that left with its whole response, before the application had said that
    it was the whole. That is not a departure, but exceptions that follow from it are the peer's."""
    stopping: bool = False
    """Whether the process is stopping: it is then not the client who ends the exchange."""
    cut_short: bool = False
    """Whether the application heard in the middle of the body that no more of it will come."""
    ended: bool = False
    """Whether the exchange is over; its witnesses prove nothing about what comes after."""
    delivery: Exchange | None = None
    """The delivery of its response, if that has begun while the request's body was incomplete."""
    left_alone: bool = False
    """Whether the application wants its response sent as if there were no middleware."""
    stops: Stops | None = None
    """The book of those who want the work stopped when the peer leaves; None if there are none."""
    _key: str = ""
    _gone_at: float | None = None
    _bytes_out_before: int | None = 0
    _completed_in_vain: bool = False
    _truncated: bool = False
    _broken_calls: tuple[FrameType, ...] = ()

    def __init__(self, now: float) -> None:
        self.started = now
        self.progress = OPEN

    @property
    def key(self) -> str:
        """The name of this exchange in the marks on exceptions, unique across processes."""
        if not self._key:
            self._key = os.urandom(8).hex()
        return self._key

    @property
    def status(self) -> int | None:
        """The response's status, once the application has begun to respond. Shims implement it."""
        raise NotImplementedError

    def facts(self) -> Facts:
        """The facts of this exchange. Shims implement it; it is called only when needed."""
        raise NotImplementedError

    def is_for(self, request: Mapping[str, Any], /) -> bool:
        """Whether this is the exchange of a request that an inner middleware receives.

        The shim's to say.

        Args:
            request: The request, as the interface hands it on: a scope, an environ.
        """
        return False

    @property
    def is_over(self) -> bool:
        """Whether nothing of the exchange can be lost any more."""
        return self.ended or self.progress == COMPLETE

    def awaited_out(self) -> int | None:
        """How many bytes of the response's body the peer waits for, by the head that it has.

        Shims implement it (`cleanclose.core.deliver.framing.awaited_length`); it is called only
        when the peer has left. None as long as only the response's end can tell.
        """
        return None

    def ask(self) -> None:
        """Ask whether the peer has left, where asking costs nothing. Shims implement it.

        `peer_gone` is called if it has.
        """

    def look_out(self) -> None:
        """Watch for the departure from now on, because somebody waits for it. Shims implement it.

        It calls `peer_gone` when it sees the departure. If the server reports it anyway, there is
        nothing to do.
        """

    def may_stop(self) -> bool:
        """Whether the departure ends the work for this exchange.

        Not while the process is stopping: then the server ends it in its own way.
        """
        return self.departure is not None and self.departure.side is Side.CLIENT

    def write_stops(self) -> Stops:
        """The book of who wants the work stopped, begun if there is none yet."""
        if self.stops is None:
            self.stops = Stops()
            if self.may_stop():
                self.stops.peer_left()
        return self.stops

    def find_witness(self, error: BaseException) -> None:
        """Check whether an error came out of the exchange's connection. Shims implement it.

        This is for errors that passed where none of our code was. It calls `peer_gone` if so.
        """

    def idle_before(self, now: float) -> float | None:
        """For how many seconds the connection had been idle when the request came.

        Shims implement it; it is called only when the peer has left. None if that is not known, and
        for the first request of a connection.
        """
        return None

    def is_sending(self, frame: FrameType) -> bool:
        """Whether a frame of the call stack is the server's own send for this exchange.

        Shims implement it. Everything that the server's code does inside that call happens on the
        exchange's connection.
        """
        return False

    def is_aftermath(self, error: BaseException) -> bool:
        """Whether an error is the server's own, from its work after this exchange.

        Shims implement it; it is called once the exchange is over and its peer had left. The error
        must have come out of a lost connection, and only the server's code may have been involved.
        """
        return False

    def ask_transport(self, transport: object) -> None:
        """Ask whether the peer has reset this connection of the exchange. Shims implement it.

        `peer_gone` is called if it has.

        Args:
            transport: The asyncio transport that the server's own send has written to in vain.
        """

    def has_left(self, error: BaseException | None = None) -> bool:
        """Whether the client has left, for a line written before the exchange is over.

        It changes nothing: at the end the witnesses decide.

        Args:
            error: What the server is about to raise, where it writes its line meanwhile.
        """
        return self.departure is not None and self.departure.side is Side.CLIENT

    @property
    def response_complete(self) -> bool:
        """Whether the application has handed over all of its response, even in vain."""
        return self.progress == COMPLETE or self._completed_in_vain

    @property
    def phase(self) -> Phase:
        """How far the exchange has come."""
        if self.is_websocket:
            return Phase.WEBSOCKET
        if self.status is not None:
            begun = self.bytes_out or self.sends_unseen
            return Phase.RESPONSE_BODY if begun else Phase.RESPONSE_START
        has_all = self.body_complete or self.body_arrived
        return Phase.HANDLER if has_all else Phase.REQUEST_BODY

    def response_piece(self, size: int) -> None:
        """The application has handed over a piece of its response, and more may come."""
        self.bytes_out += size
        if self.progress == OPEN:
            self.progress = STREAMING

    def file_broke_off(self, size: int | None) -> None:
        """The server sent a file by itself and had read so many bytes; None if nobody knows."""
        if size is None:
            self.sends_unseen = True
        else:
            self.bytes_out = size

    def response_completed(self) -> None:
        """The application has handed over all of its response."""
        if self.progress == GONE:
            self._completed_in_vain = True
        else:
            self.progress = COMPLETE

    def response_failed(self) -> None:
        """A response that was complete for the application could not be sent."""
        if self.progress == COMPLETE:
            self._completed_in_vain = True
            self.progress = STREAMING if self.bytes_out else OPEN

    def peer_gone(
        self,
        witness: Witness,
        now: float,
        error: BaseException | None = None,
        mechanism: Mechanism | None = None,
        *,
        late: bool = False,
        unsent: bool = False,
    ) -> None:
        """A witness has seen that the peer has left.

        After a complete response, or the last byte of its Content-Length, it is no departure.

        Args:
            witness: Where it was seen.
            now: The time.
            error: What came out of the connection, if it was an exception. It is marked.
            mechanism: How the peer left; what the error says if it is not given.
            late: Whether the witness was asked only now, so that the moment of the departure is not
                known.
            unsent: Whether the server could not write what it had of the response: then that is
                not complete, even if it was for the application.
        """
        if unsent:
            self.response_failed()
        if self.progress == COMPLETE:
            return
        mechanism = mechanism or Mechanism.of(error)
        known = self.departure
        if known is None and self._peer_has_all:
            self._note_goodbye(witness, mechanism, error)
            return
        if known is None:
            self._gone_at = None if late else now
            self._bytes_out_before = None if self.sends_unseen else self.bytes_out
            side = Side.SERVER if self.stopping else Side.CLIENT
            phase = self.phase
            witnesses: tuple[Witness, ...] = (witness,)
        else:
            side, phase, seen = known.side, known.phase, known.witnesses
            if known.mechanism is not Mechanism.UNKNOWN:
                mechanism = known.mechanism
            witnesses = seen if witness in seen else (*seen, witness)
        self.progress = GONE
        self.departure = Verdict(side=side, phase=phase, mechanism=mechanism, witnesses=witnesses)
        self._mark(error, self.departure)
        if error is not None and witness is Witness.INPUT:
            self._broken_calls = calls_into(CARRIERS)
        self._announce(mechanism, now)

    def _announce(self, mechanism: Mechanism, now: float) -> None:
        if self.delivery is not None and not self.delivery.treated:
            # Nothing is left to wait for.
            self.delivery.peer_gone(mechanism, now)
        announce()
        if self.stops is not None and self.may_stop():
            self.stops.peer_left()

    def _note_goodbye(
        self, witness: Witness, mechanism: Mechanism, error: BaseException | None
    ) -> None:
        self.goodbye = Verdict(
            side=Side.CLIENT, phase=self.phase, mechanism=mechanism, witnesses=(witness,)
        )
        self._mark(error, self.goodbye)

    def _mark(self, error: BaseException | None, verdict: Verdict) -> None:
        if error is not None:
            mark(error, verdict, self.key, at_home=current() is self)

    @property
    def _peer_has_all(self) -> bool:
        # Nobody has received the rest of the request's body.
        if self.is_websocket or not self.body_complete or self.status is None:
            return False
        length = self.awaited_out()
        return length is not None and self.bytes_out - self.in_flight >= length

    def body_truncated(self, now: float, error: BaseException | None = None) -> None:
        """The body ended before its declared length, and the server takes that for its end.

        Args:
            now: The time.
            error: What the application gets for it, if it is an exception. It is marked.
        """
        known = self.departure
        # After a reset that another witness has met, a reader finds only an end.
        self._truncated = known is None or known.mechanism is not Mechanism.RESET
        self.peer_gone(Witness.INPUT, now, error, mechanism=Mechanism.EOF)

    def judge(self, error: BaseException) -> Verdict:
        """Judge whose fault an exception of this exchange is."""
        self._find_witnesses(error)
        return judge(error, self._witnessed, self.phase, self.key)

    def unmask(self, error: BaseException) -> BaseException:
        """Choose the exception to judge, report and raise: this one, or the one that it hides.

        A client that leaves at the right moment must not be able to hide an error.

        Args:
            error: What the application has raised.

        Returns:
            The application's own error that was being handled when the client's came; the
            exception itself where there is none.
        """
        if not isinstance(error, Exception):
            # Whoever cancels this work waits for exactly that.
            return error
        self._find_witnesses(error)
        return unmask(error, self._witnessed, self.key)

    @property
    def _witnessed(self) -> Verdict | None:
        """Proofs that an exception is the peer's, as good as an error of its own connection."""
        return None if self.ended else self.departure or self.goodbye

    def _find_witnesses(self, error: BaseException) -> None:
        if not self.ended:
            # This includes what was cut off from the chain: it may be the server's own.
            for each in chain(error, lambda _: True):
                if marked(each) is None:
                    self.find_witness(each)
                    self._find_broken_call(each)

    def _find_broken_call(self, error: BaseException) -> None:
        """Whether a client library raised it in a call under which the client's body broke off.

        Some (urllib3) take that for a fault of their own connection, wait for an answer to half a
        request, and finally report that there was none.
        """
        departure = self.departure
        if departure is None or not self._broken_calls or not raised_by(error, CARRIERS):
            return
        if any(frame is call for frame in frames_of(error) for call in self._broken_calls):
            mark(error, departure, self.key)

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        """Say what the server would do with an exception of the application's. Shims implement it.

        Args:
            error: The exception.
            side: Whose it is.
        """
        return Treatment.SHOWN

    def app_ended(self, now: float, error: BaseException | None = None) -> End:
        """The application has returned or raised, and the exchange is over.

        It may raise a second time, from what it closes after its response: the departure was
        reported by then.

        Args:
            now: The time.
            error: What it raised, if it did.

        Returns:
            What there is to report, and what becomes of the error.
        """
        events: list[Event] = []
        conduct = Conduct()
        if error is not None and not isinstance(error, Exception):
            self._cancelled(now)
            events += self._hidden_by_cancelling(error, now)
        elif error is not None:
            error = self.unmask(error)
            verdict = self.judge(error)
            conduct = CONDUCT[verdict.side, self.treatment(error, verdict.side)]
            if conduct.told:
                events.append(self.upstream_reset(error, verdict, now, restored=conduct.restored))
        if self.departure is not None and not self.ended and not self._is_delivered:
            events.append(self._departed(self.departure, now, failed=error is not None))
        self.ended = True
        # Frames hold all of their locals.
        self._broken_calls = ()
        return End(events=tuple(events), conduct=conduct, error=error)

    def _hidden_by_cancelling(self, error: BaseException, now: float) -> Iterator[UpstreamReset]:
        """The exception that was ending the application when its work was cancelled.

        Whoever cancelled it waits for exactly that exception, and does not report it.
        """
        own = None if self.departure is None or self.ended else masked(error)
        if own is not None and self.departure is not None and self.departure.side is Side.CLIENT:
            yield self.upstream_reset(own, self.judge(own), now, restored=True)

    @property
    def _is_delivered(self) -> bool:
        """Whether its response was an early one, whose own event says how the peer left."""
        return self.delivery is not None and self.delivery.early

    def _cancelled(self, now: float) -> None:
        """Something outside ended the exchange: if it was not the peer, it was this process.

        That is a stopping server, or a time limit around the application.
        """
        if self.progress in (OPEN, STREAMING):
            self.stopping = True
            self.peer_gone(Witness.SERVER, now, mechanism=Mechanism.CANCELLED)

    def upstream_reset(
        self, error: BaseException, verdict: Verdict, now: float, *, restored: bool = False
    ) -> UpstreamReset:
        """The event for an error of the application's.

        Args:
            error: The error.
            verdict: Whose it is.
            now: The time.
            restored: Whether the server would have hidden it.
        """
        return UpstreamReset(
            facts=self.facts(),
            age_ms=self._age(now),
            verdict=verdict,
            error=f"{type(error).__module__}.{type(error).__qualname__}",
            library=library_of(error, _is_clients),
            likely_cause=likely_cause_of(error, _is_clients),
            restored=restored,
            exception=error,
        )

    def _departed(self, verdict: Verdict, now: float, *, failed: bool) -> ClientDeparted:
        facts = self.facts()
        completed = self.response_complete and not failed
        accepted = completed and self.status is not None and self.status < 400
        wasted = 0.0 if self._gone_at is None else now - self._gone_at
        # A status that was made after the peer had gone was never sent.
        sent = verdict.phase in (Phase.RESPONSE_START, Phase.RESPONSE_BODY)
        common: dict[str, Any] = {
            "facts": facts,
            "age_ms": self._age(now),
            "verdict": verdict,
            "bytes_in": self.bytes_in,
            "expected_in": self.expected_in,
            "bytes_out": self._bytes_out_before,
            "wasted_seconds": round(wasted, 6) if wasted > 0 else None,
            "idle_seconds": self.idle_before(now),
        }
        if self.stops is not None and self.stops.stopped:
            common |= {"stopped": True, "overdue": self.stops.overdue or None}
        if self._truncated or (accepted and self.cut_short):
            # Falcon's ASGI stream, for example, hands such a body to the handler like any other.
            return TruncatedUpload(status=self.status, accepted=accepted, **common)
        if accepted and facts.method in UNSAFE_METHODS and not sent:
            return ResponseUndelivered(status=self.status, **common)
        return ClientDeparted(status=self.status if sent else None, **common)

    def _age(self, now: float) -> float:
        return round((now - self.started) * 1000, 3)


def _is_clients(error: BaseException) -> bool:
    return marked(error) is not None


CURRENT: Final[contextvars.ContextVar[Watch | None]] = contextvars.ContextVar(
    "cleanclose_watch", default=None
)
"""The exchange that this task or thread works for."""


def current() -> Watch | None:
    """The exchange that this task or thread works for; None outside of one."""
    return CURRENT.get()
