"""The benchmarks run. What they measure is not judged here: this machine has other work to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import in_process
from benchmarks.__main__ import BARS, Effort, main
from benchmarks.in_process import count_garbage
from benchmarks.instructions import can_count
from benchmarks.memory import CAN_MEASURE, SERVERS
from benchmarks.requests import BARE, FORWARDING, WRAPPED, Method

LEAST = Effort(rounds=2, requests=2, uploads=1, uploads_at_once=1)


@pytest.mark.full
def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what valgrind counts in minutes: `.ci/run` has that by ``make bench``."""
    monkeypatch.setattr(command, "QUICK", LEAST)
    monkeypatch.setattr(in_process, "can_count", lambda: False)
    file = tmp_path / "figures.json"
    assert main(["--quick", "--json", str(file)]) in (0, 1)
    figures = json.loads(file.read_text())
    assert {row["what"] for row in figures["costs"]} == set(BARS)
    assert len(figures["garbage"]) == len(BARS)
    assert len(figures["memory"]) == (2 * len(SERVERS) if CAN_MEASURE else 0)
    assert all(row["delivered"] == 1 for row in figures["memory"] if row["wrapped"])
    assert all(row["cleanclose"] == 0 for row in figures["garbage"])


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(600)  # Valgrind makes Python fifty times slower.
@pytest.mark.skipif(not can_count(), reason="there is no valgrind, or it cannot count here")
def test_instructions_are_counted() -> None:
    measured = in_process.compare(rounds=1, requests=2, only=["WSGI"])
    assert measured.counted
    assert set(measured.costs) == {"WSGI GET", "WSGI POST"}
    for costs in measured.costs.values():
        assert costs.least(BARE) < costs.least(FORWARDING)


def test_where_nothing_counts_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "can_count", lambda: False)
    measured = in_process.compare(rounds=1, requests=2)
    assert not measured.counted
    assert set(measured.costs) == set(BARS)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_reference_cycles_per_request(method: Method) -> None:
    for left in count_garbage(method, requests=50).values():
        # Other threads of the test process may leave something, but not once per request.
        assert left[WRAPPED] < 1


def test_a_cycle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cyclic:
        def __init__(self, app: object, **_: object) -> None:
            self.app = app

        def __call__(self, *arguments: object) -> object:
            cycle: list[object] = []
            cycle.append(cycle)
            return self.app(*arguments)  # type: ignore[operator]

    monkeypatch.setattr("benchmarks.requests_asgi.CleanCloseMiddleware", Cyclic)
    assert count_garbage("GET", requests=50)["ASGI"][WRAPPED] >= 1
