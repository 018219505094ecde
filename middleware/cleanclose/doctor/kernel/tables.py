"""The tables of `cleanclose kernel`: 80 columns wide, and readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cleanclose.doctor.kernel.naming import NamedReset, label
from cleanclose.doctor.kernel.readings import Finding, Queue, Reading
from cleanclose.doctor.kernel.sentences import COUNTERS, SYSCTLS
from cleanclose.doctor.kernel.servers import ServerSettings
from cleanclose.doctor.kernel.tracing import Direction

__all__ = ["reading_tables", "reset_lines", "reset_summary"]

_BOX: Final = box.SIMPLE_HEAD


def reading_tables(reading: Reading) -> RenderableType:
    """Lay out all of a reading.

    Args:
        reading: The reading.
    """
    parts: list[RenderableType] = [_counters(reading), _queues(reading.queues)]
    parts += [_sysctls(reading), *_findings(reading.findings)]
    if not reading.findings:
        parts.append(Text(f"Nothing was reset or turned away in {reading.seconds:.1f} s.", "green"))
    if reading.earlier:
        parts.append(Text("\nBefore that, since the start of this network namespace:", "bold"))
        parts += [_sentence("·", COUNTERS[name].means, name) for name in reading.earlier]
    if reading.unseen:
        parts.append(Text("\nWhat cannot be seen from here:", "bold"))
        parts += [_sentence("·", each) for each in reading.unseen]
    return Group(*parts)


def _counters(reading: Reading) -> Table:
    table = Table(box=_BOX, title="Resets and refusals", title_justify="left", pad_edge=False)
    table.add_column("kernel's counter", no_wrap=True)
    table.add_column("what it counts")
    table.add_column("in all", justify="right", no_wrap=True)
    table.add_column(f"in {reading.seconds:.1f} s", justify="right", no_wrap=True)
    table.add_column("per s", justify="right", no_wrap=True)
    seen = {each.name for each in reading.findings}
    for each in reading.counters:
        table.add_row(
            each.name,
            each.short,
            f"{each.total:,}",
            f"{each.grown:,}" if each.grown else "-",
            f"{each.per_second:,.1f}" if each.grown else "-",
            style="bold yellow" if each.name in seen else None,
        )
    return table


def _queues(queues: Sequence[Queue]) -> RenderableType:
    if not queues:
        return Text("No TCP socket listens here.")
    table = Table(box=_BOX, title="Accept queues", title_justify="left", pad_edge=False)
    table.add_column("listens at")
    table.add_column("waiting", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("process")
    table.add_column("backlog, keep-alive")
    notes: list[str] = []
    for each in queues:
        full = each.limit is not None and each.waiting > each.limit
        host = f"[{each.address}]" if ":" in each.address else each.address
        table.add_row(
            Text(f"{host}:{each.port}"),
            f"{each.waiting:,}" + (" full" if full else ""),
            "?" if each.limit is None else f"{each.limit:,}",
            Text(_processes(each)),
            Text(_server(each.server)),
            style="bold yellow" if full else None,
        )
        if each.note is not None and each.note not in notes:
            notes.append(each.note)
    return Group(table, *(_sentence("·", note) for note in notes))


def _processes(queue: Queue) -> str:
    if not queue.owners:
        return "?"
    first = label(queue.owners[0])
    return first if len(queue.owners) == 1 else f"{first} + {len(queue.owners) - 1}"


def _server(settings: ServerSettings | None) -> str:
    if settings is None:
        return ""
    said: list[str] = []
    for name, value, unit in (
        ("backlog", settings.backlog, ""),
        ("keep_alive", settings.keep_alive, " s"),
    ):
        if value is not None:
            usual = " (usual)" if name in settings.from_defaults else ""
            said.append(f"{value:g}{unit}{usual}")
    return ", ".join(said)


def _sysctls(reading: Reading) -> Table:
    table = Table(box=_BOX, title="Settings of the kernel", title_justify="left", pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("is", justify="right")
    table.add_column("what it does")
    for name, value in reading.sysctls.items():
        table.add_row(name, f"{value:,}", SYSCTLS[name])
    return table


def _findings(findings: Sequence[Finding]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for each in findings:
        parts.append(_sentence("!", each.means, f"{each.name} {each.count:,}", "bold yellow"))
        parts.append(_sentence(" ", each.advice))
    return parts


def _sentence(mark: str, text: str, name: str | None = None, style: str = "") -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    said = Text()
    if name is not None:
        said.append(f"{name}: ", style or "bold")
    grid.add_row(Text(mark, style), said.append(text))
    return grid


def reset_lines(reset: NamedReset) -> RenderableType:
    """Lay out one reset: when, which way, both ends, and a sentence.

    Args:
        reset: The reset.
    """
    sent = reset.direction is Direction.SENT
    head = Text()
    head.append(f"{reset.time.astimezone():%H:%M:%S.%f}"[:-3], "dim")
    head.append(" sent     " if sent else " received ", "bold yellow" if sent else "bold cyan")
    head.append(f"{reset.local} {'->' if sent else '<-'} {reset.remote}", "bold")
    parts: list[RenderableType] = [head, _sentence(" ", reset.sentence + ".", reset.reason)]
    if reset.event is not None:
        said = " ".join(
            str(reset.event[key])
            for key in ("event", "side", "phase", "mechanism")
            if key in reset.event
        )
        parts.append(_sentence(" ", f"cleanclose there said: {said}"))
    return Group(*parts)


def reset_summary(counts: dict[tuple[str, str, str], int], seconds: float) -> RenderableType:
    """Lay out the number of resets of each kind.

    Args:
        counts: For each direction, owner and reason, how many.
        seconds: How long the command listened.
    """
    if not counts:
        return Text(f"No reset was sent or received in {seconds:.1f} s.", "green")
    table = Table(
        box=_BOX, title=f"Resets in {seconds:.1f} s", title_justify="left", pad_edge=False
    )
    table.add_column("resets", justify="right")
    table.add_column("way")
    table.add_column("process")
    table.add_column("the kernel's reason")
    for (direction, owner, reason), count in sorted(counts.items(), key=lambda each: -each[1]):
        table.add_row(f"{count:,}", direction, Text(owner), reason)
    return table
