"""What `cleanclose explain` shows: to people, and to programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cleanclose.core.events import Side
from cleanclose.doctor.explain.kinds import Sure
from cleanclose.doctor.explain.tally import Group as Findings
from cleanclose.doctor.explain.tally import Tally, moment

__all__ = ["VERSION", "as_json", "show"]

VERSION: Final = 1
"""The JSON output's version. It grows when a field changes its meaning or goes away, not for new
ones."""

_COLORS: Final = {
    Side.CLIENT: "green",
    Side.UPSTREAM: "red",
    Side.SERVER: "magenta",
    Side.UNKNOWN: "yellow",
}
_BARS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = " .:-=+*#@"
_DETAILS: Final = 5


def as_json(tally: Tally, names: Iterable[str]) -> dict[str, object]:
    """Make the result for a program; docs/explain.md describes it.

    Args:
        tally: What was counted.
        names: The logs' names.
    """
    span = tally.span()
    return {
        "version": VERSION,
        "files": list(names),
        "lines": tally.lines,
        "findings": sum(group.count for group in tally.groups.values()),
        "sides": tally.sides(),
        "first": None if span is None else moment(span[0]),
        "last": None if span is None else moment(span[1]),
        "bucket_seconds": None if span is None else span[2],
        "kinds": [_group(group, span) for group in tally.ranked()],
    }


def _group(group: Findings, span: tuple[float, float, int] | None) -> dict[str, object]:
    kind = group.kind
    over_time: list[list[object]] = []
    if span is not None and group.first is not None:
        group.widen(max(span[2], group.span))
        over_time = [
            [moment(number * group.span), count] for number, count in sorted(group.buckets.items())
        ]
    return {
        "kind": kind.name,
        "side": kind.side.value,
        "sure": kind.sure.value,
        "title": kind.title,
        "why": kind.why,
        "advice": kind.advice,
        "count": group.count,
        "first": None if group.first is None else moment(group.first),
        "last": None if group.last is None else moment(group.last),
        "formats": dict(group.formats),
        "details": dict(group.details),
        "over_time": over_time,
        "example": group.example,
    }


def show(console: Console, tally: Tally) -> None:
    """Print the result for people.

    Args:
        console: The console to print to.
        tally: What was counted.
    """
    total = sum(group.count for group in tally.groups.values())
    if not total:
        console.print(f"{tally.lines:,} lines: none of them is about a broken connection.")
        return
    sides = ", ".join(
        f"[{_COLORS[Side(side)]}]{count:,} {_whose(Side(side))}[/]"
        for side, count in tally.sides().items()
        if count
    )
    console.print(
        f"[bold]{total:,} of {tally.lines:,} lines[/] tell of a broken connection: {sides}.",
        highlight=False,
    )
    span = tally.span()
    if span is not None:
        console.print(
            f"From {moment(span[0])} to {moment(span[1])}; one column is {_length(span[2])}.",
            highlight=False,
        )
    console.print(_table(tally, span, _bars(console)))
    for group in tally.ranked():
        console.print(_explanation(group))


def _whose(side: Side) -> str:
    return {
        Side.CLIENT: "the client's",
        Side.UPSTREAM: "an upstream's",
        Side.SERVER: "the server's own",
        Side.UNKNOWN: "of unknown origin",
    }[side]


def _bars(console: Console) -> str:
    return _BARS if console.encoding.lower().startswith("utf") else _ASCII_BARS


def _table(tally: Tally, span: tuple[float, float, int] | None, bars: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True)
    table.add_column("lines", justify="right", no_wrap=True)
    table.add_column("whose", no_wrap=True)
    table.add_column("how sure", no_wrap=True)
    table.add_column("what", ratio=1)
    if span is not None:
        table.add_column("when", no_wrap=True)
    for group in tally.ranked():
        kind = group.kind
        cells: list[RenderableType] = [
            f"{group.count:,}",
            Text(kind.side.value, style=_COLORS[kind.side]),
            Text(kind.sure.value, style="bold" if kind.sure is Sure.CERTAIN else ""),
            Text(kind.title),
        ]
        if span is not None:
            cells.append(Text(_plot(group, span, bars)))
        table.add_row(*cells)
    return table


def _plot(group: Findings, span: tuple[float, float, int], bars: str) -> str:
    first, last, width = span
    group.widen(max(width, group.span))
    begin = int(first // group.span)
    counts = [group.buckets.get(number, 0) for number in range(begin, int(last // group.span) + 1)]
    most = max(counts, default=0)
    if not most:
        return ""
    top = len(bars) - 1
    # A single one must stay visible beside many.
    return "".join(bars[-(-count * top // most)] for count in counts)


def _explanation(group: Findings) -> Group:
    kind = group.kind
    details = ", ".join(
        f"{escape(name)} {count:,}" for name, count in group.details.most_common(_DETAILS)
    )
    rest = len(group.details) - _DETAILS
    more = f", and {rest} more" if rest > 0 else ""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("  why", kind.why)
    rows.add_row("  change", kind.advice)
    if details:
        rows.add_row("  among", Text.from_markup(f"{details}{more}"))
    return Group(
        Text(""),
        Text(f"{group.count:,} x {kind.title}", style=f"{_COLORS[kind.side]} bold"),
        rows,
        Text(f"  {group.example.strip()}", style="dim", no_wrap=True, overflow="ellipsis"),
    )


def _length(seconds: int) -> str:
    for name, unit in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds % unit == 0 and seconds >= unit:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} seconds"
