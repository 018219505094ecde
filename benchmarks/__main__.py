"""Measure, print a table, and fail if the bar is broken: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.table import Table

from benchmarks.in_process import INTERFACES, compare, count_garbage
from benchmarks.memory import CAN_MEASURE, UPLOAD_SIZE, Growth, measure_memory
from benchmarks.requests import BARE, FORWARDING, METHODS, WRAPPED
from benchmarks.rounds import Costs
from example_apps.uploads import MIB

__all__ = ["BARS", "FULL", "QUICK", "Effort", "Report", "main", "run"]

BARS: Final[Mapping[str, float]] = {
    "ASGI GET": 1.8,
    "ASGI POST": 2.65,
    "WSGI GET": 2.1,
    "WSGI POST": 3.15,
    # A wrapper that forwards adds 3,000 to 25,000 of 1.3 million: hardly more than the counts vary.
    "Tornado GET": 8.0,
    "Tornado POST": 45.0,
}
"""What the middleware may add to a request, in instructions: so many times what a wrapper adds that
only forwards. What holds today, with a little room: who makes one cheaper lowers its bar. The same
code varies by a tenth with what else the process has imported: CPython's cache of the attributes of
classes is small, and where two of them meet depends on all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    """Of requests in process, where only their time can be measured."""
    requests: int
    """In a round, and where instructions are counted."""
    uploads: int
    uploads_at_once: int


FULL: Final = Effort(rounds=300, requests=40, uploads=100, uploads_at_once=100)
QUICK: Final = Effort(rounds=60, requests=20, uploads=8, uploads_at_once=8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One row of the first table: per request, in instructions or nanoseconds."""

    what: str
    bare: float
    forwarding: float
    cleanclose: float
    added: float
    """What cleanclose adds, divided by what the forwarding wrapper adds."""

    @classmethod
    def of(cls, what: str, costs: Costs) -> Self:
        """The row for these costs."""
        return cls(
            what=what,
            bare=costs.least(BARE),
            forwarding=costs.least(FORWARDING),
            cleanclose=costs.least(WRAPPED),
            added=costs.added_ratio(WRAPPED, FORWARDING, over=BARE),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """One row of the second table: objects per request left to the cyclic collector."""

    what: str
    bare: float
    cleanclose: float


@dataclass(kw_only=True, slots=True)
class Report:
    """Everything that was measured."""

    python: str = field(default_factory=platform.python_version)
    machine: str = field(default_factory=platform.machine)
    cores: int = field(default_factory=lambda: os.cpu_count() or 0)
    counted: bool = True
    """Whether the costs are instructions. Else they are processor time, and no bar is held to."""
    costs: list[Cost] = field(default_factory=list[Cost])
    garbage: list[Garbage] = field(default_factory=list[Garbage])
    memory: list[Growth] = field(default_factory=list[Growth])

    def broken(self) -> list[str]:
        """What is over its bar, in words."""
        found = [
            f"{row.what}: {row.added:.2f} times what a forwarding wrapper adds, the bar is"
            f" {BARS[row.what]}"
            for row in self.costs
            if self.counted and row.added > BARS[row.what]
        ]
        found += [
            f"{row.what}: {row.cleanclose:g} objects per request are left to the collector, "
            f"{row.bare:g} without the middleware"
            for row in self.garbage
            if row.cleanclose > row.bare
        ]
        return found


def run(effort: Effort, console: Console, only: Sequence[str] = INTERFACES) -> Report:
    """Measure everything.

    Args:
        effort: How much.
        console: Where to say what is being done.
        only: The interfaces to look at; if these are not all, what requests cost is all that is
            measured.
    """
    report = Report()
    with console.status("") as status:
        status.update("requests in process")
        measured = compare(rounds=effort.rounds, requests=effort.requests, only=only)
        report.counted = measured.counted
        report.costs += [Cost.of(what, costs) for what, costs in measured.costs.items()]
        if only != INTERFACES:
            return report
        for method in METHODS:
            left = count_garbage(method, requests=effort.requests)
            report.garbage += [
                Garbage(
                    what=f"{interface} {method}",
                    bare=left[interface][BARE],
                    cleanclose=left[interface][WRAPPED],
                )
                for interface in INTERFACES
            ]
        if CAN_MEASURE:
            status.update(f"{effort.uploads} refused uploads of {UPLOAD_SIZE // MIB} MiB")
            report.memory += measure_memory(uploads=effort.uploads, at_once=effort.uploads_at_once)
    return report


def print_report(report: Report, effort: Effort, console: Console) -> None:
    """Print the tables."""
    unit = "Instructions" if report.counted else "Nanoseconds of processor time"
    costs = Table(title=f"{unit} per request, and ratios", title_justify="left")
    costs.add_column("")
    for title in (BARE, FORWARDING, WRAPPED, "/ bare", "added / added", "bar"):
        costs.add_column(title, justify="right")
    for row in report.costs:
        figures = (row.bare, row.forwarding, row.cleanclose)
        costs.add_row(
            row.what,
            *(f"{number:,.0f}" for number in figures),
            f"{row.cleanclose / row.bare:.2f}",
            f"{row.added:.2f}",
            f"{BARS[row.what]:g}" if report.counted else "",
        )
    console.print(costs)
    console.print(_HOW_COUNTED if report.counted else _HOW_TIMED, highlight=False)
    if not report.garbage:
        return
    garbage = Table(title="Objects per request left to the cyclic collector", title_justify="left")
    garbage.add_column("")
    for title in (BARE, WRAPPED):
        garbage.add_column(title, justify="right")
    for left in report.garbage:
        garbage.add_row(left.what, f"{left.bare:g}", f"{left.cleanclose:g}")
    console.print(garbage)
    if report.memory:
        memory = Table(
            title=f"Resident memory while {effort.uploads} uploads of {UPLOAD_SIZE // MIB} MiB"
            f" are refused, {effort.uploads_at_once} at once",
            title_justify="left",
        )
        for title in ("", "peak growth", "left afterwards", "answers that arrived"):
            memory.add_column(title, justify="right" if title else "left")
        for growth in report.memory:
            memory.add_row(
                f"{growth.server}, {WRAPPED if growth.wrapped else BARE}",
                f"{growth.peak / MIB:.1f} MiB",
                f"{growth.left / MIB:.1f} MiB",
                f"{growth.delivered}/{effort.uploads}",
            )
        console.print(memory)


_HOW_COUNTED: Final = (
    "By uvicorn's request cycle, gunicorn's parser and response, Tornado's HTTPServer; of user"
    " space, on valgrind.\nadded / added: what cleanclose adds to the bare cost, divided by what"
    " a forwarding wrapper adds.\n"
)
_HOW_TIMED: Final = (
    "Without valgrind (and on other processors than x86-64) instructions cannot be counted here:"
    " this is processor time, of\nthe least disturbed round, and too unsteady for a bar.\n"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 if a bar is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What cleanclose costs per request."
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument(
        "--only", choices=INTERFACES, help="what requests cost on this interface, and nothing else"
    )
    options = parser.parse_args(arguments)
    effort: Effort = QUICK if options.quick else FULL
    # Wide enough for the table also where there is no terminal to ask.
    console = Console(width=None if sys.stdout.isatty() else 110)
    report = run(effort, console, (options.only,) if options.only else INTERFACES)
    print_report(report, effort, console)
    broken = report.broken()
    for line in broken:
        console.print(f"Over the bar: {line}", highlight=False, style="bold red")
    if options.json is not None:
        figures = {**asdict(report), "effort": asdict(effort), "broken": broken}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
