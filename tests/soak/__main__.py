"""Everything at once on every server, bare and wrapped, and what is left behind: ``make soak``.

For each server: clients of every kind (`tests.soak.traffic`) while the outlets raise, block or have
a full disk; first in calm, then in trouble (`tests.soak.trouble`). At the end, when everybody has
left, the process must have as many descriptors, threads and tasks as before, no connection that
lingers and no place that is taken; the counters must be what the outlets were told, and what was
certain must have been counted; no body may have been run as a request; and there may be no line at
WARNING or above that the bare server has not written under the same traffic.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from tests.harness import servers_asgi, servers_wsgi
from tests.harness.apps import routes, soaking
from tests.harness.asking import get_json
from tests.harness.leavers import leave_at, request
from tests.harness.processes import ServerProcess
from tests.harness.stacks import SERVERS, Stack
from tests.harness.waiting import LIMIT
from tests.soak.traffic import Traffic
from tests.soak.trouble import Trouble

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

_MOST_LINGERING: Final = 20
_SETTINGS: Final[SettingsOptions] = {
    "max_lingering": _MOST_LINGERING,
    "idle_seconds": 1.0,
    "max_seconds": 6.0,
    "hold_seconds": 0.2,
}
_CALM: Final = 0.6
"""The part of the time in which nobody makes trouble."""
_WARM_UP: Final = 2.0
_LOUD: Final = re.compile(r"WARNING|ERROR|CRITICAL|Exception|\[[WEC] ")
_VARIES: Final = re.compile(r"0x[0-9a-f]+|\d+")
_OURS: Final = ("An outlet failed", "this outlet is broken", "No space left on device")
"""What is said of the outlets of the soak, once per process and outlet, with a traceback."""
_SILENT: Final = "it does not answer any more"
_LEFT_OVER: Final = ("descriptors", "threads", "tasks")
_OF_TROUBLE: Final = (
    "Too many open files",
    "out of system resource",
    "SIGKILL",
    "SIGTERM",
    "SIGABRT",
)
"""What a server says of the trouble that was made: at which moment it hits whom is chance."""
_EVENTS: Final = {
    "early_responses": ("upload_drained",),
    "departures": ("client_departed", "truncated_upload", "response_undelivered"),
    "departure_surges": ("departure_surge",),
}
"""Counters, and the events that each of them counts."""
_BUFFERED: Final = ("daphne", "waitress", "uwsgi-router")
"""Servers that call no application before its body is there: its cut is nobody's departure."""


@dataclasses.dataclass(kw_only=True)
class Side:
    """What one server did, bare or wrapped."""

    done: Counter[str] = dataclasses.field(default_factory=Counter[str])
    latencies: list[float] = dataclasses.field(default_factory=list[float])
    lines: Counter[str] = dataclasses.field(default_factory=Counter[str])
    trouble: Counter[str] = dataclasses.field(default_factory=Counter[str])
    events: Counter[str] = dataclasses.field(default_factory=Counter[str])
    died: bool = False
    findings: list[str] = dataclasses.field(default_factory=list[str])


def stacks() -> dict[str, Stack]:
    """Every server with the app of the soak, by name."""
    rows = (
        *SERVERS,
        *(servers_asgi.raw(row) for row in servers_asgi.OTHERS),
        *servers_wsgi.ROWS,
    )
    return {row.name: _soaked(row) for row in rows}


def _soaked(row: Stack) -> Stack:
    command = tuple(
        argument.replace(".raw_", ".soaked_").replace(".tornado_app", ".soaked_tornado")
        for argument in row.command
    )
    return dataclasses.replace(row, command=command, env={**row.env, "TEST_APP": "soaked_wsgi"})


def soak(
    stack: Stack, *, wrapped: bool, seconds: float, seed: str, logs: Path | None = None
) -> Side:
    """Let one server have its time."""
    side = Side()
    with tempfile.TemporaryDirectory(prefix="cleanclose-soak-") as folder:
        journal = Path(folder) / "journal"
        server = stack.process(
            wrapped=wrapped,
            settings=_SETTINGS if wrapped else None,
            env={soaking.JOURNAL_VARIABLE: str(journal)},
        )
        with server:
            _traffic(stack, server, side, journal, seconds=seconds, seed=seed)
            side.died = not server.alive
        log = server.log_text()
        if logs is not None:
            (logs / f"{server.name}.log").write_text(log)
        side.lines = _loud(log)
        side.events.update(entry["event"] for entry in _journal(journal))
    return side


