"""Servers x clients x bodies x framings, bare and wrapped side by side.

``make matrix``, or ``python -m tests.matrix``, from the root of the checkout.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.harness.paths import ROOT
from tests.harness.stacks import Stack
from tests.matrix import cases, report, servers
from tests.matrix.cases import Case
from tests.matrix.drivers import CLIENTS, Client
from tests.matrix.run import DIRECT, PROXIES, Matrix, Plan, Way

_STRICT: Final = "raw strict"
_SHOWN: Final = 40


def uploads(
    *,
    full: bool,
    clients: Sequence[Client] = CLIENTS,
    chosen: Sequence[Case] = (),
    ways: Sequence[Way] = (DIRECT, *PROXIES),
) -> list[tuple[Way, Client, Case]]:
    """Which client sends what on which way: the columns of the tables.

    Args:
        full: Everything, instead of what fits into three minutes.
        clients: The clients that take part.
        chosen: The cases that every client sends; without any, as ``full`` says.
        ways: Directly, and through which proxies.
    """
    found: list[tuple[Way, Client, Case]] = []
    for client in clients:
        strict = client.name == _STRICT
        for case in cases.ALL:
            if chosen:
                wanted = case in chosen
            elif full:
                wanted = True
            else:
                wanted = case in cases.QUICK if strict else case.name in cases.QUICK_FOR_ALL
            if not wanted:
                continue
            if DIRECT in ways:
                found.append((DIRECT, client, case))
            # Behind a proxy the proxy is the server's client; what is in front of it matters less.
            if strict:
                through = [way for way in ways if way is not DIRECT]
                found += [
                    (way, client, case) for way in through if chosen or _goes(case, way, full)
                ]
    return found


def _goes(case: Case, way: Way, full: bool) -> bool:
    """Whether a case is sent through a proxy, where nobody has chosen."""
    if way.quick:
        return full or case.name in ("length-8", "large-8")
    return full and case.name in ("length-8", "chunked-8", "slow-8")


def _named(kind: str, names: Sequence[str], candidates: Sequence[Any]) -> list[Any]:
    """The candidates with these names, or all of them if none is given."""
    unknown = set(names) - {candidate.name for candidate in candidates}
    if unknown:
        known = ", ".join(candidate.name for candidate in candidates)
        raise click.BadParameter(f"there is no {kind} {', '.join(sorted(unknown))}; {known}")
    return [candidate for candidate in candidates if not names or candidate.name in names]


@click.command(help=__doc__)
@click.option("--full", is_flag=True, help="Every server, client and case: half an hour or more.")
@click.option("--server", "server_names", multiple=True, help="Only this server (repeatable).")
@click.option("--client", "client_names", multiple=True, help="Only this client (repeatable).")
@click.option("--case", "case_names", multiple=True, help="Only this case (repeatable).")
@click.option("--way", "way_names", multiple=True, help="Only direct, or only this proxy.")
@click.option("--tries", default=1, type=click.IntRange(1), help="How often each upload is sent.")
@click.option("--workers", default=2, type=click.IntRange(1, 8), help="Servers that run at once.")
@click.option(
    "--out",
    default=ROOT / "build",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where matrix.jsonl, matrix.md and matrix.svg go.",
)
@click.option("--docs", is_flag=True, help="Put tables and picture into docs/ as well.")
@click.option("--list", "only_list", is_flag=True, help="Only list the names that there are.")
def main(
    *,
    full: bool,
    server_names: tuple[str, ...],
    client_names: tuple[str, ...],
    case_names: tuple[str, ...],
    way_names: tuple[str, ...],
    tries: int,
    workers: int,
    out: Path,
    docs: bool,
    only_list: bool,
) -> None:
    """Run it from the command line."""
    if only_list:
        kinds: dict[str, Sequence[Any]] = {
            "servers": servers.ALL,
            "clients": CLIENTS,
            "cases": cases.ALL,
            "ways": (DIRECT, *PROXIES),
        }
        for kind, candidates in kinds.items():
            click.echo(f"{kind}: {', '.join(candidate.name for candidate in candidates)}")
        return
    rows = servers.ALL if full or server_names else servers.QUICK
    stacks: list[Stack] = _named("server", server_names, rows)
    plan = Plan(
        servers=stacks,
        uploads=uploads(
            full=full,
            clients=_named("client", client_names, CLIENTS),
            chosen=_named("case", case_names, cases.ALL) if case_names else (),
            ways=_named("way", way_names, (DIRECT, *PROXIES)),
        ),
        tries=tries,
        workers=workers,
    )
    # So that a CI job which is cancelled leaves no server behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    matrix = _run(plan)
    matrix.versions |= servers.versions(tuple(stacks))
    _write(matrix, time.monotonic() - started, out, docs=docs)
    bad = report.failures(matrix.results)
    for result in bad[:_SHOWN]:
        click.echo(f"not well: {result.as_json()}", err=True)
    if len(bad) > _SHOWN:
        click.echo(f"... and {len(bad) - _SHOWN} more", err=True)
    for problem in matrix.problems:
        click.echo(problem, err=True)
    if bad or any("wrapped" in problem for problem in matrix.problems):
        sys.exit(1)


def _run(plan: Plan) -> Matrix:
    with Progress(
        # The text comes last, so that the bar stays where it is while the text changes.
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("")

        def advance(text: str, done: bool) -> None:
            if text:
                progress.update(task, description=text)
            progress.advance(task, int(done))

        matrix = Matrix(plan=plan, advance=advance)
        progress.update(task, total=matrix.total)
        matrix.run()
    return matrix


def _write(matrix: Matrix, seconds: float, out: Path, *, docs: bool) -> None:
    found = report.grids(matrix)
    told = report.notes(matrix, seconds)
    tables = report.as_tables(found, told)
    # Output that goes to a file or a pipe has no width of its own.
    Console(width=None if sys.stdout.isatty() else report.width_of(tables)).print(tables)
    lines = "".join(f"{result.as_json()}\n" for result in matrix.results)
    markdown = report.as_markdown(found, told)
    # What each framing does stands on the page; the picture is large enough without it.
    shown = [grid for grid in found if grid.title != report.BY_FRAMING]
    svg = report.as_svg(report.as_tables(shown, told))
    out.mkdir(parents=True, exist_ok=True)
    (out / "matrix.jsonl").write_text(lines, "utf-8")
    (out / "matrix.md").write_text(f"{markdown}\n", "utf-8")
    (out / "matrix.svg").write_text(svg, "utf-8")
    if docs:
        report.put_between(ROOT / "docs" / "matrix.md", markdown)
        (ROOT / "docs" / "matrix.svg").write_text(svg, "utf-8")


if __name__ == "__main__":
    main()
