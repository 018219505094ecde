"""Find out what an entry is: its format, its kind, its time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from cleanclose.doctor.explain.entries import Entry, may_matter
from cleanclose.doctor.explain.proxies import Match, of_fields, of_line
from cleanclose.doctor.explain.times import time_in_fields, time_in_line
from cleanclose.doctor.explain.tracebacks import exceptions_in, kind_of, library_in

__all__ = ["Finding", "find"]


class Finding(NamedTuple):
    """The finding about one entry.

    Args:
        format: The log's format.
        kind: A name in `KINDS`.
        detail: What distinguishes findings of one kind; may be empty.
        time: Seconds since the epoch; None if the entry does not say.
        line: The line to show for it.
    """

    format: str
    kind: str
    detail: str
    time: float | None
    line: str


_FORMATS: Final = (
    ("uvicorn", re.compile(r"^(?:INFO|WARNING|ERROR|CRITICAL): {3,}")),
    ("gunicorn", re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[\w+\]")),
    (
        "tornado",
        re.compile(
            r"\[[DIWEC] \d{6} \d\d:\d\d:\d\d |^Uncaught exception [A-Z]+ /|^HTTPServerRequest\("
        ),
    ),
    (
        "uwsgi",
        re.compile(r"\w{3} \w{3} +\d+ [\d:]+ \d{4} - |^OSError: (?:write error|error during)"),
    ),
    ("django", re.compile(r"Internal Server Error: /|^- Broken pipe from|\] - Broken pipe from")),
    ("granian", re.compile(r"Application callable raised|^\[(?:INFO|WARNING|ERROR)\] ")),
    (
        "asyncio",
        re.compile(r"socket\.send\(\) raised|Task exception was never retrieved|client_conn"),
    ),
)
_SERVERS_IN_FRAMES: Final = ("uvicorn", "hypercorn", "granian", "gunicorn", "daphne", "tornado")

_EVENT: Final = re.compile(
    r"\b(client_departed|response_undelivered|truncated_upload|upstream_reset|upload_drained)\b"
)
_SIDE: Final = re.compile(r"\bside=['\"]?(client|server|upstream|unknown)\b")
_OUTCOME: Final = re.compile(r"\boutcome=['\"]?(delivered|cut|reset|unknown)\b")

_SAID: Final = (
    ("server_says_client", re.compile(r"\bClient disconnected while serving /")),
    ("server_says_client", re.compile(r"(?:^|\] |INFO )-? ?Broken pipe from \('")),
    (
        "server_says_client",
        re.compile(
            r"uwsgi_\w+\(\): (?:Connection reset by peer|Broken pipe) \[\w+/\w+\.c line \d+\]"
        ),
    ),
    (
        "server_says_client",
        re.compile(
            r"\[uwsgi-http key: .*\] hr_(?:read|write)\(\): |\[uwsgi-body-read\] Error reading"
            r"|dropped the TLS connection suddenly, during handshake"
            r"|ASGI transport error: |Failed to close websocket with error "
        ),
    ),
    ("worker_timeout", re.compile(r"WORKER TIMEOUT \(pid:\d+\)")),
    (
        "gunicorn_ignored",
        re.compile(
            r"Ignoring (?:connection (?:reset|epipe)|EPIPE|socket not connected)"
            # It logs this for every exception after a complete response, whatever raised it.
            r"|Exception after response complete \(client disconnected\)"
        ),
    ),
    (
        "asyncio_writes_in_vain",
        re.compile(r"socket\.send\(\) raised exception|SSL connection is closed$"),
    ),
    (
        "python_upstream",
        re.compile(
            r"StreamLostError|Stream connection lost|Lost connection to MySQL|MySQL server has gone"
            r"|server closed the connection unexpectedly|Error while (?:reading|writing)"
            r"|\('Connection aborted\.'|Server disconnected|terminating connection due to"
            r"|_AsyncBaseTransport\._(?:produce|consume)\(\) failed|without sending a response"
        ),
    ),
)
_UWSGI_ALONE: Final = re.compile(
    r"^(?:OSError|IOError): (?:write error|error during read\(\d+\) on wsgi\.input)$"
)
_BARE: Final = re.compile(
    r"[Cc]onnection (?:was )?reset|[Bb]roken ?[Pp]ipe|ECONNRESET|EPIPE|ConnectionResetError"
    r"|[Cc]onnection aborted|ClientDisconnect|StreamClosedError"
)
_TRACES: Final = ("exc_info", "exception", "traceback", "stack_trace", "stack", "exc_text", "error")
_TEXTS: Final = ("message", "msg", "event", "log", "MESSAGE", "text")
_DEPTH: Final = 3


def find(entry: Entry) -> Finding | None:
    """Find out what an entry says about a broken connection; None if it says nothing.

    Args:
        entry: What one log call wrote.
    """
    return _find(entry, 0)


def _find(entry: Entry, depth: int) -> Finding | None:
    if entry.lines:
        return _of_traceback(entry)
    brace = entry.first.find("{")
    if brace >= 0 and entry.first.rstrip().endswith("}"):
        fields = _object(entry.first[brace:])
        if fields is not None:
            return _of_fields(entry, fields, depth)
    match = of_line(entry.first) or _said(entry.first)
    if match is None or match.kind is None:
        return None
    return Finding(*match[:1], match.kind, match.detail, time_in_line(entry.first), entry.first)


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def _of_traceback(entry: Entry) -> Finding | None:
    raised = exceptions_in(entry.lines)
    if not raised:
        return None
    kind = kind_of(raised, is_whole=entry.is_whole)
    if kind is None:
        return None
    detail = library_in(raised) if kind == "python_upstream" else None
    return Finding(
        _format(entry),
        kind,
        detail or raised[-1].short,
        time_in_line(entry.first),
        entry.first if entry.first.strip() else entry.lines[-1],
    )


def _format(entry: Entry) -> str:
    for name, pattern in _FORMATS:
        if pattern.search(entry.first):
            # hypercorn's own lines look like gunicorn's.
            if name == "gunicorn" and any("/hypercorn/" in line for line in entry.lines):
                return "hypercorn"
            return name
    for line in entry.lines[:8]:
        for name in _SERVERS_IN_FRAMES:
            if f"/{name}/" in line:
                return name
    return "python"


def _said(line: str) -> Match | None:
    event = _of_event(line)
    if event is not None:
        return event
    name = _format(Entry(line))
    if _UWSGI_ALONE.search(line):
        return Match("uwsgi", "python_client_write", "OSError")
    for kind, pattern in _SAID:
        found = pattern.search(line)
        if found is not None:
            return Match(name, kind, found[0].strip("[]() -")[:40])
    found = _BARE.search(line)
    return Match(name, "bare_words", found[0]) if found else None


def _of_event(line: str) -> Match | None:
    found = _EVENT.search(line)
    if found is None:
        return None
    # Values that a client chose may precede these fields, but never follow them: renderers
    # sort them, and an upstream's event has no other side in any case.
    sides, outcomes = _SIDE.findall(line), _OUTCOME.findall(line)
    return _event(found[1], sides[-1] if sides else None, outcomes[-1] if outcomes else None)


def _event(name: str, side: str | None, outcome: str | None) -> Match | None:
    if name == "upload_drained":
        if outcome is None:
            return None
        kind = {"reset": "event_response_reset", "cut": "event_response_cut"}.get(outcome)
        return Match("cleanclose", kind, outcome)
    if name == "upstream_reset":
        return Match("cleanclose", "event_upstream", name)
    known = side in ("client", "server", "unknown")
    return Match("cleanclose", f"event_{side}", name) if known else None


def _of_fields(entry: Entry, fields: Mapping[str, Any], depth: int) -> Finding | None:
    time = time_in_fields(fields)
    if time is None:
        time = time_in_line(entry.first.partition("{")[0])
    match = of_fields(fields)
    name = str(fields.get("event", fields.get("message", "")))
    if match is None and _EVENT.fullmatch(name) and ("side" in fields or "outcome" in fields):
        match = _event(name, _text(fields.get("side")), _text(fields.get("outcome")))
    if match is not None:
        if match.kind is None:
            return None
        return Finding(match.format, match.kind, match.detail, time, entry.first)
    found = _inside(fields, depth)
    if found is None:
        return None
    is_plain = found.format in ("python", "asyncio")
    return found._replace(
        format="json" if is_plain else found.format,
        time=found.time if time is None else time,
        line=entry.first,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _inside(fields: Mapping[str, Any], depth: int) -> Finding | None:
    """Find out what an object's texts say: a traceback first, which says more than a message."""
    if depth >= _DEPTH:
        return None
    texts = [(key, _text(fields.get(key))) for key in (*_TRACES, *_TEXTS)]
    first = next((text for key, text in texts if text and key in _TEXTS), "")
    for _, text in texts:
        if text and "Traceback (most recent call last):" in text:
            _, found, trace = text.partition("Traceback (most recent call last):")
            lines = [found, *trace.splitlines()[1:]]
            if "Exception Group " in text:
                lines = text.splitlines()
            inner = Entry(first.partition("\n")[0] or text.partition("\n")[0], lines)
            return _find(inner, depth + 1)
    for _, text in texts:
        if text and may_matter(text):
            inner_finding = _find(Entry(text.rstrip("\n")), depth + 1)
            if inner_finding is not None:
                return inner_finding
    return None
