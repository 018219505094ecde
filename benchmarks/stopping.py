"""How soon work ends whose client has left: ``python -m benchmarks.stopping``.

Each server runs as a process of its own with the application of ``tests/promises/stopping``. Some
clients come at a time, and leave with a reset or a FIN once their work has begun; the work notes
when its clean-up begins. The figures are milliseconds from the client's ``close()``, so that the
kernel's way is in them as well. Not looked at is what a server does not tell of
(docs/stop-work.md).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from tests.harness.leavers import How
from tests.harness.stacks import Stack
from tests.harness.stopping import ASGI, HOWS, NOT_TOLD, TORNADO_ROW, Observed
from tests.harness.tap import PATH_VARIABLE

__all__ = ["GOAL", "Row", "main", "measure"]

GOAL: Final = 100.0
"""Milliseconds that no median may exceed."""
AT_ONCE: Final = 3
PATHS: Final = ("/handler", "/dependency", "/stream", "/whole", "/upload", "/unread")
TORNADO_PATHS: Final = ("/handler", "/body", "/whole")


@dataclass(kw_only=True, slots=True)
class Row:
    """One server, with so many ``BaseHTTPMiddleware`` around the work.

    Attributes:
        server: Its name.
        base: How many there are.
        delays: Milliseconds from each departure to the end of its work, by how the client left.
        missed: Paths that were left out, because the server does not tell.
    """

    server: str
    base: int
    delays: dict[How, list[float]] = field(default_factory=lambda: {how: [] for how in HOWS})
    missed: list[str] = field(default_factory=list[str])

    @property
    def is_soon(self) -> bool:
        """Whether the medians are within the goal."""
        return all(statistics.median(delays) <= GOAL for delays in self.delays.values())


def measure(stack: Stack, base: int, rounds: int) -> Row:
    """Measure one server.

    Args:
        stack: The server, with the application of the tests.
        base: How many ``BaseHTTPMiddleware`` stand around the work.
        rounds: How often clients come to each path.
    """
    row = Row(server=stack.name.removeprefix("stopping-").removeprefix("asgi-"), base=base)
    with tempfile.TemporaryDirectory() as folder:
        tap = Path(folder) / "tap"
        env = {PATH_VARIABLE: str(tap), "TEST_BASE_HTTP": str(base)}
        with stack.process(wrapped=True, env=env) as process:
            server = Observed(process, tap)
            for path in TORNADO_PATHS if stack.interface == "tornado" else PATHS:
                for how in HOWS:
                    if how in NOT_TOLD.get((stack.name, path), ()):
                        row.missed.append(f"{path} {how}")
                        continue
                    for _ in range(rounds):
                        names = [uuid.uuid4().hex for _ in range(AT_ONCE)]
                        seconds = server.delays(server.leave_all(path, how, names))
                        row.delays[how] += [each * 1000 for each in seconds]
    return row


def _stacks(only: str) -> Iterator[tuple[Stack, int]]:
    for stack in ASGI:
        for base in (0, 1, 3):
            if only in stack.name:
                yield stack, base
    if only in TORNADO_ROW.name:
        yield TORNADO_ROW, 0


def table(rows: list[Row]) -> Table:
    """The rows, side by side."""
    made = Table(title="Milliseconds from a departure to the end of its work", title_justify="left")
    made.add_column("server")
    made.add_column("BaseHTTP", justify="right")
    for how in HOWS:
        for what in ("median", "95 %", "worst", "of"):
            made.add_column(f"{how.upper()} {what}", justify="right")
    made.add_column("not told")
    for row in rows:
        cells: list[str] = []
        for delays in row.delays.values():
            quantiles = statistics.quantiles(delays, n=20)
            figures = (statistics.median(delays), quantiles[-1], max(delays))
            cells += [*(f"{each:.1f}" for each in figures), str(len(delays))]
        made.add_row(row.server, str(row.base), *cells, ", ".join(row.missed))
    return made


@click.command(help=__doc__)
@click.option("--only", default="", help="Servers with this in their name.")
@click.option("--rounds", default=3, help="How often clients come to each path.")
def main(only: str, rounds: int) -> None:
    """Measure, print the table, and fail if a median is above the goal."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows = [measure(stack, base, rounds) for stack, base in _stacks(only)]
    console.print(table(rows))
    if late := [f"{row.server} ({row.base})" for row in rows if not row.is_soon]:
        console.print(f"A median above {GOAL:.0f} ms: {', '.join(late)}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
