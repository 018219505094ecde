"""The findings: rules that look at the cases' results, and say what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from cleanclose.doctor.application.cases import UPLOADS
from cleanclose.doctor.application.results import (
    ERROR,
    Finding,
    Line,
    Result,
    Severity,
    Side,
)

__all__ = ["find"]

_WARNING: Final = 30
_OUR_LOGGER: Final = "cleanclose"
_BAD_GATEWAYS: Final = (502, 503, 504)


class _Rule(NamedTuple):
    """A rule: its condition on a result, and its words."""

    id: str
    severity: Severity
    against: Callable[[Result], str | None]
    """Returns the evidence; None if nothing is wrong with the result."""
    sentence: str
    advice: str


def _lost(result: Result) -> str | None:
    lost = [answer for answer in result.lost if answer.kind == "lost"]
    # Only the first thing that it says: no response, and the error.
    return ", ".join(lost[0].detail.split(", ")[:2]) or "no answer" if lost else None


def _early_lost(result: Result) -> str | None:
    if result.group == "early answer" or result.case in UPLOADS:
        return _lost(result)
    return None


def _http2_lost(result: Result) -> str | None:
    return _lost(result) if result.group == "http2" else None


def _hung(result: Result) -> str | None:
    hung = [answer for answer in result.answers if answer.kind == "hung"]
    return "neither an answer nor an end" if hung else None


def _bad_gateway(result: Result) -> str | None:
    if result.group != "proxy":
        return None
    for answer in result.lost:
        if answer.kind == "lost" or answer.status in _BAD_GATEWAYS:
            return f"status {answer.status}" if answer.status else "no answer"
    return None


def _smuggled(result: Result) -> str | None:
    return f"{result.smuggled} of them" if result.smuggled else None


def _ended(result: Result) -> str | None:
    return result.ended


# A second 100 before the answer is superfluous, but harms nobody.
_HARMLESS: Final = frozenset({"unasked_continue"})


def _faulty_bytes(result: Result) -> str | None:
    faults = {fault for answer in result.answers for fault in answer.faults} - _HARMLESS
    return ", ".join(sorted(faults)) if faults and not result.smuggled else None


def _short_accepted(result: Result) -> str | None:
    if any(answer.status is not None and answer.status >= 400 for answer in result.answers):
        # Whatever the application answered, something around it refused the request.
        return None
    for request in result.requests:
        short = request.expected is not None and request.read < request.expected
        accepted = request.status is not None and request.status < 400
        if short and request.read_to_end and accepted:
            return f"{request.read} of {request.expected} bytes, status {request.status}"
    return None


def _shows_failure(line: Line) -> bool:
    return line.visible and line.number >= ERROR


def _upstream_hidden(result: Result) -> str | None:
    if result.group != "upstream":
        return None
    shown = result.tracebacks or any(map(_shows_failure, result.lines))
    if not shown:
        got = result.answers[-1]
        answer = f"status {got.status}" if got.status else "no answer"
        return f"{answer}, and no line at error"
    return None


def _is_about_departure(line: Line) -> bool:
    """Whether a line reports a problem although there is none."""
    if not line.visible or line.number < _WARNING:
        return False
    # Tornado logs every 4xx as a warning, whether or not a client left.
    return line.logger != _OUR_LOGGER and not line.logger.endswith("access")


def _noisy(result: Result) -> str | None:
    departure = result.group == "departure" or (
        result.group == "application" and result.case not in UPLOADS
    )
    if not departure:
        return None
    lines = list(filter(_is_about_departure, result.lines))
    if lines:
        first = lines[0]
        text = first.text.strip().splitlines()[0][:120] if first.text.strip() else ""
        error = f" ({first.error})" if first.error else ""
        return f"{len(lines)} x {first.level} {first.logger}: {text}{error}"
    if result.tracebacks:
        return f"{result.tracebacks} tracebacks in its output"
    return None


_ADD: Final = "Put the middleware around the application."
_RULES: Final = (
    _Rule(
        "server-ended",
        "error",
        _ended,
        "{server} itself exited, and served no further request.",
        "Report it to {server}'s authors.",
    ),
    _Rule(
        "body-taken-for-request",
        "error",
        _smuggled,
        "{server} took parts of a refused upload's body for requests.",
        _ADD,
    ),
    _Rule(
        "early-answer-lost",
        "error",
        _early_lost,
        "An answer that comes before the upload's end does not reach the client: {server} closes"
        " the connection with the body unread, which resets it.",
        _ADD,
    ),
    _Rule(
        "http2-answer-lost",
        "error",
        _http2_lost,
        "Over HTTP/2 an answer that comes before the upload's end does not reach the client, or"
        " costs it the connection.",
        _ADD,
    ),
    _Rule(
        "connection-hung",
        "error",
        _hung,
        "{server} neither answers nor closes: the client waits for its own time-out.",
        _ADD,
    ),
    _Rule(
        "bad-gateway",
        "error",
        _bad_gateway,
        "Behind {where} the client gets no answer, or the proxy's own error, instead of the"
        " application's.",
        _ADD,
    ),
    _Rule(
        "unexpected-bytes",
        "error",
        _faulty_bytes,
        "{server} sent bytes that answer no request.",
        "Report it to {server}'s authors.",
    ),
    _Rule(
        "short-upload-accepted",
        "error",
        _short_accepted,
        "An upload that was cut short counts as complete, and is answered with success.",
        "Compare what was read with Content-Length, or put the middleware around the application.",
    ),
    _Rule(
        "upstream-failure-hidden",
        "error",
        _upstream_hidden,
        "When the application's own upstream resets a connection, {server} takes that for a client"
        " that has left, and hides it.",
        _ADD,
    ),
    _Rule(
        "departure-logged-as-error",
        "warning",
        _noisy,
        "A client that leaves is logged as if something had failed.",
        _ADD,
    ),
)

_WRAPPED_ADVICE: Final = (
    "The middleware cannot change this on {server}: docs/servers says what it does there."
)


def find(
    results: Iterable[Result], *, side: Side, server: str, usual: Sequence[Line]
) -> tuple[Finding, ...]:
    """Find what is wrong on one side.

    Args:
        results: The cases' results.
        side: The side.
        server: The server's name.
        usual: What the application logs for a request that its client waits for.
    """
    ordinary = {(line.logger, line.level, line.error) for line in usual}
    kept = [_without(result, ordinary) for result in results]
    found: list[Finding] = []
    for rule in _RULES:
        by_where: dict[str, list[tuple[Result, str]]] = {}
        for result in kept:
            evidence = rule.against(result)
            if evidence is not None:
                by_where.setdefault(result.where, []).append((result, evidence))
        for where, against in by_where.items():
            words = {"server": server, "where": where}
            advice = rule.advice if side == "bare" else _WRAPPED_ADVICE
            found.append(
                Finding(
                    id=rule.id,
                    severity=rule.severity,
                    side=side,
                    where=where,
                    cases=tuple(result.case for result, _ in against),
                    sentence=rule.sentence.format(**words),
                    advice=advice.format(**words),
                    evidence=tuple(f"{result.title}: {text}" for result, text in against),
                    kernel=tuple(sorted({each for result, _ in against for each in result.resets})),
                )
            )
    return tuple(found)


def _without(result: Result, ordinary: set[tuple[str, str, str | None]]) -> Result:
    """Remove the lines that the application logs for every request."""
    if result.group != "application":
        return result
    lines = tuple(
        line for line in result.lines if (line.logger, line.level, line.error) not in ordinary
    )

    return replace(result, lines=lines)
