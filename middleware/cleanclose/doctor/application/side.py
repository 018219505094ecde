"""One side: the application on its server, bare or wrapped, under the cases."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cleanclose.doctor.application import routes, served_names
from cleanclose.doctor.application.cases import Case
from cleanclose.doctor.application.journal import JOURNAL, Entry, JournalReader
from cleanclose.doctor.application.process import Program, serves
from cleanclose.doctor.application.resets import ResetWatch
from cleanclose.doctor.application.results import (
    Answer,
    Event,
    Line,
    Request,
    Result,
    Side,
    SideReport,
)
from cleanclose.doctor.application.servers import Server
from cleanclose.doctor.application.target import Interface
from cleanclose.doctor.output import Trouble

__all__ = ["RunningSide"]

_BEGUN_SECONDS: Final = 0.5
_OVER_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 0.5
"""Seconds that a server may take to stop. Nothing that it still has to do is worth more."""
_END_SECONDS: Final = 3.0
"""Seconds that a server may take to exit after its worker."""
_MOST_RESTARTS: Final = 3
_SILENT: Final = ("early answer", "proxy", "http2")
"""The groups of cases whose log does not matter."""
_TRACEBACK: Final = "Traceback (most recent call last)"
# The quoted request line, then the status; Tornado writes them the other way round.
_ACCESS_STATUS: Final = re.compile(r'"[A-Z]+ /[^"]*" (\d{3}|-)|\b(\d{3}) [A-Z]+ /')
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class RunningSide:
    """A server with the application, as a context manager.

    Args:
        side: Which side.
        target: The user's application, as they named it.
        interface: What it is.
        server: The server.
        options: The user's own options for it.
        folder: The folder for its files.
        port: The port; None for a free one.
        resets: Collects the resets that the kernel sends, where it can be asked.
    """

    def __init__(
        self,
        side: Side,
        target: str,
        interface: Interface,
        server: Server,
        options: Sequence[str],
        *,
        folder: Path,
        port: int | None = None,
        resets: ResetWatch | None = None,
    ) -> None:
        self.side: Side = side
        self._resets = resets
        self.server = server
        descriptor, path = tempfile.mkstemp(prefix=f"journal-{side}-", dir=folder)
        with open(descriptor, "wb"):
            pass
        self._journal = JournalReader(Path(path))
        self._pending: list[Entry] = []
        self._was_silent = False
        self._began: list[tuple[float, int]] = []
        """When each case began, in seconds of `time.monotonic`, and on which port."""
        self._start_seconds = 0.0
        self._restarts = 0
        self._closed = threading.Event()
        self.program: Program = Program(
            server.name,
            lambda port: [sys.executable, *server.words(port, interface, options)],
            folder=folder,
            environment={
                JOURNAL: path,
                served_names.TARGET: target,
                served_names.WRAPPED: "1" if side == "wrapped" else "0",
            },
            port=port,
            stop_seconds=_STOP_SECONDS,
        )

    @property
    def port(self) -> int:
        """The port that the server serves on."""
        return self.program.port

    def start(self, seconds: float) -> None:
        """Start the server and wait until the application serves.

        Args:
            seconds: How long it has.

        Raises:
            Trouble: The application does not serve in time.
        """
        self._start_seconds = seconds
        try:
            self.program.start(serves, seconds)
        except Trouble:
            why = self._lifespan_trouble()
            if why is None:
                raise
            raise Trouble(why) from None
        self._journal.new()

    def close(self) -> None:
        """End the server, for good."""
        self._closed.set()
        self.program.stop()

    def _lifespan_trouble(self) -> str | None:
        states = [entry for entry in self._journal.new() if entry["kind"] == "lifespan"]
        failed = [entry for entry in states if entry["state"] in ("failed", "raised")]
        if failed:
            return f"The application's lifespan startup failed: {failed[-1]['error']}"
        if states and not any(entry["state"] == "complete" for entry in states):
            return "The application's lifespan startup did not complete."
        return None

    def run(self, case: Case, *, port: int | None = None) -> Result:
        """Put the application through one case.

        Args:
            case: The case.
            port: The port that the client connects to: a proxy's; None for the server itself.
        """
        quiet = case.group not in _SILENT
        self._pending = []
        if quiet and self._was_silent:
            # Entries that the previous case left do not belong to this one.
            self._settle(quiet=True)
            self._pending = []
        self._was_silent = not quiet
        self._journal.new()
        written = len(self.program.log_text())
        self._began.append((time.monotonic(), self.port))
        answers: list[Answer] = []
        for _ in range(case.tries):
            try:
                answer = case.act(port or self.port, lambda: self._wait_begun(case.id))
            except OSError as error:
                answer = Answer(kind="lost", detail=f"no connection: {error}")
            answers.append(answer)
            # One loss is a finding, and a case that hangs would hang again.
            if answer.kind in ("lost", "hung") or case.expected not in (None, answer.status):
                break
        entries = self._settle(quiet=quiet)
        text = self.program.log_text()[written:]
        result = _result(case, self.side, tuple(answers), entries, text)
        return result if self._goes_on(result) else self._after_its_end(result)

    def _goes_on(self, result: Result) -> bool:
        """Whether the server is still running after a case."""
        # Where a failed worker takes the server with it, that takes a moment.
        until = time.monotonic() + (_END_SECONDS if result.group == "http2" and result.lost else 0)
        while self.program.alive and time.monotonic() < until and not serves(self.port):
            time.sleep(0.02)
        return self.program.alive

    def _after_its_end(self, result: Result) -> Result:
        """Start the server again after a case ended it: the other cases matter too."""
        words = self.program.last_words()
        if result.group == "plain" or self._restarts == _MOST_RESTARTS or self._closed.is_set():
            raise Trouble(f"{self.server.name} has ended: {words}")
        self._restarts += 1
        self.program.stop()
        self.start(self._start_seconds)
        if self._closed.is_set():
            # Meanwhile, in another thread.
            self.program.stop()
        return replace(result, ended=words)

    def report(self, results: Sequence[Result]) -> SideReport:
        """Sum up: the results with the kernel's words, and the counters of a wrapped application.

        Args:
            results: The results of all cases, in their order.
        """
        return SideReport(
            side=self.side,
            results=tuple(self._with_resets(results)),
            counters=self._counters() if self.side == "wrapped" else None,
        )

    def _with_resets(self, results: Sequence[Result]) -> Iterator[Result]:
        if self._resets is None:
            yield from results
            return
        # Once for all cases, so that not each of them waits for the kernel's reasons.
        self._resets.catch_up()
        ended = (*(began for began, _ in self._began[1:]), float("inf"))
        for result, (began, port), end in zip(results, self._began, ended, strict=True):
            yield replace(result, resets=self._resets.sent_from(port, began, end))

    def _counters(self) -> dict[str, Any] | None:
        url = f"http://127.0.0.1:{self.port}{routes.COUNTERS}"
        # Without the proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError, ValueError), opener.open(url, timeout=5.0) as answer:
            counters: dict[str, Any] = json.load(answer)
            return counters
        return None

    def _wait_begun(self, case: str) -> None:
        self._pending += self._journal.wait(
            lambda found: any(
                entry["kind"] == "begin" and entry["case"] == case for entry in found
            ),
            _BEGUN_SECONDS,
        )

    def _settle(self, *, quiet: bool) -> list[Entry]:
        """Take all entries about the case, once the application is done with it.

        Args:
            quiet: Whether to wait until no more entries come.
        """
        found = self._pending
        found += self._journal.wait(lambda new: _is_over(found + new), _OVER_SECONDS)
        if not quiet:
            return found
        size = -1
        quiet_since = time.monotonic()
        deadline = quiet_since + _OVER_SECONDS
        while time.monotonic() < min(quiet_since + _QUIET_SECONDS, deadline):
            new = self._journal.new()
            found += new
            written = len(self.program.log_text())
            if new or written != size:
                size, quiet_since = written, time.monotonic()
            time.sleep(0.02)
        return found


def _is_over(entries: Sequence[Entry]) -> bool:
    kinds = [str(entry["kind"]) for entry in entries]
    return kinds.count("begin") <= kinds.count("end")


def _result(
    case: Case,
    side: Side,
    answers: tuple[Answer, ...],
    entries: Sequence[Entry],
    text: str,
) -> Result:
    lines = tuple(
        Line(**{key: value for key, value in entry.items() if key != "kind"})
        for entry in entries
        if entry["kind"] == "log"
    )
    logged = sum(line.error is not None and line.visible for line in lines)
    plain = _COLOUR.sub("", text)
    statuses = [_ACCESS_STATUS.search(line) for line in plain.splitlines()]
    return Result(
        case=case.id,
        title=case.title,
        group=case.group,
        side=side,
        where=case.where,
        expected=case.expected,
        answers=answers,
        lines=lines,
        # An exception's causes have tracebacks of their own below the same record.
        tracebacks=0 if logged else text.count(_TRACEBACK),
        access=tuple(match[1] or match[2] for match in statuses if match),
        events=tuple(
            Event(name=entry["name"], fields=entry["fields"])
            for entry in entries
            if entry["kind"] == "event"
        ),
        requests=tuple(
            Request(
                path=entry["path"],
                read=entry["read"],
                read_to_end=entry["read_to_end"],
                expected=entry["expected"],
                status=entry["status"],
            )
            for entry in entries
            if entry["kind"] == "end"
        ),
        smuggled=sum(entry["kind"] == "smuggled" for entry in entries),
    )
