"""What the doctor saw, as plain records: findings, tables and JSON are made from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from cleanclose.testing import Seen

__all__ = [
    "ERROR",
    "Answer",
    "Event",
    "Finding",
    "Group",
    "Kind",
    "Line",
    "Report",
    "Request",
    "Result",
    "Severity",
    "Side",
    "SideReport",
]

Side = Literal["bare", "wrapped"]
Group = Literal["plain", "early answer", "departure", "upstream", "application", "proxy", "http2"]
Kind = Literal["answered", "lost", "hung", "left", "not spoken"]
"""``answered``: the whole answer came. ``lost``: no answer came, or only a part. ``hung``: neither
an answer nor an end came. ``left``: this client did not wait for one. ``not spoken``: the server
does not speak the protocol."""
Severity = Literal["error", "warning"]

ERROR: Final = 40
"""`logging.ERROR`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one client got."""

    kind: Kind
    status: int | None = None
    detail: str = ""
    faults: tuple[str, ...] = ()
    """What is wrong with the received bytes: `cleanclose.doctor.Fault`."""
    server: str | None = None
    """The answer's ``Server`` header."""

    @classmethod
    def of(cls, outcome: Seen) -> Answer:
        """Sum up what a client of `cleanclose.testing` saw.

        Args:
            outcome: What the client saw.
        """
        response = outcome.response
        if response is not None:
            kind: Kind = "answered"
        else:
            kind = "hung" if outcome.closed_by == "timeout" else "lost"
        return cls(
            kind=kind,
            status=outcome.status,
            detail=str(outcome),
            faults=tuple(fault.value for fault in outcome.transcript.faults),
            server=None if response is None else response.header("Server"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A log record that reached the handlers."""

    logger: str
    level: str
    number: int
    text: str
    error: str | None
    visible: bool
    """Whether a handler wrote it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An event of the middleware."""

    name: str
    fields: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the application did with one request."""

    path: str
    read: int
    read_to_end: bool
    expected: int | None
    status: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One case on one side."""

    case: str
    title: str
    group: Group
    side: Side
    where: str
    """``server`` (the doctor's own routes), ``application`` (the user's), or a proxy's name."""
    expected: int | None
    """The status that the client should get; None if any will do."""
    answers: tuple[Answer, ...]
    lines: tuple[Line, ...] = ()
    tracebacks: int = 0
    """The number of tracebacks in the output that no log record explains."""
    access: tuple[str, ...] = ()
    """The status in the server's access log."""
    events: tuple[Event, ...] = ()
    requests: tuple[Request, ...] = ()
    smuggled: int = 0
    """How many requests the server read out of a body."""
    resets: tuple[str, ...] = ()
    """The kernel's reasons for the resets that it sent on the server's behalf, where it can be
    asked."""
    ended: str | None = None
    """The server's last words, if it exited by itself."""

    @property
    def lost(self) -> tuple[Answer, ...]:
        """The answers that did not come, or that were not as they should be."""
        return tuple(
            answer
            for answer in self.answers
            if answer.kind in ("lost", "hung")
            or (answer.kind == "answered" and self.expected not in (None, answer.status))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SideReport:
    """Everything about one side."""

    side: Side
    results: tuple[Result, ...]
    counters: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong."""

    id: str
    severity: Severity
    side: Side
    where: str
    cases: tuple[str, ...]
    sentence: str
    advice: str
    evidence: tuple[str, ...] = ()
    """The results of each case."""
    kernel: tuple[str, ...] = ()
    """The kernel's reasons for the resets that it sent in these cases, where it can be asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything about one application."""

    target: str
    interface: str
    framework: str | None
    server: str
    server_version: str | None
    sides: tuple[SideReport, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    seconds: float
