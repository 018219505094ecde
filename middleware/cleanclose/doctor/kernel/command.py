"""The command `cleanclose kernel`: once, again and again, or reset by reset."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.live import Live

from cleanclose.doctor.kernel.figures import Figures, Unavailable, look
from cleanclose.doctor.kernel.naming import EventLog, Namer, label
from cleanclose.doctor.kernel.readings import FINDINGS, Reading, read, worst
from cleanclose.doctor.kernel.tables import reading_tables, reset_lines, reset_summary
from cleanclose.doctor.kernel.tracing import Direction, Reset, Tracer, Untraceable
from cleanclose.doctor.output import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    Trouble,
    console,
    print_json,
    print_json_line,
)

__all__ = ["command"]

_ONCE: Final = 2.0
"""Seconds of a single look: short enough to wait for, long enough for a rate."""
_PATIENCE: Final = 0.2
"""Seconds between two looks at the trace, so that Ctrl-C works at once."""
_EVENT_DELAY: Final = 0.5
"""Seconds within which a server logs what the kernel has just done."""
_ANY: Final = "any"
_NONE: Final = "none"


@click.command("kernel")
@click.option("--port", type=click.IntRange(1, 65535), help="Only this port's queues and resets.")
@click.option("--watch", is_flag=True, help="Look every second until Ctrl-C.")
@click.option("--trace", is_flag=True, help="Show each reset with the kernel's reason (root).")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    help="How long to look.  [2; --watch and --trace: until Ctrl-C]",
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --trace: a JSON log with the events of cleanclose to join.",
)
@click.option(
    "--fail-on",
    type=click.Choice([_ANY, _NONE, *FINDINGS]),
    multiple=True,
    default=[_ANY],
    metavar="FINDING",
    help="End with status 1 for this counter, queue_full, any (the default) or none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, or JSON lines if it goes on.")
@click.pass_context
def command(
    ctx: click.Context,
    port: int | None,
    watch: bool,
    trace: bool,
    seconds: float | None,
    events: Path | None,
    fail_on: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say which resets the kernel made, and why (Linux).

    The counters cover this whole machine or container; a queue belongs to one socket.
    Neither needs root, but --trace does.
    """
    if watch and trace:
        raise click.UsageError("--watch and --trace show different things: use one of them.")
    if events is not None and not trace:
        raise click.UsageError("--events works only with --trace.")
    out = console(as_json)
    failing = _failing(fail_on)
    try:
        if trace:
            found = _trace(out, port, seconds, events, as_json) and _NONE not in fail_on
        elif watch:
            found = _watch(out, port, seconds, failing, as_json)
        else:
            found = _once(out, port, seconds or _ONCE, failing, as_json)
    except (Unavailable, Untraceable) as error:
        raise Trouble(str(error)) from error
    ctx.exit(EXIT_FINDINGS if found else EXIT_CLEAN)


def _failing(fail_on: Collection[str]) -> frozenset[str]:
    if _NONE in fail_on:
        return frozenset()
    return frozenset(FINDINGS if _ANY in fail_on else fail_on)


class _Stop:
    """Notes Ctrl-C, which ends `--watch` and `--trace` after they have shown all that they saw.

    An exception could arrive when something is read but not yet shown. A second signal has its
    usual effect.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            # Windows lacks some of them.
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds, or until a signal comes."""
        until = time.monotonic() + seconds
        while not self.wanted and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _PATIENCE))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def _once(
    out: Console, port: int | None, seconds: float, failing: Collection[str], as_json: bool
) -> bool:
    first = look()
    with out.status(f"Looking for {seconds:g} s", spinner="line"):
        time.sleep(seconds)
    reading = read(first, look(), port)
    if as_json:
        print_json(reading)
    else:
        out.print(reading_tables(reading))
    return worst(reading.findings, failing)


