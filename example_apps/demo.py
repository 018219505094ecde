"""Run the example apps bare and wrapped, and show what the difference is.

``make demo``, or ``python -m example_apps.demo``, from the root of the checkout. Each example is
started twice on a free loopback port, without and with the middleware, and gets the same uploads:
some that it refuses while they are still being sent, and some whose client leaves half-way.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import io
import json
import os
import platform
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from cleanclose.doctor.clients import Abort, Outcome, Upload, curl, http_client, strict
from example_apps.staging import NginxProxy, ServerProcess, StartError, find_program
from example_apps.uploads import MIB, UploadService, UploadSettings

ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT_PICTURE: Final = ROOT / "build" / "demo.svg"
PICTURE_WIDTH: Final = 116
TITLE: Final = "Uploads that are refused while they are being sent"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example app and how it is served."""

    name: str
    package: str
    """The distribution whose version is worth telling."""
    command: tuple[str, ...]

    def server(self, settings: UploadSettings) -> ServerProcess:
        """Prepare the server process; it starts as a context manager."""
        return ServerProcess(
            (sys.executable, "-m", *self.command),
            cwd=ROOT,
            env={
                "CLEANCLOSE": "1" if settings.cleanclose else "0",
                "UPLOADS_FOLDER": str(settings.folder),
                "UPLOADS_SECRET": settings.secret.decode(),
                "UPLOADS_MAX_BYTES": str(settings.max_bytes),
                # gunicorn would leave its control socket in the user's home.
                "XDG_RUNTIME_DIR": str(settings.folder),
            },
            ready_path="/healthz",
            name=self.package,
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of upload, and how often it is sent."""

    tries: int
    size: int
    refused_with: HTTPStatus | None = None
    """The answer which is due while the upload still runs; None if the client leaves first."""
    leaves_by: Abort | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A row of the table for each example: what is sent, by which client."""

    client: str
    send: Callable[[Upload], Outcome]
    cases: tuple[Case, ...]
    connection_close: bool = False
    behind_nginx: bool = False
    program: str | None = None
    """A program without which the scenario is left out."""


EXAMPLES: Final = (
    Example(
        name="FastAPI on uvicorn",
        package="uvicorn",
        command=("uvicorn", "--factory", "example_apps.uploads_fastapi:make_app", "--port={port}"),
    ),
    Example(
        name="Flask on gunicorn",
        package="gunicorn",
        command=(
            "gunicorn",
            "--worker-class=gthread",
            "--threads=8",
            "--bind=127.0.0.1:{port}",
            "example_apps.uploads_flask:make_app()",
        ),
    ),
    Example(
        name="Tornado",
        package="tornado",
        command=("example_apps.uploads_tornado", "--port={port}"),
    ),
)

TOO_LARGE: Final = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
EXPIRED: Final = HTTPStatus.UNAUTHORIZED

REFUSED: Final = (
    Case(tries=8, size=16 * MIB, refused_with=TOO_LARGE),
    Case(tries=8, size=16 * MIB, refused_with=EXPIRED),
    Case(tries=2, size=64 * MIB, refused_with=TOO_LARGE),
    Case(tries=2, size=64 * MIB, refused_with=EXPIRED),
)
LEAVING: Final = (
    Case(tries=5, size=6 * MIB, leaves_by="reset"),
    Case(tries=5, size=6 * MIB, leaves_by="close"),
)
LEAVES_AFTER: Final = 1 * MIB

SCENARIOS: Final = (
    Scenario(client="http.client", send=http_client, cases=REFUSED),
    Scenario(
        client="http.client, Connection: close",
        send=http_client,
        cases=REFUSED,
        connection_close=True,
    ),
    Scenario(client="curl", send=curl, cases=REFUSED, program="curl"),
    Scenario(
        client="http.client behind nginx",
        send=http_client,
        cases=REFUSED,
        behind_nginx=True,
        program="nginx",
    ),
    Scenario(client="leaves half-way (RST, FIN)", send=strict, cases=LEAVING),
)


def quick(scenario: Scenario) -> Scenario:
    """Return the scenario with one try of each case, and without the largest bodies."""
    cases = (replace(case, tries=1) for case in scenario.cases if case.size <= 16 * MIB)
    return replace(scenario, cases=tuple(cases))


@dataclass(kw_only=True)
class Tally:
    """What came of one scenario on one server."""

    due: int = 0
    delivered: int = 0
    instead: Counter[str] = field(default_factory=Counter[str])
    loud_lines: int = 0
    counters: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def complete(self) -> bool:
        """Whether every answer that was due has arrived."""
        return self.delivered == self.due

    @property
    def answers(self) -> str:
        """Delivered of due, and what there was instead."""
        if not self.due:
            return "-"
        told = ", ".join(f"{count}x {what}" for what, count in self.instead.most_common())
        return f"{self.delivered}/{self.due}" + (f" ({told})" if told else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    example: str
    client: str
    bare: Tally
    wrapped: Tally

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of the columns."""
        return (
            self.client,
            self.bare.answers,
            self.wrapped.answers,
            f"{self.bare.loud_lines} → {self.wrapped.loud_lines}",
            counters_in_words(self.wrapped.counters),
        )


COLUMNS: Final = (
    "Client",
    "Answers, bare",
    "Answers, wrapped",
    "WARNING+, bare → wrapped",
    "Counters, wrapped",
)
LEGEND: Final = (
    "Answers: the complete 413 and 401 responses that reached the client, of those that were due.",
    "WARNING+: records of that level and above in the server's log, access logs left out.",
)

# A line counts when it starts with a level, after the time stamps and process ids that servers
# put in front. Tornado's access log gives every 4xx the level WARNING, departure or not.
_LOUD_LINE: Final = re.compile(
    r"^(?:\[[^\]]*\] |\d[\d:., -]* )*\[?(?:WARNING|ERROR|CRITICAL)\b(?! tornado\.access)"
    r"|^Exception (?:ignored|in thread)",
    re.MULTILINE,
)
_COUNTER: Final = re.compile(r"cleanclose_(?P<name>\w+)_total(?:\{(?P<labels>.*)\})?")


def count_loud_lines(log: str) -> int:
    """Count the log's records of level WARNING and above, access logs left out."""
    return len(_LOUD_LINE.findall(log))


_LEAST_TOLD: Final = 0.05


def counters_in_words(counters: Mapping[str, float]) -> str:
    """Write what has been counted in a few words; zeros are left out."""
    found: dict[str, float] = {}
    for key, value in counters.items():
        match = _COUNTER.fullmatch(key)
        # Less than that is rounded to nothing.
        if match is not None and value >= _LEAST_TOLD:
            words = _counter_in_words(match["name"], match["labels"] or "")
            found[words] = found.get(words, 0) + value
    events = [f"{value:g} {words}" for words, value in sorted(found.items()) if words[0] != "*"]
    amounts = [
        f"{size_in_words(int(value))} drained" if words == "*bytes" else f"{value:.1f} s wasted"
        for words, value in sorted(found.items())
        if words[0] == "*"
    ]
    return ", ".join(events + amounts) or "all 0"


def _counter_in_words(name: str, labels: str) -> str:
    """What a counter is called in the table; with a star in front if it counts no events."""
    values: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    match name:
        case "drained_bytes":
            return "*bytes"
        case "wasted_seconds":
            return "*seconds"
        case "departures":
            return f"left in the {values['phase'].replace('_', ' ')}"
        case "early_responses":
            return values["outcome"]
        case "cut_uploads":
            return f"by {values['cap']}"
        case _:
            return name.replace("_", " ")


def size_in_words(size: int) -> str:
    """Write a number of bytes in the unit in which it is neither 0 nor long."""
    if size >= MIB:
        return f"{size / MIB:.0f} MiB"
    return f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} bytes"


class Stage:
    """One running example, bare or wrapped, with nginx in front of it where there is one."""

    def __init__(self, example: Example, *, wrapped: bool, nginx: bool) -> None:
        self._example = example
        self._wrapped = wrapped
        self._nginx = nginx
        self._proxy: NginxProxy | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
            settings = UploadSettings(
                folder=folder, secret=secrets.token_hex().encode(), cleanclose=self._wrapped
            )
            self._server = stack.enter_context(self._example.server(settings))
            if self._nginx:
                self._proxy = stack.enter_context(NginxProxy(self._server.port))
            self._service = UploadService(settings)
            self._past_service = UploadService(settings, clock=lambda: time.time() - 3600)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, scenario: Scenario, advance: Callable[[], None]) -> Tally:
        """Send the scenario's uploads and count; ``advance`` is called after each of them."""
        log_before = self._server.log_size()
        counters_before = self._counters()
        tally = Tally()
        for case in scenario.cases:
            for _ in range(case.tries):
                outcome = scenario.send(self._upload(scenario, case))
                if case.refused_with is not None:
                    _add(tally, case.refused_with, outcome)
                advance()
        self._settle()
        tally.loud_lines = count_loud_lines(self._server.log_text()[log_before:])
        tally.counters = {
            name: value - counters_before.get(name, 0) for name, value in self._counters().items()
        }
        return tally

    def _upload(self, scenario: Scenario, case: Case) -> Upload:
        expired = case.refused_with is EXPIRED
        token = (self._past_service if expired else self._service).issue_token()
        port = self._server.port
        if scenario.behind_nginx and self._proxy is not None:
            port = self._proxy.port
        return Upload(
            port=port,
            method="PUT",
            path="/files",
            headers=(("Authorization", f"Bearer {token.value}"),),
            body_size=case.size,
            connection_close=scenario.connection_close,
            abort_after=LEAVES_AFTER if case.leaves_by else None,
            abort_how=case.leaves_by or "reset",
            listen=0.0,
            timeout=30.0,
        )

    def _counters(self) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=10)
        try:
            connection.request("GET", "/counters")
            counters: dict[str, float] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return counters

    def _settle(self) -> None:
        """Wait until the server has said all that it has to say about what is over."""
        deadline = time.monotonic() + 5
        seen: object = None
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = (self._counters(), count_loud_lines(self._server.log_text()))
            if now == seen:
                return
            seen = now


