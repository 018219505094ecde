"""Test an application: start it bare and wrapped, run the cases on both, find what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from cleanclose.doctor.application import http2
from cleanclose.doctor.application.cases import (
    Endpoint,
    endpoint_cases,
    http2_case,
    plain_case,
    proxy_cases,
    server_cases,
)
from cleanclose.doctor.application.findings import find
from cleanclose.doctor.application.process import NotStarted, ask, why_taken
from cleanclose.doctor.application.proxies import Proxy, installed, running
from cleanclose.doctor.application.resets import ResetWatch
from cleanclose.doctor.application.results import Line, Report, Result, Side, SideReport
from cleanclose.doctor.application.servers import Server, pick
from cleanclose.doctor.application.side import RunningSide
from cleanclose.doctor.application.target import FOUND, Interface
from cleanclose.doctor.output import Trouble

__all__ = ["Plan", "examine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the user asked for.

    Args:
        target: ``module:app``.
        server: The server's name; None for the usual one.
        options: The user's own options for the server.
        endpoint: The endpoint to aim at.
        sides: The sides to test.
        proxies: Whether to try the proxies that are installed.
        port: The first port to serve on; None for free ones.
        start_seconds: Seconds within which the application must serve.
    """

    target: str
    server: str | None = None
    options: tuple[str, ...] = ()
    endpoint: Endpoint = field(default_factory=Endpoint)
    sides: tuple[Side, ...] = ("bare", "wrapped")
    proxies: bool = True
    port: int | None = None
    start_seconds: float = 20.0


Progress = Callable[[Side, int, int], None]
"""Called after each case with the side, the number of cases done, and the number of all cases."""


def examine(plan: Plan, progress: Progress) -> Report:
    """Test an application.

    Args:
        plan: What the user asked for.
        progress: Called after each case, from several threads.

    Raises:
        Trouble: The application cannot be tested.
    """
    began = time.monotonic()
    found = _inspect(plan)
    interface: Interface = found["interface"]
    server = pick(plan.server, interface)
    if isinstance(server, str):
        raise Trouble(server)
    if plan.options and not server.takes_options:
        raise Trouble(f"{server.name} is started from Python here and takes no options.")
    notes: list[str] = []
    sides: tuple[Side, ...] = plan.sides
    if found["has_middleware"]:
        # Twice wrapped would be neither of the two sides.
        sides = ("wrapped",)
        notes.append("The application already has the middleware, so it is tried as it is.")
    elif "shim_needs" in found and "wrapped" in sides:
        sides = ("bare",) if "bare" in sides else ()
        need = f"pip install 'cleanclose[{interface}]'"
        if not sides:
            raise Trouble(f"The middleware needs {found['shim_needs']} here: {need}.")
        notes.append(f"Not tried wrapped: the middleware needs {found['shim_needs']} ({need}).")
    with _folder() as folder:
        done = _run_sides(plan, interface, server, sides, folder, progress)
    return Report(
        target=plan.target,
        interface=interface,
        framework=found["framework"],
        server=server.name,
        server_version=server.version,
        sides=tuple(each.report for each in done),
        findings=tuple(
            finding
            for each in done
            for finding in find(
                each.report.results, side=each.report.side, server=server.name, usual=each.usual
            )
        ),
        notes=tuple(dict.fromkeys((*notes, *(note for each in done for note in each.notes)))),
        seconds=round(time.monotonic() - began, 1),
    )


def _inspect(plan: Plan) -> dict[str, Any]:
    """Ask another process what the application is."""
    command = [sys.executable, "-m", "cleanclose.doctor.application.target", plan.target]
    try:
        status, output = ask(command, plan.start_seconds)
    except subprocess.TimeoutExpired:
        raise Trouble(f"{plan.target} was not imported within {plan.start_seconds:g} s.") from None
    for line in reversed(output.splitlines()):
        if line.startswith(FOUND):
            answer: dict[str, Any] = json.loads(line.removeprefix(FOUND))
            if "error" in answer:
                raise Trouble(answer["error"])
            return answer
    raise Trouble(f"{plan.target} ended Python when it was imported (status {status}).")


@contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="cleanclose-doctor-", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _run_sides(
    plan: Plan,
    interface: Interface,
    server: Server,
    sides: Sequence[Side],
    folder: Path,
    progress: Progress,
) -> list[_Done]:
    with ExitStack() as stack:
        resets = stack.enter_context(ResetWatch())
        running: list[RunningSide] = []
        for number, side in enumerate(sides):
            port = None if plan.port is None else plan.port + number
            if port is not None and (why := why_taken(port)) is not None:
                raise Trouble(why)
            one = RunningSide(
                side,
                plan.target,
                interface,
                server,
                plan.options,
                folder=folder,
                port=port,
                resets=resets,
            )
            running.append(one)
        stop = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(len(running)))
        # The order in which these end: first the cases, then the servers, then the threads.
        for one in running:
            stack.callback(one.close)
        stack.callback(stop.set)
        futures = [
            pool.submit(_run_side, plan, server, one, folder, progress, stop) for one in running
        ]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()
        return [future.result() for future in futures]


class _Done(NamedTuple):
    """What came of one side."""

    report: SideReport
    usual: tuple[Line, ...]
    """What the application logs for a request whose client waits."""
    notes: tuple[str, ...]


def _run_side(
    plan: Plan,
    server: Server,
    side: RunningSide,
    folder: Path,
    progress: Progress,
    stop: threading.Event,
) -> _Done:
    side.start(plan.start_seconds)
    plain = side.run(plain_case(plan.endpoint))
    _check_answer(plan, server, plain)
    cases = [case for case in server_cases() if server.program.hands_out_chunks or not case.chunked]
    if http2.speaks(side.port):
        cases.append(http2_case())
    cases += endpoint_cases(plan.endpoint)
    proxies = installed() if plan.proxies else ()
    total = len(cases) + len(proxies)
    results, notes = [plain], list[str]()
    for case in cases:
        if stop.is_set():
            break
        results.append(side.run(case))
        progress(side.side, len(results) - 1, total)
    for proxy in proxies:
        if stop.is_set():
            break
        try:
            results += _behind(proxy, side, folder)
        except NotStarted as why:
            # An installed proxy that does not start says nothing about the application.
            notes.append(f"Not tried behind {proxy.name}: {why}")
        progress(side.side, len(results) - 1, total)
    return _Done(side.report(results), plain.lines, tuple(notes))


def _behind(proxy: Proxy, side: RunningSide, folder: Path) -> list[Result]:
    with running(proxy, side.port, folder) as port:
        return [side.run(case, port=port) for case in proxy_cases(proxy.name)]


_SERVER_ERROR: Final = 500


def _check_answer(plan: Plan, server: Server, plain: Result) -> None:
    """Fail if an ordinary request got no answer: then there is nothing to test."""
    answer = plain.answers[-1]
    what = f"{plan.endpoint.method} {plan.endpoint.path}"
    if answer.kind == "hung":
        raise Trouble(f"The application did not answer {what} within {plan.endpoint.timeout:g} s.")
    if answer.kind == "lost":
        raise Trouble(f"{server.name} closed the connection without an answer to {what}.")
    if (answer.status or 0) >= _SERVER_ERROR and not server.program.runs_lifespan:
        raise Trouble(
            f"The application answers {what} with {answer.status} on {server.name}, which runs no"
            " lifespan: if it needs one, take another server."
        )
