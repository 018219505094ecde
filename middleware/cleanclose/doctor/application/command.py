"""``cleanclose doctor``: its options, and which of the two tests they ask for."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Final, Literal, Self, TypedDict, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cleanclose.doctor.application.cases import Endpoint
from cleanclose.doctor.application.report import as_json, show
from cleanclose.doctor.application.results import Severity, Side
from cleanclose.doctor.application.run import Plan, examine
from cleanclose.doctor.application.servers import NAMES
from cleanclose.doctor.output import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    console,
    print_json,
)

__all__ = ["command"]

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2}
_LARGEST: Final = 64 * 1024**2
_SIDES: Final[dict[str, tuple[Side, ...]]] = {
    "bare": ("bare",),
    "wrapped": ("wrapped",),
    "both": ("bare", "wrapped"),
}
FailOn = Literal["error", "warning", "never"]


class _Given(TypedDict):
    """The options that say how."""

    server: str | None
    path: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body_size: int
    side: str
    proxies: bool
    port: int | None
    timeout: float
    start_timeout: float


def _method(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", value):
        raise click.BadParameter(f"{value!r} is not a method.")
    return value


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([km]?)(?:i?b)?", value.strip().lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size: write 500K or 8M.")
    size = int(match[1]) * _UNITS[match[2]]
    if not 1 <= size <= _LARGEST:
        raise click.BadParameter("it must be between 1 byte and 64M.")
    return size


def _headers(
    ctx: click.Context, param: click.Parameter, value: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for line in value:
        name, colon, rest = line.partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise click.BadParameter(f"{line!r} is not a header: write 'Name: value'.")
        if not rest.isprintable():
            raise click.BadParameter(f"the value of {name} has control characters in it.")
        found.append((name, rest.strip()))
    return tuple(found)


def _path(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value.startswith("/") or re.search(r"[^!-~]", value):
        raise click.BadParameter("it must begin with a slash; printable ASCII without spaces.")
    return value


@click.command(
    short_help="Try an application, or an address, with clients that leave.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("target", metavar="MODULE:APP|URL")
@click.argument("options", nargs=-1, metavar="[-- SERVER OPTIONS]", type=click.UNPROCESSED)
@click.option(
    "--server",
    type=click.Choice(NAMES),
    metavar="NAME",
    help=f"The server to use: one of {', '.join(NAMES)}.",
)
@click.option(
    "--path", default="/", callback=_path, metavar="PATH", help="The path to request. Default: /"
)
@click.option(
    "--method",
    default="POST",
    callback=_method,
    metavar="NAME",
    help="The requests' method. Default: POST",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="LINE",
    help="'Name: value'; may be repeated.",
)
@click.option(
    "--body-size", callback=_size, default="8M", metavar="SIZE", help="Size of uploads. Default: 8M"
)
@click.option(
    "--run",
    "side",
    type=click.Choice(sorted(_SIDES)),
    default="both",
    metavar="SIDE",
    help="bare, wrapped (by the middleware), both (default).",
)
@click.option("--proxies/--no-proxies", default=True, help="Also try the proxies installed here.")
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    metavar="N",
    help="The first port. Default: free ones.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 300),
    default=10.0,
    metavar="SECONDS",
    help="Limit for an answer. Default: 10",
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(0.1, 300),
    default=20.0,
    metavar="SECONDS",
    help="Limit for the start. Default: 20",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="warning",
    metavar="SEVERITY",
    help="Exit with 1 from: error, warning (default), never.",
)
@click.option("--json", "as_document", is_flag=True, help="One JSON document.")
def command(
    target: str,
    options: tuple[str, ...],
    fail_on: FailOn,
    as_document: bool,
    **given: Unpack[_Given],
) -> int:
    """Try an application, or an address, with clients that leave.

    MODULE:APP is started here, bare and with the middleware around it. A URL (http, https) is
    sent a handful of uploads, and nothing else is contacted.
    """
    out = console(as_document)
    endpoint = Endpoint(
        path=given["path"],
        method=given["method"].upper(),
        headers=given["headers"],
        body_size=given["body_size"],
        timeout=given["timeout"],
    )
    if target.lower().startswith(("http://", "https://")):
        from cleanclose.doctor.address.run import ask

        return ask(target, endpoint, out, fail_on=fail_on, as_document=as_document)
    plan = Plan(
        target=target,
        server=given["server"],
        options=options,
        endpoint=endpoint,
        sides=_SIDES[given["side"]],
        proxies=given["proxies"],
        port=given["port"],
        start_seconds=given["start_timeout"],
    )
    with _Bar(out) as bar:
        report = examine(plan, bar.step)
    if as_document:
        print_json(as_json(report))
    else:
        show(report, out)
    return status([finding.severity for finding in report.findings], fail_on)


def status(severities: Sequence[Severity], fail_on: FailOn) -> int:
    """Return the exit status for these findings.

    Args:
        severities: The findings' severities.
        fail_on: The lowest severity that counts.
    """
    counting = {"never": (), "error": ("error",), "warning": ("error", "warning")}[fail_on]
    return EXIT_FINDINGS if any(each in counting for each in severities) else EXIT_CLEAN


class _Bar:
    """A progress bar for each side, shown on a terminal only."""

    def __init__(self, out: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total} cases"),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self._lock = threading.Lock()
        self._tasks: dict[Side, TaskID] = {}

    def __enter__(self) -> Self:
        # rich 13 ends a bar that is disabled with an empty line.
        if not self._progress.disable:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def step(self, side: Side, done: int, total: int) -> None:
        """Count one more case as done."""
        with self._lock:
            if side not in self._tasks:
                self._tasks[side] = self._progress.add_task(side, total=total)
        self._progress.update(self._tasks[side], completed=done)