def _add(tally: Tally, expected: HTTPStatus, outcome: Outcome) -> None:
    tally.due += 1
    if outcome.status == expected:
        tally.delivered += 1
    elif outcome.status is not None:
        tally.instead[str(outcome.status)] += 1
    else:
        tally.instead["reset" if outcome.reset_seen else "no answer"] += 1


def run_demo(
    examples: Sequence[Example], scenarios: Sequence[Scenario], progress: Progress
) -> list[Row]:
    """Run every scenario on every example, bare and wrapped."""
    nginx = any(scenario.behind_nginx for scenario in scenarios)
    tries = sum(case.tries for scenario in scenarios for case in scenario.cases)
    task = progress.add_task("", total=2 * tries * len(examples))
    tallies: dict[tuple[Example, Scenario, bool], Tally] = {}
    for example in examples:
        for wrapped in (False, True):
            name = f"{example.name}, {'wrapped' if wrapped else 'bare'}"
            progress.update(task, description=f"{name}: starting")
            with Stage(example, wrapped=wrapped, nginx=nginx) as stage:
                for scenario in scenarios:
                    progress.update(task, description=f"{name}: {scenario.client}")
                    tallies[example, scenario, wrapped] = stage.run(
                        scenario, partial(progress.advance, task)
                    )
    return [
        Row(
            example=example.name,
            client=scenario.client,
            bare=tallies[example, scenario, False],
            wrapped=tallies[example, scenario, True],
        )
        for example in examples
        for scenario in scenarios
    ]