def _traffic(
    stack: Stack, server: ServerProcess, side: Side, journal: Path, *, seconds: float, seed: str
) -> None:
    # Pools of threads grow as far as they do before anything is compared.
    _run(stack, server, Side(), _WARM_UP, f"{seed} warm-up")
    # So does the outlet's queue, with its first event.
    leave_at(server.port, request("POST", routes.ACCEPT, length=1000), "rst", body=b"some")
    before = _settled(server.port, None)
    told = len(_journal(journal))
    traffic = _run(stack, server, side, seconds * _CALM, seed)
    after = _settled(server.port, before)
    side.findings += _left_over(before, after)
    side.findings += _miscounted(stack, traffic, after, _journal(journal), told)
    trouble = Trouble(stack, server, seed=seed)
    maker = threading.Thread(target=trouble.run, args=(seconds * (1 - _CALM),))
    maker.start()
    _run(stack, server, side, seconds * (1 - _CALM), f"{seed} trouble", calm=False)
    maker.join()
    side.trouble = trouble.made
    if server.alive:
        side.findings += _left_over(before, _settled(server.port, before))


def _run(
    stack: Stack, server: ServerProcess, side: Side, seconds: float, seed: str, *, calm: bool = True
) -> Traffic:
    traffic = Traffic(
        server.port,
        seed=seed,
        clients=8 if stack.concurrent else 3,
        concurrent=stack.concurrent,
        flood=2 * _MOST_LINGERING,
    )
    traffic.calm = calm
    traffic.run(seconds)
    side.done.update(traffic.done)
    side.latencies += traffic.latencies
    side.findings += traffic.wrong
    return traffic