def _watch(
    out: Console, port: int | None, seconds: float | None, failing: Collection[str], as_json: bool
) -> bool:
    found = False
    began = previous = look()
    live = Live(console=out, auto_refresh=False) if out.is_terminal and not as_json else None
    with ExitStack() as stack:
        if live is not None:
            stack.enter_context(live)
        stop = stack.enter_context(_Stop())
        while not stop.wanted and (seconds is None or previous.at - began.at < seconds):
            stop.sleep(1.0)
            current = look()
            reading = read(previous, current, port)
            found = worst(reading.findings, failing) or found
            _show(out, live, reading, began, current, port, as_json)
            previous = current
    return found


def _show(
    out: Console,
    live: Live | None,
    reading: Reading,
    began: Figures,
    current: Figures,
    port: int | None,
    as_json: bool,
) -> None:
    if as_json:
        print_json_line(reading)
    elif live is not None:
        # The counters since the beginning: those of a single second would flicker.
        live.update(reading_tables(read(began, current, port)), refresh=True)
    else:
        out.print(reading_tables(reading))
        sys.stdout.flush()


def _trace(
    out: Console, port: int | None, seconds: float | None, events: Path | None, as_json: bool
) -> bool:
    counts: Counter[tuple[str, str, str]] = Counter()
    with ExitStack() as stack:
        log = None
        if events is not None:
            try:
                log = EventLog(events)
            except OSError as error:
                raise Trouble(f"{events} cannot be read: {error.strerror}.") from error
            stack.callback(log.close)
        namer = Namer(log)
        tracer = stack.enter_context(Tracer())
        stop = stack.enter_context(_Stop())
        began = time.monotonic()
        # To standard error, where a program that started this command can wait for it.
        click.echo("Listening for resets. Press Ctrl-C to stop.", err=True)
        while not stop.wanted and (seconds is None or time.monotonic() - began < seconds):
            for reset in _next(tracer, log, port, as_json):
                _tell(out, namer, reset, counts, as_json)
            namer.refresh()
        for reset in _wanted(tracer.drain(), port, as_json):
            _tell(out, namer, reset, counts, as_json)
        looked = time.monotonic() - began
    _sum_up(out, counts, looked, tracer.lost, as_json)
    return counts.total() > 0


def _next(tracer: Tracer, log: EventLog | None, port: int | None, as_json: bool) -> list[Reset]:
    found = tracer.read(_PATIENCE)
    if log is not None:
        if found:
            time.sleep(_EVENT_DELAY)
        log.read()
    return _wanted(found, port, as_json)


def _wanted(resets: Sequence[Reset], port: int | None, as_json: bool) -> list[Reset]:
    """Select the port's resets. People see a reset that was sent and received here only once."""
    sent = {(each.local, each.remote) for each in resets if each.direction is Direction.SENT}
    return [
        each
        for each in resets
        if port in (None, _port(each.local), _port(each.remote))
        and (as_json or each.direction is Direction.SENT or (each.remote, each.local) not in sent)
    ]


def _tell(
    out: Console,
    namer: Namer,
    reset: Reset,
    counts: Counter[tuple[str, str, str]],
    as_json: bool,
) -> None:
    named = namer.name(reset)
    owner = "?" if named.owner is None else label(named.owner)
    counts[named.direction, owner, named.reason or "-"] += 1
    if as_json:
        print_json_line(named)
    else:
        out.print(reset_lines(named))


def _port(end: str) -> int:
    return int(end.rpartition(":")[2])


def _sum_up(
    out: Console,
    counts: Counter[tuple[str, str, str]],
    seconds: float,
    lost: int,
    as_json: bool,
) -> None:
    if as_json:
        print_json_line({"resets": counts.total(), "lost": lost, "seconds": round(seconds, 3)})
        return
    out.print(reset_summary(dict(counts), seconds))
    if lost:
        out.print(f"{lost:,} more came faster than they could be read.", style="bold yellow")