def as_table(rows: Sequence[Row], notes: Sequence[str]) -> Table:
    """Lay the rows out for a terminal."""
    # Vertical lines would be ragged where the picture is drawn with another font.
    table = Table(
        title=TITLE,
        title_justify="left",
        title_style="bold",
        caption="\n".join(notes),
        caption_style="",
        caption_justify="left",
        box=box.HORIZONTALS,
    )
    for column in COLUMNS:
        # In two lines, so that the heading is not wider than what stands below it.
        table.add_column(column.replace(", ", ",\n"), min_width=8)
    previous = ""
    for row in rows:
        if row.example != previous:
            table.add_section()
            table.add_row(Text(row.example, "bold"))
            previous = row.example
        client, bare, wrapped, *rest = row.cells
        table.add_row(
            client,
            Text(bare, _color(row.bare)),
            Text(wrapped, _color(row.wrapped)),
            *rest,
        )
    return table


def _color(tally: Tally) -> str:
    if not tally.due:
        return ""
    return "green" if tally.complete else "red"


def as_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """Write the rows as a Markdown table, with the notes below."""
    columns = ("Example", *COLUMNS)
    lines = [_markdown_line(columns), _markdown_line(["---"] * len(columns))]
    lines += [_markdown_line((row.example, *row.cells)) for row in rows]
    return "\n".join([*lines, "", *notes])


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_svg(table: Table) -> str:
    """Draw the table as it looks in a terminal."""
    console = Console(
        record=True, width=PICTURE_WIDTH, file=io.StringIO(), color_system="truecolor"
    )
    console.print(table)
    svg = console.export_svg(title="make demo", theme=DIMMED_MONOKAI, unique_id="demo")
    # The picture must not load fonts from somewhere when it is looked at.
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _notes(examples: Sequence[Example], left_out: Sequence[str], seconds: float) -> list[str]:
    versions = ", ".join(
        f"{example.package} {importlib.metadata.version(example.package)}" for example in examples
    )
    notes = [
        *LEGEND,
        f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores, "
        f"{seconds:.0f} seconds.",
    ]
    notes += [f"Left out: {program} is not installed here." for program in left_out]
    return notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo from the command line; the exit code tells whether every answer arrived."""
    parser = argparse.ArgumentParser(prog="python -m example_apps.demo", description=__doc__)
    parser.add_argument(
        "--save", type=Path, default=DEFAULT_PICTURE, help="where the picture (SVG) goes"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--quick", action="store_true", help="one try of each kind, 16 MiB at most")
    parser.add_argument(
        "--only",
        action="append",
        choices=[example.package for example in EXAMPLES],
        help="run only this example (may be given several times)",
    )
    options = parser.parse_args(arguments)

    examples = [
        example for example in EXAMPLES if example.package in (options.only or [example.package])
    ]
    wanted = {scenario.program for scenario in SCENARIOS if scenario.program}
    left_out = sorted(program for program in wanted if find_program(program) is None)
    scenarios = [
        quick(scenario) if options.quick else scenario
        for scenario in SCENARIOS
        if scenario.program not in left_out
    ]
    for program in left_out:
        print(f"{program} is not installed here: its rows are left out", file=sys.stderr)

    started = time.monotonic()
    with Progress(
        # The text comes last, so that the bar stays where it is while the text changes.
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        try:
            rows = run_demo(examples, scenarios, progress)
        except StartError as error:
            progress.console.print(str(error), markup=False)
            return 1
    notes = _notes(examples, left_out, time.monotonic() - started)

    table = as_table(rows, notes)
    if options.markdown:
        print(as_markdown(rows, notes))
    else:
        # Output that goes to a file or a pipe has no width of its own.
        Console(width=None if sys.stdout.isatty() else PICTURE_WIDTH).print(table)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    options.save.write_text(as_svg(table))
    incomplete = [row for row in rows if not row.wrapped.complete]
    for row in incomplete:
        print(f"not every answer arrived: {row.example}, {row.client}", file=sys.stderr)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
