"""The demo: how it counts, what it prints, and one quick run on the real servers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from example_apps import demo
from example_apps.demo import Row, Tally


@pytest.mark.parametrize(
    "line",
    [
        "ERROR:    Exception in ASGI application",
        "WARNING:  Invalid HTTP request received.",
        "[2026-11-21 10:59:03 +0000] [6518] [ERROR] Error handling request /files",
        "[2026-11-21 10:59:03 +0000] [6518] [CRITICAL] WORKER TIMEOUT (pid:6521)",
        "[2026-11-21 10:59:07,139] ERROR in app: Exception on /files [PUT]",
        "2026-11-21 10:59:07,139 WARNING cleanclose: event='upload_drained'",
        "Exception ignored in: <function f>",
    ],
)
def test_loud_lines(line: str) -> None:
    assert demo.count_loud_lines(f"INFO: start\n{line}\nTraceback: ERROR\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "INFO:     Application startup complete.",
        "[2026-11-21 10:59:03 +0000] [6518] [INFO] Starting gunicorn 27.0.1",
        "2026-11-21 10:59:07,139 WARNING tornado.access: 413 PUT /files (127.0.0.1) 0.45ms",
        '    raise ValueError("ERROR: no")',
        "ERRORS: none",
    ],
)
def test_quiet_lines(line: str) -> None:
    assert demo.count_loud_lines(f"{line}\n") == 0


def test_counters_in_words() -> None:
    counters = {
        'cleanclose_early_responses_total{outcome="delivered"}': 3,
        'cleanclose_early_responses_total{outcome="cut"}': 0,
        "cleanclose_drained_bytes_total": 48 * 1024 * 1024,
        "cleanclose_outlet_errors_total": 1,
        'cleanclose_departures_total{side="client",phase="request_body",mechanism="eof"}': 2,
        'cleanclose_departures_total{side="client",phase="request_body",mechanism="reset"}': 2,
        "cleanclose_wasted_seconds_total": 0.25,
        "something_else": 5,
    }
    assert demo.counters_in_words(counters) == (
        "3 delivered, 4 left in the request body, 1 outlet errors, 48 MiB drained, 0.2 s wasted"
    )
    assert demo.counters_in_words({}) == "all 0"


@pytest.mark.parametrize(
    ("size", "words"),
    [(999, "999 bytes"), (1024, "1 KiB"), (1024 * 1024, "1 MiB"), (448 << 20, "448 MiB")],
)
def test_size_in_words(size: int, words: str) -> None:
    assert demo.size_in_words(size) == words


@pytest.fixture
def rows() -> list[Row]:
    lost = Tally(due=2, delivered=0, instead=Counter({"502": 2}), loud_lines=4)
    arrived = Tally(due=2, delivered=2)
    left = Tally()
    return [
        Row(example="An app", client="curl", bare=lost, wrapped=arrived),
        Row(example="An app", client="leaves", bare=left, wrapped=left),
    ]


def test_the_markdown_table(rows: list[Row]) -> None:
    table = demo.as_markdown(rows, ["A note."]).splitlines()
    assert table[2] == "| An app | curl | 0/2 (2x 502) | 2/2 | 4 → 0 | all 0 |"
    assert table[3] == "| An app | leaves | - | - | 0 → 0 | all 0 |"
    assert table[-1] == "A note."
    assert len({line.count("|") for line in table[:4]}) == 1


def test_the_picture_is_svg_that_loads_nothing(rows: list[Row]) -> None:
    svg = demo.as_svg(demo.as_table(rows, ["A note."]))
    assert "2x&#160;502" in svg
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert set(re.findall(r"https?://[^\s\"']+", svg)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }


def test_the_same_rows_make_the_same_picture(rows: list[Row]) -> None:
    table = demo.as_table(rows, [])
    assert demo.as_svg(table) == demo.as_svg(table)


def test_programs_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def find_nothing(_: str) -> str | None:
        return None

    def run_nothing(*arguments: object) -> list[Row]:
        assert len(arguments) == 3
        return []

    monkeypatch.setattr(demo, "find_program", find_nothing)
    monkeypatch.setattr(demo, "run_demo", run_nothing)
    assert demo.main(["--save", str(tmp_path / "demo.svg")]) == 0
    out, err = capsys.readouterr()
    for program in ("curl", "nginx"):
        assert f"Left out: {program} is not installed here." in out
        assert f"{program} is not installed here" in err


def test_an_answer_that_is_missing_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    rows: list[Row],
) -> None:
    def run_badly(*_: object) -> list[Row]:
        return [Row(example="An app", client="curl", bare=rows[0].bare, wrapped=rows[0].bare)]

    monkeypatch.setattr(demo, "run_demo", run_badly)
    assert demo.main(["--save", str(tmp_path / "demo.svg")]) == 1
    assert "not every answer arrived: An app, curl" in capsys.readouterr().err
