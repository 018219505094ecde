"""The benchmarks run. What they measure is not judged here: this machine has other work to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import BAR, Cost, Effort, Garbage, Report, main
from benchmarks.in_process import BARE, FORWARDING, WRAPPED, Method, count_garbage
from benchmarks.memory import CAN_MEASURE, SERVERS
from benchmarks.rounds import Costs, take_turns

LEAST = Effort(
    rounds=2,
    requests=10,
    tornado_rounds=1,
    tornado_requests=8,
    uploads=1,
    uploads_at_once=1,
)


def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "QUICK", LEAST)
    file = tmp_path / "figures.json"
    # 1 is no failure here: nothing is known about the load while two rounds ran.
    assert main(["--quick", "--json", str(file)]) in (0, 1)
    figures = json.loads(file.read_text())
    assert [row["what"] for row in figures["costs"]] == [
        "ASGI GET, in process",
        "ASGI POST, in process",
        "WSGI GET, in process",
        "WSGI POST, in process",
        "Tornado GET, by the clock",
        "Tornado GET, server's CPU",
        "Tornado POST, by the clock",
        "Tornado POST, server's CPU",
    ]
    assert len(figures["garbage"]) == 6
    assert len(figures["memory"]) == (2 * len(SERVERS) if CAN_MEASURE else 0)
    assert all(row["delivered"] == 1 for row in figures["memory"] if row["wrapped"])
    tornado = [row for row in figures["garbage"] if row["what"].startswith("Tornado")]
    assert all(row["cleanclose"] == 0 for row in tornado)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_reference_cycles_per_request(method: Method) -> None:
    for left in count_garbage(method, requests=50).values():
        # Other threads of the test process may leave something, but not once per request.
        assert left[WRAPPED] < 1


def test_a_cycle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cyclic:
        def __init__(self, app: object) -> None:
            self.app = app

        def __call__(self, *arguments: object) -> object:
            cycle: list[object] = []
            cycle.append(cycle)
            return self.app(*arguments)  # type: ignore[operator]

    monkeypatch.setattr("benchmarks.in_process.AsgiMiddleware", Cyclic)
    assert count_garbage("GET", requests=50)["asgi"][WRAPPED] >= 1


def test_variants_take_turns() -> None:
    order: list[str] = []

    def batch(name: str) -> float:
        order.append(name)
        return float(len(order))

    costs = take_turns({"one": lambda: batch("one"), "two": lambda: batch("two")}, 2)
    assert order == ["two", "one", "one", "two", "two", "one"]
    # The first round is there to warm up.
    assert costs.of == {"one": [3.0, 6.0], "two": [4.0, 5.0]}


def test_ratios() -> None:
    costs = Costs({BARE: [10.0, 30.0], FORWARDING: [20.0, 60.0], WRAPPED: [25.0, 60.0]})
    assert costs.least(BARE) == 10
    assert costs.ratio(WRAPPED, FORWARDING) == pytest.approx((1.25 + 1.0) / 2)
    assert costs.added_ratio(WRAPPED, FORWARDING, over=BARE) == pytest.approx(1.5)


def test_bars() -> None:
    cost = Cost(
        what="ASGI GET",
        bare=1.0,
        forwarding=2.0,
        cleanclose=2.0,
        to_bare=2.0,
        to_forwarding=1.0,
        added_to_forwarding=1.0,
    )
    report = Report(costs=[cost])
    assert not report.broken()
    report.costs[0] = replace(cost, to_forwarding=BAR + 0.1)
    report.garbage.append(Garbage(what="ASGI GET", bare=0, cleanclose=2))
    assert len(report.broken()) == 2