def _settled(port: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The census when everybody has left, or when it has been waited for long enough."""
    deadline = time.monotonic() + LIMIT
    last: dict[str, Any] = {}
    same = 0
    while time.monotonic() < deadline:
        try:
            now: dict[str, Any] = get_json(port, soaking.CENSUS)
        except (OSError, AssertionError, ValueError):
            time.sleep(0.5)
            continue
        quiet = not now["lingering"] and not now["places"]
        same = same + 1 if quiet and _comparable(now) == _comparable(last) else 0
        last = now
        # Behind its last connection the lingerer's thread stays for a second.
        if same >= 6 and (before is None or not _left_over(before, now)):
            break
        time.sleep(0.25)
    return last


def _comparable(census: Mapping[str, Any]) -> list[object]:
    return [census.get(name) for name in _LEFT_OVER]


def _left_over(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    if not after:
        return [_SILENT]
    findings = [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in _LEFT_OVER
        if before[name] is not None and after[name] > before[name]
    ]
    findings += [
        f"{name}: {after[name]} left" for name in ("lingering", "places", "smuggled") if after[name]
    ]
    return findings


def _miscounted(
    stack: Stack,
    traffic: Traffic,
    census: Mapping[str, Any],
    journal: Sequence[Mapping[str, Any]],
    told: int,
) -> list[str]:
    counters: Mapping[str, float] = census.get("counters") or {}
    if not any(counters.values()):
        # Bare.
        return []
    own = [entry for entry in journal if entry["pid"] == census["pid"]]
    findings: list[str] = []
    for counter, names in (
        ("early_responses", ("upload_drained",)),
        (
            "departures",
            ("client_departed", "truncated_upload", "response_undelivered"),
        ),
        ("departure_surges", ("departure_surge",)),
    ):
        counted = sum(
            value
            for name, value in counters.items()
            if name.startswith(f"cleanclose_{counter}_total")
        )
        heard = sum(entry["event"] in names for entry in own)
        if counted != heard:
            findings.append(f"{counter}: {counted:.0f} counted, {heard} told")
    if any(name in stack.name for name in _BUFFERED):
        return findings
    cut = traffic.done["cut rst"] + traffic.done["cut fin"]
    possible = cut + traffic.done["left anywhere"]
    departed = sum(
        entry["event"] in ("client_departed", "truncated_upload")
        and entry.get("phase") == "request_body"
        for entry in journal[told:]
    )
    if not cut <= departed <= possible:
        findings.append(f"cut uploads: {cut} certain, {possible} possible, {departed} told")
    return findings


def _journal(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    found: list[Mapping[str, Any]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            # A worker was killed while it wrote.
            continue
    return found


def _loud(log: str) -> Counter[str]:
    """The lines that somebody would read, without what is different in each of them."""
    found: Counter[str] = Counter()
    expected = in_traceback = False
    for line in log.splitlines():
        if any(ours in line for ours in _OURS):
            expected = True
        elif line.startswith("Traceback"):
            in_traceback = True
        elif in_traceback and not line[:1].isspace():
            # The error itself stands below its traceback.
            found[_kind(line)] += not expected and not any(ours in line for ours in _OURS)
            in_traceback = expected = False
        elif not in_traceback and _LOUD.search(line):
            found[_kind(line)] += 1
    return +found


def _kind(line: str) -> str:
    return _VARIES.sub("#", line).strip()[:160]


def both(stack: Stack, *, seconds: float, seed: int, logs: Path | None = None) -> tuple[Side, Side]:
    """One server bare and wrapped, with the same traffic."""
    name = f"{seed} {stack.name}"
    bare = soak(stack, wrapped=False, seconds=seconds, seed=name, logs=logs)
    wrapped = soak(stack, wrapped=True, seconds=seconds, seed=name, logs=logs)
    more = {
        line
        for line in set(wrapped.lines) - set(bare.lines)
        if not any(word in line for word in _OF_TROUBLE)
    }
    wrapped.findings += [f"only wrapped: {line} ({wrapped.lines[line]})" for line in sorted(more)]
    # Tornado, for one, leaves the tasks of handlers whose clients are gone.
    as_bare = {finding.split(":")[0] for finding in bare.findings} & {*_LEFT_OVER, _SILENT}
    if bare.died:
        # eventlet's and others' loops end where an accept() finds no descriptor.
        as_bare.add(_SILENT)
    wrapped.findings = [
        finding for finding in wrapped.findings if finding.split(":")[0] not in as_bare
    ]
    if as_bare:
        print(f"{stack.name}: bare as well: {', '.join(sorted(as_bare))}", flush=True)
    if wrapped.died and not bare.died:
        wrapped.findings.append("it has died")
    words = "\n  ".join(wrapped.findings) or "nothing"
    print(f"{stack.name}: {words}", flush=True)
    return bare, wrapped


def _part(side: Side, name: str) -> str:
    got = sum(number for what, number in side.done.items() if what.startswith(name))
    lost = sum(
        number
        for what, number in side.done.items()
        if what.startswith(name) and what.endswith(" lost")
    )
    return f"{got - lost}/{got}"


def _milliseconds(side: Side) -> str:
    found = sorted(side.latencies) or [0.0]
    at = (0.5, 0.99, 1.0)
    return " ".join(f"{1000 * found[min(len(found) - 1, int(len(found) * p))]:.0f}" for p in at)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak them and print the table; 1 if anything was left behind.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="default: all")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="for all servers together, wrapped"
    )
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--at-once", type=int, default=2, help="servers (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="a folder for what the servers have written")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    known = stacks()
    chosen = [known[name] for name in options.servers] or list(known.values())
    seconds = options.seconds / len(chosen)
    print(f"{len(chosen)} servers, {seconds:.0f} s each, bare and wrapped, seed {seed}", flush=True)
    with ThreadPoolExecutor(options.at_once) as pool:
        sides = pool.map(
            functools.partial(both, seconds=seconds, seed=seed, logs=options.logs), chosen
        )
        results = dict(zip([stack.name for stack in chosen], sides, strict=True))
    _print(results)
    found = sum(len(wrapped.findings) for _, wrapped in results.values())
    print(f"seed {seed}: {found} findings")
    return 1 if found else 0


def _print(results: Mapping[str, tuple[Side, Side]]) -> None:
    table = Table(title="bare -> wrapped")
    columns = ("server", "requests", "refused, answered", "bystander p50 p99 max ms", "events")
    for column in (*columns, "loud lines", "trouble"):
        table.add_column(column)
    for name, (bare, wrapped) in results.items():
        table.add_row(
            name,
            f"{sum(bare.done.values())} -> {sum(wrapped.done.values())}",
            f"{_part(bare, 'refused')} -> {_part(wrapped, 'refused')}",
            f"{_milliseconds(bare)} -> {_milliseconds(wrapped)}",
            str(sum(wrapped.events.values())),
            f"{sum(bare.lines.values())} -> {sum(wrapped.lines.values())}",
            ", ".join(f"{number} {what}" for what, number in wrapped.trouble.items()),
        )
    Console(width=180).print(table)


if __name__ == "__main__":
    sys.exit(main())
