"""Measure, print a table, and fail if the bar is broken: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.table import Table

from benchmarks.in_process import (
    BARE,
    FORWARDING,
    WRAPPED,
    Method,
    compare_asgi,
    compare_wsgi,
    count_garbage,
)
from benchmarks.memory import CAN_MEASURE, UPLOAD_SIZE, Growth, measure_memory
from benchmarks.on_tornado import compare_tornado
from benchmarks.rounds import Costs
from example_apps.uploads import MIB

__all__ = ["BAR", "FULL", "QUICK", "Effort", "Report", "main", "run"]

BAR: Final = 1.5
"""A GET through the ASGI middleware may cost so many times what a forwarding wrapper costs."""

METHODS: Final[tuple[Method, ...]] = ("GET", "POST")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    """Of requests in process: a tenth of a millisecond for each variant."""
    requests: int
    """In a batch, in process."""
    tornado_rounds: int
    tornado_requests: int
    uploads: int
    uploads_at_once: int


FULL: Final = Effort(
    rounds=3000,
    requests=50,
    tornado_rounds=60,
    tornado_requests=160,
    uploads=100,
    uploads_at_once=100,
)
QUICK: Final = Effort(
    rounds=1000,
    requests=50,
    tornado_rounds=10,
    tornado_requests=80,
    uploads=8,
    uploads_at_once=8,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One row of the first table; times in microseconds per request."""

    what: str
    bare: float
    forwarding: float | None
    cleanclose: float
    to_bare: float
    """The cost with cleanclose, divided by the bare cost."""
    to_forwarding: float | None
    added_to_forwarding: float | None
    """What cleanclose adds, divided by what the forwarding wrapper adds."""

    @classmethod
    def of(cls, what: str, costs: Costs) -> Self:
        """The row for these costs."""
        compared = FORWARDING in costs.of
        return cls(
            what=what,
            bare=costs.least(BARE) / 1000,
            forwarding=costs.least(FORWARDING) / 1000 if compared else None,
            cleanclose=costs.least(WRAPPED) / 1000,
            to_bare=costs.ratio(WRAPPED, BARE),
            to_forwarding=costs.least_ratio(WRAPPED, FORWARDING) if compared else None,
            added_to_forwarding=(
                costs.added_ratio(WRAPPED, FORWARDING, over=BARE) if compared else None
            ),
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
    bar: float = BAR
    costs: list[Cost] = field(default_factory=list[Cost])
    garbage: list[Garbage] = field(default_factory=list[Garbage])
    memory: list[Growth] = field(default_factory=list[Growth])

    def broken(self) -> list[str]:
        """What is over its bar, in words."""
        first = self.costs[0]
        ratio = first.to_forwarding
        found: list[str] = []
        if ratio is not None and ratio > self.bar:
            found.append(
                f"{first.what}: {ratio:.2f} times the forwarding wrapper, the bar is {self.bar}"
            )
        found += [
            f"{row.what}: {row.cleanclose:g} objects per request are left to the collector, "
            f"{row.bare:g} without the middleware"
            for row in self.garbage
            if row.cleanclose > row.bare
        ]
        return found


def run(effort: Effort, console: Console) -> Report:
    """Measure everything.

    Args:
        effort: How much.
        console: Where to say what is being done.
    """
    report = Report()
    with console.status("") as status:
        for method in METHODS:
            status.update(f"ASGI {method}")
            costs = compare_asgi(method, rounds=effort.rounds, requests=effort.requests)
            report.costs.append(Cost.of(f"ASGI {method}, in process", costs))
        for method in METHODS:
            status.update(f"WSGI {method}")
            costs = compare_wsgi(method, rounds=effort.rounds, requests=effort.requests)
            report.costs.append(Cost.of(f"WSGI {method}, in process", costs))
        for method in METHODS:
            for interface, left in count_garbage(method, requests=effort.requests).items():
                report.garbage.append(
                    Garbage(
                        what=f"{interface.upper()} {method}",
                        bare=left[BARE],
                        cleanclose=left[WRAPPED],
                    )
                )
        for method in METHODS:
            status.update(f"Tornado {method}")
            measured = compare_tornado(
                method, rounds=effort.tornado_rounds, requests=effort.tornado_requests
            )
            report.costs.append(Cost.of(f"Tornado {method}, by the clock", measured.wall))
            report.costs.append(Cost.of(f"Tornado {method}, server's CPU", measured.cpu))
            report.garbage.append(
                Garbage(
                    what=f"Tornado {method}",
                    bare=measured.garbage[BARE],
                    cleanclose=measured.garbage[WRAPPED],
                )
            )
        if CAN_MEASURE:
            status.update(f"{effort.uploads} refused uploads of {UPLOAD_SIZE // MIB} MiB")
            report.memory += measure_memory(uploads=effort.uploads, at_once=effort.uploads_at_once)
    return report


def print_report(report: Report, effort: Effort, console: Console) -> None:
    """Print the tables."""
    costs = Table(title="Microseconds per request, and ratios", title_justify="left")
    costs.add_column("")
    for title in (BARE, FORWARDING, WRAPPED, "/ bare", "/ forwarding", "added / added"):
        costs.add_column(title, justify="right")
    for row in report.costs:
        times = (row.bare, row.forwarding, row.cleanclose)
        ratios = (row.to_bare, row.to_forwarding, row.added_to_forwarding)
        costs.add_row(row.what, *(_cell(number) for number in (*times, *ratios)))
    console.print(costs)
    console.print(
        "Times: the least disturbed round. / bare: the median of the rounds' own ratios."
        " / forwarding: the ratio of the least disturbed rounds."
        "\nadded / added: what cleanclose adds to the bare cost, divided by what the"
        f" forwarding wrapper adds.\nThe bar for ASGI GET: {report.bar} times the forwarding"
        " wrapper.\n",
        highlight=False,
    )
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


def _cell(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 if a bar is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What cleanclose costs per request."
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    options = parser.parse_args(arguments)
    effort: Effort = QUICK if options.quick else FULL
    # Wide enough for the table also where there is no terminal to ask.
    console = Console(width=None if sys.stdout.isatty() else 110)
    report = run(effort, console)
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
