"""The vocabulary of events: frozen records, and closed sets for their labels."""

from __future__ import annotations

import dataclasses
import enum
import errno
from collections.abc import Mapping
from typing import ClassVar, Final, cast

from cleanclose.core.bounded import bounded

__all__ = [
    "Cap",
    "Cause",
    "ClientDeparted",
    "DepartureSurge",
    "Event",
    "Facts",
    "Mechanism",
    "Outcome",
    "Phase",
    "ResponseUndelivered",
    "Side",
    "TruncatedUpload",
    "UploadDrained",
    "UpstreamReset",
    "Verdict",
    "Witness",
]


class Side(enum.StrEnum):
    """Who ended it."""

    CLIENT = "client"
    SERVER = "server"
    """This process: it is stopping, or a limit of its own was reached."""
    UPSTREAM = "upstream"
    UNKNOWN = "unknown"


class Phase(enum.StrEnum):
    """How far the exchange had come."""

    CONNECT = "connect"
    TLS_HANDSHAKE = "tls_handshake"
    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    HANDLER = "handler"
    RESPONSE_START = "response_start"
    RESPONSE_BODY = "response_body"
    KEEPALIVE_IDLE = "keepalive_idle"
    WEBSOCKET = "websocket"
    TLS_SHUTDOWN = "tls_shutdown"


class Witness(enum.StrEnum):
    """Where on the exchange's own connection somebody saw that the peer had left."""

    RECEIVE = "receive"
    """ASGI: what the server's ``receive`` said or raised."""
    SEND = "send"
    """ASGI: what the server's ``send`` raised."""
    INPUT = "wsgi.input"
    """WSGI: what reading the body raised, or that it ended too soon."""
    WRITE = "write"
    """What writing the response raised: WSGI's write callable, a tornado write future."""
    CLOSE = "close"
    """WSGI: the server closed the response before it had asked for all of it."""
    STREAM = "iostream"
    """Tornado: the IOStream of this very request was closed."""
    SOCKET = "socket"
    """What the kernel answered about the client's socket."""
    SERVER = "server"
    """The server's own object behind the interface has noted it."""


class Mechanism(enum.StrEnum):
    """How a peer left."""

    RESET = "reset"
    BROKEN_PIPE = "broken_pipe"
    ABORTED = "aborted"
    EOF = "eof"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    STREAM_RESET = "stream_reset"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, error: BaseException | None) -> Mechanism:
        """The mechanism behind an error that came out of the peer's own connection.

        Args:
            error: The error; None if the interface gives none.
        """
        if isinstance(error, TimeoutError):
            return cls.TIMEOUT
        if isinstance(error, OSError) and error.errno is not None:
            return _BY_ERRNO.get(error.errno, cls.UNKNOWN)
        return cls.UNKNOWN


_BY_ERRNO: Final[Mapping[int, Mechanism]] = {
    errno.ECONNRESET: Mechanism.RESET,
    errno.ECONNABORTED: Mechanism.ABORTED,
    errno.EPIPE: Mechanism.BROKEN_PIPE,
    errno.ETIMEDOUT: Mechanism.TIMEOUT,
}


class Outcome(enum.StrEnum):
    """What became of an early response."""

    DELIVERED = "delivered"
    """The body was read to its end, or the peer closed in good order after the response, or its
    kernel has acknowledged all of it and the peer has stopped sending."""

    CUT = "cut"
    """A limit ended the discarding (see `Cap`); the client may or may not have read the
    response."""

    RESET = "reset"
    """The peer reset the connection."""

    UNKNOWN = "unknown"
    """There is no evidence: the peer was gone and the interface does not say how; or its kernel had
    not acknowledged the response by then; or the peer waited for a 100 and sent nothing."""


class Cap(enum.StrEnum):
    """The limit that cut the discarding of a body short."""

    MAX_BYTES = "max_bytes"
    MAX_SECONDS = "max_seconds"
    IDLE_SECONDS = "idle_seconds"
    MIN_RATE = "min_rate"
    MAX_LINGERING = "max_lingering"
    EXPECT = "expect"
    """The client waits for a 100, and on this server reading would send one too late."""
    MALFORMED = "malformed"
    """The server could not make out the body's framing."""
    APPLICATION = "application"
    """The application's own task was cancelled, or the server is stopping."""
    NO_DESCRIPTOR = "no_descriptor"
    """The process had no file descriptor left for the connection."""


