"""The vocabulary: what is said about an exchange, in frozen records with closed sets of labels."""

from __future__ import annotations

import dataclasses
import enum
import errno
from collections.abc import Mapping
from typing import ClassVar, Final

__all__ = ["Cap", "Event", "Facts", "Mechanism", "Outcome", "UploadDrained"]


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
        """The mechanism behind an error which came out of the peer's own connection.

        Args:
            error: The error; None if the interface gave none.
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
    """The body was read to its end, or the peer closed in good order behind the response."""

    CUT = "cut"
    """A limit ended it (see `Cap`); the client may or may not have read the response."""

    RESET = "reset"
    """The peer reset the connection."""

    UNKNOWN = "unknown"
    """Nothing tells: the peer was gone and the interface does not say how, or it waited for a
    100 and sent nothing."""


class Cap(enum.StrEnum):
    """The limit which cut the discarding of a body short."""

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
    """The application's own task ended: cancelled, or the server is stopping."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a shim knows of a request from the start.

    Only ``framework`` and ``server`` may ever be a metric's labels.

    Args:
        framework: ``asgi``, ``wsgi`` or ``tornado``.
        server: The server's name, ``unknown`` if it is not one we recognise.
        method: The request's method.
        client: The peer's address, if known.
    """

    framework: str
    server: str
    method: str
    client: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What all events have.

    Args:
        facts: The request.
        age_ms: Milliseconds from the request's start to the event.
    """

    name: ClassVar[str]

    facts: Facts
    age_ms: float

    def fields(self) -> dict[str, object]:
        """The event's fields for a log line: plain values, without those which are unknown."""
        plain: dict[str, object] = {}
        for field in dataclasses.fields(self):
            value: object = getattr(self, field.name)
            if isinstance(value, Facts):
                plain.update(
                    (part.name, getattr(value, part.name)) for part in dataclasses.fields(value)
                )
            else:
                plain[field.name] = value.value if isinstance(value, enum.StrEnum) else value
        return {key: value for key, value in plain.items() if value is not None}


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
    """

    name: ClassVar[str] = "upload_drained"

    outcome: Outcome
    cap: Cap | None = None
    mechanism: Mechanism | None = None
    status: int | None = None
    bytes_in: int = 0
    drained: int = 0
    expected_in: int | None = None
