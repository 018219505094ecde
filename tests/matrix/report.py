"""The matrix as tables: in a terminal, as Markdown, as a picture."""

from __future__ import annotations

import io
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from tests.matrix.limits import limit_of
from tests.matrix.run import DIRECT, Matrix, Result

__all__ = [
    "BEGIN",
    "BY_FRAMING",
    "END",
    "Grid",
    "as_markdown",
    "as_svg",
    "as_tables",
    "failures",
    "grids",
    "notes",
    "put_between",
    "width_of",
]

BY_FRAMING: Final = "By framing, all clients"
BEGIN: Final = "<!-- matrix: begin -->"
END: Final = "<!-- matrix: end -->"
LEGEND: Final = (
    "Each cell: answers that arrived whole, of those that were due; - where there is no such "
    "request. * is a known limit of a client, a proxy or a server.",
    "no reset: exchanges in which no connection of the client's was reset, whether or not the "
    "answer arrived. in order: nothing but the answer came (as far as the raw clients see), and a "
    "connection whose end was announced ended. next: GETs behind an answer that were answered "
    "rightly, of those sent.",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: what was due and what arrived."""

    due: int = 0
    good: int = 0
    limited: int = 0
    """Of those that did not arrive, the ones which nothing on the server's side can help."""
    absent: bool = False

    @property
    def text(self) -> str:
        """The cell in a few characters."""
        if self.absent:
            return "not here"
        if not self.due:
            return "-"
        return f"{self.good}/{self.due}" + ("*" if self.limited else "")

    @property
    def color(self) -> str:
        """Green if everything arrived that could."""
        if self.absent or not self.due:
            return "dim"
        return "green" if self.good + self.limited == self.due else "red"


def _cell(results: Iterable[Result], good: Callable[[Result], bool]) -> Cell:
    results = list(results)
    counted = [result for result in results if result.counts]
    return Cell(
        due=len(counted),
        good=sum(map(good, counted)),
        limited=sum(not good(result) and limit_of(result) is not None for result in counted),
        absent=not counted and any(result.kind == "not here" for result in results),
    )


def _delivered(result: Result) -> bool:
    return result.kind == "delivered"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table: a line for each server and side, a column for each client, case or way."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, bool, tuple[Cell, ...]], ...]


_NARROWEST: Final = 100
_WIDEST: Final = 300

_ENDS: Final = ("no reset", "in order", "next")


def _grid(
    title: str,
    results: Sequence[Result],
    columns: Mapping[str, str],
    key: Callable[[Result], str],
) -> Grid:
    lines: list[tuple[str, bool, tuple[Cell, ...]]] = []
    for server in dict.fromkeys(result.server for result in results):
        for wrapped in (False, True):
            mine = [r for r in results if (r.server, r.wrapped) == (server, wrapped)]
            cells = [_cell((r for r in mine if key(r) == name), _delivered) for name in columns]
            followed = [result for result in mine if result.next is not None]
            cells += [
                _cell(mine, lambda result: not result.resets),
                _cell(mine, lambda result: not result.faults),
                _cell(followed, lambda result: result.next != "failed"),
            ]
            lines.append((server, wrapped, tuple(cells)))
    return Grid(title=title, columns=(*columns.values(), *_ENDS), lines=tuple(lines))


def grids(matrix: Matrix) -> list[Grid]:
    """The tables: by client, by framing, by proxy."""
    ways = {way.name: way for way, _, _ in matrix.plan.uploads}
    clients = {client.name: client for _, client, _ in matrix.plan.uploads}
    cases = {case.name: case for _, _, case in matrix.plan.uploads}
    direct = [result for result in matrix.results if result.way == DIRECT.name]
    behind = [result for result in matrix.results if result.way != DIRECT.name]
    found: list[Grid] = []
    if direct:
        found.append(
            _grid(
                "By client",
                direct,
                {name: client.heading for name, client in clients.items()},
                lambda result: result.client,
            )
        )
        found.append(
            _grid(
                BY_FRAMING,
                direct,
                {name: case.title for name, case in cases.items()},
                lambda result: result.case,
            )
        )
    if behind:
        names = {name: name for name, way in ways.items() if way is not DIRECT}
        found.append(_grid("Behind a proxy", behind, names, lambda result: result.way))
    return found


def failures(results: Sequence[Result]) -> list[Result]:
    """The wrapped uploads that were lost, cut, or followed by a wrong answer, without a limit."""
    return [
        result
        for result in results
        if result.wrapped and result.counts and not result.good and limit_of(result) is None
    ]


def notes(matrix: Matrix, seconds: float) -> list[str]:
    """What the figures mean, and what they were taken with."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(matrix.versions.items()))
    lines = [
        *LEGEND,
        f"{len(matrix.results)} uploads in {seconds:.0f} seconds; {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores.",
        f"{versions}.",
    ]
    lines += [f"Not here: {name} ({reason})." for name, reason in matrix.absent.items()]
    found = {limit_of(result) for result in matrix.results if result.counts and not result.good}
    lines += [
        f"* {limit.why}" for limit in sorted(filter(None, found), key=lambda limit: limit.why)
    ]
    return lines


def as_tables(found: Sequence[Grid], told: Sequence[str]) -> Group:
    """Lay the tables out for a terminal."""
    parts: list[Table | Text] = []
    for grid in found:
        # Vertical lines would be ragged where the picture is drawn with another font.
        table = Table(
            title=grid.title,
            title_justify="left",
            title_style="bold",
            box=box.HORIZONTALS,
            padding=(0, 1, 0, 0),
        )
        table.add_column("Server", no_wrap=True)
        table.add_column("")
        for column in grid.columns:
            # One word a line, so that the heading is not wider than what stands below it.
            table.add_column(column.replace(" ", "\n"), justify="right")
        for server, wrapped, cells in grid.lines:
            table.add_row(
                "" if wrapped else server,
                "wrapped" if wrapped else "bare",
                *(Text(cell.text, cell.color) for cell in cells),
                end_section=wrapped,
            )
        parts += [table, Text("")]
    return Group(*parts, Text("\n".join(told)))


def as_markdown(found: Sequence[Grid], told: Sequence[str]) -> str:
    """Write the tables as Markdown, with the notes below."""
    parts: list[str] = []
    for grid in found:
        columns = ("Server", "", *grid.columns)
        lines = [f"### {grid.title}", "", _line(columns), _line(["---"] * len(columns))]
        for server, wrapped, cells in grid.lines:
            texts = [_marked(cell) for cell in cells]
            lines.append(_line((f"`{server}`", "wrapped" if wrapped else "bare", *texts)))
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {line.replace('*', chr(92) + '*')}" for line in told))
    return "\n\n".join(parts)


def _marked(cell: Cell) -> str:
    text = cell.text.replace("*", "\\*")
    return f"**{text}**" if cell.color == "red" else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def width_of(tables: Group) -> int:
    """The number of columns that these tables need."""
    console = Console(width=_WIDEST, file=io.StringIO())
    widths = [
        console.measure(part).maximum for part in tables.renderables if isinstance(part, Table)
    ]
    return max(_NARROWEST, *widths)


def as_svg(tables: Group) -> str:
    """Draw the tables as they look in a terminal that is wide enough."""
    console = Console(
        record=True, width=width_of(tables), file=io.StringIO(), color_system="truecolor"
    )
    console.print(tables)
    svg = console.export_svg(title="make matrix", theme=DIMMED_MONOKAI, unique_id="matrix")
    # The picture must not load fonts from somewhere when it is looked at.
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def put_between(page: Path, text: str) -> None:
    """Replace what stands between the two comments of a page.

    Raises:
        ValueError: The page has no such comments.
    """
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")
