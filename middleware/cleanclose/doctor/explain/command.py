"""The command line of ``cleanclose explain``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cleanclose.doctor.explain.entries import entries
from cleanclose.doctor.explain.reading import lines_of, opened, size_of
from cleanclose.doctor.explain.report import as_json, show
from cleanclose.doctor.explain.rules import find
from cleanclose.doctor.explain.tally import Tally
from cleanclose.doctor.output import EXIT_CLEAN, EXIT_FINDINGS, console, print_json

__all__ = ["command", "explain"]

_SIDES = ("client", "upstream", "server", "unknown")


@click.command(
    name="explain",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 nothing found, 1 findings, 2 failure.",
)
# Only for the shell's completion: for an unreadable file one sentence is enough, without the usage.
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...|-",
    type=click.Path(allow_dash=True, readable=False),
)
@click.option("--json", "as_document", is_flag=True, help="One JSON document, for programs.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice([*_SIDES, "never"]),
    help="Exit with 1 only for findings of this side; may be repeated.",
)
def command(files: tuple[str, ...], as_document: bool, fail_on: tuple[str, ...]) -> int:
    """Say who probably caused the resets in a log, and why.

    Reads logs of uvicorn, gunicorn, hypercorn, granian, Tornado, Django, asyncio, uWSGI, nginx
    (error and access), HAProxy, Envoy, Caddy, Traefik, JSON lines and the events of cleanclose,
    mixed or not, also gzipped. Nothing is sent anywhere.
    """
    out = console(as_document)
    tally = explain(files, out)
    if as_document:
        print_json(as_json(tally, files))
    else:
        show(out, tally)
    sides = tally.sides()
    return EXIT_FINDINGS if any(sides.get(side) for side in fail_on or _SIDES) else EXIT_CLEAN


def explain(files: Sequence[str], out: Console) -> Tally:
    """Read logs and count their broken connections.

    Args:
        files: Paths; ``-`` is standard input.
        out: The console that shows the progress, if it is a terminal.

    Raises:
        Trouble: One of them cannot be read, is empty, or is not text.
    """
    tally = Tally()
    sizes = [size_of(name) for name in files]
    known = None if None in sizes else sum(size or 0 for size in sizes)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal or "-" in files,
    )
    # rich 13 ends a bar that is disabled with an empty line.
    with contextlib.nullcontext() if bar.disable else bar:
        task = bar.add_task("reading", total=known)
        done = 0
        for name, size in zip(files, sizes, strict=True):
            before = done

            def progress(position: int, before: int = before) -> None:
                bar.update(task, completed=before + position)

            with opened(name) as file:
                # A pipe has neither a position nor a size.
                told = None if size is None or bar.disable else progress
                lines = _counted(lines_of(name, file, told), tally)
                for entry in entries(lines):
                    finding = find(entry)
                    if finding is not None:
                        tally.add(finding)
            done += size or 0
    return tally


def _counted(lines: Iterator[str], tally: Tally) -> Iterator[str]:
    for line in lines:
        tally.lines += 1
        yield line
