"""The queries in docs/log-queries.md name fields and values that the lines have."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, Final

import pytest
import structlog

from cleanclose.core import (
    Cap,
    ClientDeparted,
    Event,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    StructlogOutlet,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
)
from tests.harness.paths import ROOT

PAGE: Final = ROOT / "docs" / "log-queries.md"
BLOCKS: Final = re.findall(r"```(logql|kql|esql)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

FACTS: Final = Facts(
    framework="wsgi",
    server="gunicorn",
    method="POST",
    client="192.0.2.1",
    route="/files",
    request_id="8f14e45f",
    trace_id="a" * 32,
    idempotency_key="k",
)
VERDICT: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.HANDLER,
    mechanism=Mechanism.EOF,
    witnesses=(Witness.SOCKET,),
)
DEPARTED: Final[dict[str, Any]] = {
    "facts": FACTS,
    "age_ms": 1.5,
    "verdict": VERDICT,
    "status": 200,
    "expected_in": 3,
    "wasted_seconds": 0.5,
}
EVENTS: Final[tuple[Event, ...]] = (
    ClientDeparted(**DEPARTED),
    ResponseUndelivered(**DEPARTED),
    TruncatedUpload(**DEPARTED, accepted=True),
    UploadDrained(
        facts=FACTS,
        age_ms=1.5,
        outcome=Outcome.CUT,
        cap=Cap.MAX_BYTES,
        mechanism=Mechanism.RESET,
        status=413,
        expected_in=3,
    ),
    UpstreamReset(
        facts=FACTS,
        age_ms=1.5,
        verdict=VERDICT,
        error="ConnectionResetError",
        library="pika",
        likely_cause="missed heartbeats",
    ),
)
SETS: Final[Mapping[str, type[enum.StrEnum]]] = {
    "side": Side,
    "phase": Phase,
    "mechanism": Mechanism,
    "outcome": Outcome,
    "cap": Cap,
}


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """A line of JSON for each kind of event, with every field that it may have."""
    written = StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(written),
    )
    outlet = StructlogOutlet()
    for event in EVENTS:
        outlet(event)
    structlog.reset_defaults()
    return [json.loads(line) for line in written.getvalue().splitlines()]


def compared(language: str, query: str) -> Iterator[tuple[str, str]]:
    """The fields that a query compares, and the values that they are compared with."""
    match language:
        case "logql":
            query = re.sub(r"\{app[^}]*\}|\"\{\{.*?\}\}[^\"]*\"", "", query)
            for name, values in re.findall(r'(\w+) ?(?:=~|!=|=) ?"([^"]*)"', query):
                yield from ((name, value) for value in values.split("|"))
        case "kql":
            for name, values in re.findall(r"(\w+) : (\([^)]*\)|\S+)", query):
                yield from (
                    (name, value) for value in re.findall(r"[\w.]+", values) if value != "or"
                )
        case _:
            for name, values in re.findall(r'(\w+) (?:IN|==) (\([^)]*\)|"[^"]*"|\w+)', query):
                yield from ((name, value) for value in re.findall(r"\w+", values))


NAMED: Final = (
    r"\{\{\.(\w+)\}\}",
    r"unwrap (\w+)",
    r"(\w+) [<>]=? ",
    r"MEDIAN\((\w+)\)",
)


def named(language: str, query: str) -> set[str]:
    """All the fields that a query names."""
    names = {name for name, _ in compared(language, query)}
    for pattern in NAMED:
        names.update(re.findall(pattern, query))
    for listed in re.findall(r"\b(?:by|BY) \(?([\w, ]+)", query):
        names.update(re.findall(r"\w+", listed))
    return names


def test_there_are_queries() -> None:
    assert {language for language, _ in BLOCKS} == {"logql", "kql", "esql"}
    assert len(BLOCKS) > 10


@pytest.mark.parametrize(("language", "query"), BLOCKS)
def test_fields_and_values_are_those_of_the_lines(
    language: str, query: str, lines: list[dict[str, Any]]
) -> None:
    # The last one is of the log filter.
    fields = {name for line in lines for name in line} | {"original_level"}
    assert named(language, query)
    assert named(language, query) <= fields
    events = {line["event"] for line in lines}
    for name, value in compared(language, query):
        if name == "event":
            assert value in events
        elif name in SETS:
            assert value in set(SETS[name])
        elif name == "accepted":
            assert value == "true"