class Cause(enum.StrEnum):
    """The property that departures share when they are no longer random."""

    ROUTE = "route"
    """One route has more of them than its requests explain."""
    ONE_CLIENT = "one_client"
    """One client, or one network (a /24, or a /64), has."""
    SAME_BYTES = "same_bytes"
    """Uploads break off after the same number of bytes."""
    SAME_AGE = "same_age"
    """They leave after the same time."""
    IDLE_REUSE = "idle_reuse"
    """They leave at once, on connections that have been idle for the same time."""
    DEPLOY = "deploy"
    """Many at once when this process stops, or has just started."""
    UNDELIVERED = "undelivered"
    """Early responses are not delivered, although they used to be."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whose fault it was, and the evidence.

    Args:
        side: Who ended it.
        phase: How far the exchange had come.
        mechanism: How, as far as the interface says.
        witnesses: Where it was seen. Without one nothing is ever the client's.
    """

    side: Side
    phase: Phase
    mechanism: Mechanism = Mechanism.UNKNOWN
    witnesses: tuple[Witness, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a shim knows about a request.

    Only ``framework``, ``server`` and ``route`` may ever be a metric's labels. Texts that a client
    can choose are bounded here (`cleanclose.core.bounded`), for all outlets.

    Args:
        framework: ``asgi``, ``wsgi`` or ``tornado``.
        server: The server's name; ``unknown`` if we do not recognise it.
        method: The request's method; ``WEBSOCKET`` for a websocket.
        client: The peer's address, if known.
        route: The route's pattern, if the framework names it.
        request_id: The request's ``X-Request-ID``, if it had one.
        trace_id: The trace id of its ``traceparent`` (W3C Trace Context, 3.2), if it had one.
        idempotency_key: The request's ``Idempotency-Key``, if it had one.
    """

    framework: str
    server: str
    method: str
    client: str | None = None
    route: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        for name in _CHOSEN:
            text: str | None = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, bounded(text))


_CHOSEN: Final = ("method", "client", "route", "request_id", "trace_id", "idempotency_key")
"""The texts that a client can choose, at least in part."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """The base of all events.

    Args:
        facts: The request.
        age_ms: Milliseconds from the request's start to the event.
    """

    name: ClassVar[str]

    facts: Facts
    age_ms: float

    def fields(self) -> dict[str, object]:
        """The event's fields for a log line: plain values, and only known ones.

        Seconds and milliseconds have three decimals at most. The event's own attributes, and the
        counters, are exact.
        """
        plain: dict[str, object] = {}
        for field in dataclasses.fields(self):
            value: object = getattr(self, field.name)
            if isinstance(value, Facts | Verdict):
                plain.update(
                    (part.name, _plain(getattr(value, part.name)))
                    for part in dataclasses.fields(value)
                )
            elif isinstance(value, float) and field.name.startswith(_TIMES):
                plain[field.name] = round(value, _DECIMALS)
            elif not isinstance(value, BaseException):
                plain[field.name] = _plain(value)
        return {key: value for key, value in plain.items() if value is not None}


_TIMES: Final = ("age_ms", "wasted_seconds", "idle_seconds", "seconds")
_DECIMALS: Final = 3
"""Round to what a reader needs: 9.4e-05 wasted seconds are none."""


def _plain(value: object) -> object:
    if isinstance(value, enum.StrEnum):
        return value.value
    if isinstance(value, tuple):
        return ",".join(map(str, cast("tuple[object, ...]", value)))
    return value


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UploadDrained(Event):
    """An early response was sent, and the rest of the request's body was discarded for it.

    Args:
        outcome: What became of the response.
        cap: The limit that was reached, if the outcome is `Outcome.CUT`.
        mechanism: How the peer left, if it did.
        status: The response's status; None if it was not sent.
        bytes_in: Bytes of the body that were received, all in all.
        drained: How many of them were discarded.
        expected_in: The body's declared length; None if it was chunked.
        unacked: Bytes of the response that the peer's kernel had not acknowledged when we last
            asked ours; None if we could not ask, or if the response was not sent by then.
        note: A sentence where the other fields need one: the client left before the response
            was sent, or the process had no place for the connection. Not an argument.
    """

    name: ClassVar[str] = "upload_drained"

    outcome: Outcome
    cap: Cap | None = None
    mechanism: Mechanism | None = None
    status: int | None = None
    bytes_in: int = 0
    drained: int = 0
    expected_in: int | None = None
    unacked: int | None = None
    note: str | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "note", self._note())

    def _note(self) -> str | None:
        if self.cap is Cap.MAX_LINGERING:
            return _NO_PLACE
        if self.status is None and self.outcome in (Outcome.RESET, Outcome.UNKNOWN):
            return _LEFT_FIRST
        return None


_LEFT_FIRST: Final = "the client left first"
_NO_PLACE: Final = (
    "as many connections lingered as max_lingering allows: this one was closed early, and its"
    " client may not have read the response"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientDeparted(Event):
    """The peer left before the exchange was complete.

    Args:
        verdict: Whose fault, when, how, and who saw it.
        status: The response's status; None if none of the response was sent before.
        bytes_in: Bytes of the request's body that the application has received.
        expected_in: The body's declared length; None if it has none.
        bytes_out: Bytes of the response's body that were handed to the server before; None if the
            server was sending a file by itself and cannot say how far it was.
        wasted_seconds: For how many seconds the handler went on after the peer had gone; None if
            the moment of the departure is not known.
        idle_seconds: For how many seconds the connection had been idle when the request came;
            None if that is not known, and for the first request of a connection.
        stopped: True if the work for the request was cut short because nobody waited for it any
            more (``stop_work``, `cleanclose.core.raise_if_gone`).
        overdue: True if the clean-up of that work took longer than it may.
        nginx: The status that nginx's access log has for the same thing. It is never sent.
        haproxy: HAProxy's termination state for it.
        envoy: Envoy's response flag for it.
    """

    name: ClassVar[str] = "client_departed"

    verdict: Verdict
    status: int | None = None
    bytes_in: int = 0
    expected_in: int | None = None
    bytes_out: int | None = 0
    wasted_seconds: float | None = None
    idle_seconds: float | None = None
    stopped: bool | None = None
    overdue: bool | None = None
    nginx: str = "499"
    haproxy: str = "CD"
    envoy: str = "DC"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ResponseUndelivered(ClientDeparted):
    """The peer left, and will not know that its unsafe request was carried out.

    A POST, PUT, PATCH or DELETE got a status below 400, and nothing of that answer had left. A
    client that retries does it twice, unless there is an idempotency key.

    Args:
        verdict: See `ClientDeparted`, as for all other fields.
    """

    name: ClassVar[str] = "response_undelivered"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TruncatedUpload(ClientDeparted):
    """The peer left in the middle of an upload, and the part was taken for the whole.

    Args:
        verdict: See `ClientDeparted`, as for all other fields.
        accepted: Whether the application still answered with a status below 400.
    """

    name: ClassVar[str] = "truncated_upload"

    accepted: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamReset(Event):
    """An upstream, which the application itself had connected to, reset that connection.

    Args:
        verdict: Whose fault, when and how.
        error: The error's class.
        library: The library it came through, if the traceback shows it.
        likely_cause: What such an error most often means, if that is known.
        restored: Whether the server would have taken it for its client's and hidden it.
        exception: The error itself, for an outlet that can show a traceback. It is not a field of
            log lines.
    """

    name: ClassVar[str] = "upstream_reset"

    verdict: Verdict
    error: str
    library: str | None = None
    likely_cause: str | None = None
    restored: bool = False
    exception: BaseException | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DepartureSurge(Event):
    """Departures have stopped being random: many have the same thing in common.

    Its facts are those that they share: the framework, the server and, for `Cause.ROUTE`, the
    route; the method is that of the last one.

    Args:
        cause: What they have in common.
        count: How many of them share it.
        of: How many were examined.
        share: ``count`` divided by ``of``.
        usual_share: The expected share; None if nothing is known about it.
        seconds: The length of the period, in seconds. ``age_ms`` is the same.
        seconds_each: For `Cause.SAME_AGE`: after how many seconds they leave. For
            `Cause.IDLE_REUSE`: for how many seconds the connection was idle.
        bytes_each: For `Cause.SAME_BYTES`: after how many bytes they leave.
        network: For `Cause.ONE_CLIENT`: the client, or its network.
        likely_cause: The most frequent cause.
    """

    name: ClassVar[str] = "departure_surge"

    cause: Cause
    count: int
    of: int
    share: float
    usual_share: float | None = None
    seconds: float = 0.0
    seconds_each: float | None = None
    bytes_each: int | None = None
    network: str | None = None
    likely_cause: str | None = None
