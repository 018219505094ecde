"""The benchmarks run. What they measure is not judged here: this machine has other work to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.__main__ import BARS, Cost, Garbage, Report
from benchmarks.in_process import INTERFACES
from benchmarks.requests import BARE, FORWARDING, METHODS, WRAPPED
from benchmarks.rounds import Costs, take_turns
from benchmarks.stopping import GOAL
from benchmarks.stopping import Row as Stopped
from benchmarks.stopping import table as table_of_stopped


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
    cost = Cost(what="ASGI GET", bare=1.0, forwarding=2.0, cleanclose=2.0, added=1.0)
    report = Report(costs=[cost])
    assert not report.broken()
    report.costs[0] = replace(cost, added=BARS["ASGI GET"] + 0.1)
    report.garbage.append(Garbage(what="ASGI GET", bare=0, cleanclose=2))
    assert len(report.broken()) == 2
    # Time is too unsteady for a bar.
    report.counted = False
    assert len(report.broken()) == 1


def test_every_row_has_its_bar() -> None:
    assert set(BARS) == {f"{interface} {method}" for interface in INTERFACES for method in METHODS}


def test_work_that_ends_late_is_seen() -> None:
    soon = Stopped(server="one", base=0, delays={"rst": [1.0, 2.0, 500.0], "fin": [3.0, 4.0, 5.0]})
    late = Stopped(server="two", base=3, delays={"rst": [1.0] * 3, "fin": [GOAL + 1] * 3})
    assert soon.is_soon
    assert not late.is_soon
    assert table_of_stopped([soon, late]).row_count == 2
