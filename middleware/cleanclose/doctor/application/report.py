"""Show a report: tables and sentences for people, one JSON document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cleanclose.doctor.application.cases import UPLOADS
from cleanclose.doctor.application.results import Finding, Line, Report, Result, Side

__all__ = ["as_json", "show"]

_GOT: Final = ("early answer", "http2", "application", "proxy")
_SAID: Final = ("departure", "upstream", "application")
_WARNING: Final = 30
_EVIDENCE: Final = 3
_REASONS: Final = {
    "TCP_ABORT_ON_CLOSE": "the server closed the connection with unread data",
    "TCP_ABORT_ON_DATA": "data came after the server had closed the connection",
    "TCP_STATE": "the server threw the connection away",
}
_HOW: Final = {
    "asgi": "app.add_middleware(CleanCloseMiddleware) or CleanCloseMiddleware(app)",
    "wsgi": "app.wsgi_app = CleanCloseMiddleware(app.wsgi_app) or CleanCloseMiddleware(app)",
    "tornado": "cleanclose.tornado.install(application)",
}
_INTERFACES: Final = {"asgi": "ASGI", "wsgi": "WSGI", "tornado": "Tornado"}


def as_json(report: Report) -> dict[str, Any]:
    """Make the document that ``--json`` prints; ``docs/doctor.md`` describes it.

    Args:
        report: The report.
    """
    return {
        "version": 1,
        "kind": "application",
        "target": report.target,
        "interface": report.interface,
        "framework": report.framework,
        "server": {"name": report.server, "version": report.server_version},
        "seconds": report.seconds,
        "notes": report.notes,
        "sides": {
            side.side: {
                "counters": side.counters,
                "cases": [_case_json(result) for result in side.results],
            }
            for side in report.sides
        },
        "findings": report.findings,
    }


def _case_json(result: Result) -> dict[str, Any]:
    lines = Counter((line.level, line.logger, line.error) for line in result.lines if line.visible)
    return {
        "id": result.case,
        "title": result.title,
        "group": result.group,
        "where": result.where,
        "expected": result.expected,
        "answers": [
            {"kind": answer.kind, "status": answer.status, "detail": answer.detail}
            for answer in result.answers
        ],
        "log": [
            {"level": level, "logger": logger, "error": error, "count": count}
            for (level, logger, error), count in sorted(lines.items(), key=str)
        ],
        "tracebacks": result.tracebacks,
        "access_log": result.access,
        "events": [{"name": event.name, **event.fields} for event in result.events],
        "resets": result.resets,
    }


def show(report: Report, console: Console) -> None:
    """Print the report for people.

    Args:
        report: The report.
        console: The console to print to.
    """
    framework = f" ({report.framework})" if report.framework not in (None, "Tornado") else ""
    version = f" {report.server_version}" if report.server_version else ""
    head = (
        f"{report.target}: {_INTERFACES[report.interface]}{framework} on {report.server}{version}"
    )
    console.print(Text(head, style="bold"))
    for note in report.notes:
        console.print(Text(note, style="yellow"))
    console.print(_answers(report))
    console.print(_lines(report))
    _show_counters(report, console)
    _show_findings(report, console)


def _by_case(report: Report, groups: Sequence[str]) -> list[tuple[str, dict[Side, Result]]]:
    rows: dict[str, dict[Side, Result]] = {}
    for side in report.sides:
        for result in side.results:
            if result.group in groups:
                rows.setdefault(result.case, {})[side.side] = result
    return [(next(iter(row.values())).title, row) for row in rows.values()]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _answers(report: Report) -> Table:
    sides = [side.side for side in report.sides]
    table = _table("\nWhat a client gets for an upload that is refused", "client", *sides)
    group = ""
    for title, row in _by_case(report, _GOT):
        first = next(iter(row.values()))
        if first.group == "application" and first.case not in UPLOADS:
            continue
        if first.group != group and group:
            table.add_section()
        group = first.group
        name = f"app: {title}" if first.group == "application" else title
        table.add_row(name, *(_got(row[side]) if side in row else "" for side in sides))
    return table


def _got(result: Result) -> Text:
    bad = result.lost
    if not bad:
        statuses = sorted({str(answer.status) for answer in result.answers if answer.status})
        count = len(result.answers)
        return Text(f"{'/'.join(statuses)}  {count} of {count}", style="green")
    if bad[0].kind == "hung":
        return Text("hangs", style="bold red")
    if bad[0].status:
        return Text(f"{bad[0].status} instead of {result.expected}", style="bold red")
    return Text("lost", style="bold red")


def _lines(report: Report) -> Table:
    columns = [side.side for side in report.sides]
    wrapped = any(side.side == "wrapped" for side in report.sides)
    extra = ("event, as proxies call it",) if wrapped else ()
    table = _table(
        "\nWhat is written when a client leaves (log, status in the access log)",
        "client",
        *columns,
        *extra,
    )
    group = ""
    for title, row in _by_case(report, _SAID):
        first = next(iter(row.values()))
        if first.case in UPLOADS:
            continue
        if first.group != group and group:
            table.add_section()
        group = first.group
        name = f"app: {title}" if first.group == "application" else title
        cells = [_said(row[side.side]) for side in report.sides if side.side in row]
        if wrapped:
            cells.append(Text(_events(row["wrapped"]) if "wrapped" in row else ""))
        table.add_row(name, *cells)
    return table


def _said(result: Result) -> Text:
    loud = [line for line in result.lines if line.visible and not line.logger.endswith("access")]
    level = _loudest(loud)
    if level is None and result.tracebacks:
        level = "traceback"
    status = result.access[-1] if result.access else "-"
    text = Text(level or "nothing", style="red" if level in _RED else "")
    return text.append(f", {status}", style="dim")


_RED: Final = ("ERROR", "CRITICAL", "traceback")


def _loudest(lines: Iterable[Line]) -> str | None:
    loud = [line for line in lines if line.number >= _WARNING]
    return max(loud, key=lambda line: line.number).level if loud else None


def _events(result: Result) -> str:
    if not result.events:
        return "-"
    event = result.events[-1]
    words = [event.fields.get(name) for name in ("nginx", "haproxy", "envoy")]
    called = f" {'/'.join(str(word) for word in words)}" if all(words) else ""
    return f"{event.name}{called}"


def _show_counters(report: Report, console: Console) -> None:
    for side in report.sides:
        if not side.counters:
            continue
        table = _table("\nWhat the middleware has counted", "counter", "")
        for name, value in _flat(side.counters):
            table.add_row(Text(name), f"{value:g}" if isinstance(value, float) else str(value))
        console.print(table)


def _flat(counters: dict[str, Any]) -> Iterable[tuple[str, object]]:
    for name, value in sorted(counters.items()):
        if isinstance(value, dict):
            series = cast("dict[str, int | float]", value)
            for inner, count in sorted(series.items()):
                if count:
                    yield f"{_short(name)} {inner}".replace('"', "").replace(",", " "), count
        elif value:
            yield _short(name), value


def _short(name: str) -> str:
    return name.removeprefix("cleanclose_")


def _show_findings(report: Report, console: Console) -> None:
    wrapped = {(finding.id, finding.where) for finding in report.findings if _is_wrapped(finding)}
    tried = any(side.side == "wrapped" for side in report.sides)
    bare = [finding for finding in report.findings if not _is_wrapped(finding)]
    known = {(finding.id, finding.where) for finding in bare}
    shown = bare + [
        finding
        for finding in report.findings
        if _is_wrapped(finding) and (finding.id, finding.where) not in known
    ]
    for finding in shown:
        remains = (finding.id, finding.where) in wrapped
        _show_finding(finding, console, tried=tried, remains=remains)
    if bare:
        console.print(Text(f"\nTo put the middleware around it: {_HOW[report.interface]}"))
    counts = Counter(finding.side for finding in report.findings)
    summary = ", ".join(f"{side.side}: {_count(counts[side.side])}" for side in report.sides)
    style = "bold red" if report.findings else "bold green"
    console.print(Text(f"\n{summary[:1].upper()}{summary[1:]}. {report.seconds} s.", style=style))


def _count(number: int) -> str:
    return "no findings" if not number else f"{number} finding{'s' if number > 1 else ''}"


def _is_wrapped(finding: Finding) -> bool:
    return finding.side == "wrapped"


def _show_finding(finding: Finding, console: Console, *, tried: bool, remains: bool) -> None:
    style = "bold red" if finding.severity == "error" else "bold yellow"
    head = Text(f"\n{finding.severity}: ", style=style)
    where = f" [{finding.where}]" if finding.where != "server" else ""
    head.append(f"{finding.id}{where}", style="bold")
    if tried:
        head.append("  still there when wrapped" if remains else "  gone when wrapped")
    console.print(head)
    console.print(Padding(Text(finding.sentence), (0, 0, 0, 2), expand=False))
    for line in finding.evidence[:_EVIDENCE]:
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 4), expand=False))
    more = len(finding.evidence) - _EVIDENCE
    if more > 0:
        console.print(Padding(Text(f"and {more} more", style="dim"), (0, 0, 0, 4), expand=False))
    if finding.kernel:
        reasons = [
            f"{reason} ({_REASONS[reason]})" if reason in _REASONS else reason
            for reason in finding.kernel
        ]
        text = f"the kernel sent a reset, by its own words: {', '.join(reasons)}"
        console.print(Padding(Text(text, style="dim"), (0, 0, 0, 4), expand=False))
    console.print(Padding(Text(finding.advice, style="cyan"), (0, 0, 0, 2), expand=False))
