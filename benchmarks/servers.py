"""Requests per second of real servers, over what they do bare: ``make bench-servers``.

All variants of a server run at once, and are asked by turns: within a round each of them met the
same machine. A figure is the median of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.requests import BARE, FORWARDING, WRAPPED
from benchmarks.served import CORRELATION, OPENTELEMETRY, REFUSED, WAY
from example_apps.staging import ServerProcess

__all__ = ["SERVERS", "main", "measure"]

ROOT: Final = Path(__file__).resolve().parent.parent
CONNECTIONS: Final = 16

_PYTHON: Final = (sys.executable, "-m")
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn": (
        *_PYTHON,
        "uvicorn",
        "--host=127.0.0.1",
        "--port={port}",
        "--no-access-log",
        "--loop=uvloop",
        "--http=httptools",
        "--lifespan=off",
        "benchmarks.served:asgi",
    ),
    "gunicorn gthread": (
        *_PYTHON,
        "gunicorn",
        "--bind=127.0.0.1:{port}",
        "--worker-class=gthread",
        "--threads=4",
        "--no-control-socket",
        "benchmarks.served:wsgi",
    ),
    "Tornado": (*_PYTHON, "benchmarks.served", "{port}"),
}
SERVERS: Final = tuple(_COMMANDS)
_WAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn": (BARE, FORWARDING, WRAPPED, CORRELATION, OPENTELEMETRY),
    "gunicorn gthread": (BARE, FORWARDING, WRAPPED, OPENTELEMETRY),
    "Tornado": (BARE, FORWARDING, WRAPPED, OPENTELEMETRY),
}


@dataclass(frozen=True, slots=True)
class Load:
    """What clients send."""

    name: str
    method: str
    path: str
    body: bytes = b""

    @property
    def wire(self) -> bytes:
        """One request."""
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"
        return head.encode() + self.body


LOADS: Final = (
    Load("GET", "GET", "/"),
    Load("POST 1 KiB", "POST", "/", b"x" * 1024),
    Load("POST 1 KiB, refused", "POST", REFUSED, b"x" * 1024),
)


def ask_for(port: int, load: Load, seconds: float) -> float:
    """Requests per second that a server answers to 16 connections.

    Args:
        port: Its port.
        load: What they ask.
        seconds: For how long; whole ones are enough for wrk.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        return asyncio.run(_ask_without_wrk(port, load, seconds))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "{load.method}"\nwrk.body = "{load.body.decode()}"\n')
        script.flush()
        url = f"http://127.0.0.1:{port}{load.path}"
        command = (wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s")
        said = subprocess.run(
            (*command, "-s", script.name, url), capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"^Requests/sec:\s+([\d.]+)", said, re.MULTILINE)
    assert found, said
    return float(found[1])


async def _ask_without_wrk(port: int, load: Load, seconds: float) -> float:
    until = time.monotonic() + seconds
    answered = 0

    async def client() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            writer.write(load.wire)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))
            answered += 1
            if b"connection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    started = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return answered / (time.monotonic() - started)


def measure(
    server: str, *, rounds: int, seconds: float, ways: Sequence[str] | None = None
) -> dict[str, dict[str, tuple[float, float]]]:
    """Ask all variants of a server by turns.

    Args:
        server: One of `SERVERS`.
        rounds: How many rounds.
        seconds: For how long each variant is asked in a round.
        ways: The wrappers. Default: all that there are for it.

    Returns:
        By load and wrapper: the medians of requests per second, and of their ratio to the bare.
    """
    names = list(ways or _WAYS[server])
    with ExitStack() as stack:
        ports = {
            way: stack.enter_context(
                ServerProcess(
                    _COMMANDS[server],
                    cwd=ROOT,
                    env={WAY: way},
                    ready_path="/",
                    name=f"{server}-{way}",
                )
            ).port
            for way in names
        }
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for load in LOADS:
            rates: dict[str, list[float]] = {way: [] for way in names}
            for number in range(-1, rounds):
                start = number % len(names)
                for way in names[start:] + names[:start]:
                    rate = ask_for(ports[way], load, seconds)
                    # The first round is there to warm up.
                    if number >= 0:
                        rates[way].append(rate)
            found[load.name] = {
                way: (
                    statistics.median(rates[way]),
                    statistics.median(
                        one / bare for one, bare in zip(rates[way], rates[BARE], strict=True)
                    ),
                )
                for way in names
            }
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.servers",
        description="Requests per second of real servers, over what they do bare.",
    )
    parser.add_argument("--only", choices=SERVERS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each variant in a round")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table(title="Requests per second, over the bare server's", title_justify="left")
    ways = _WAYS["uvicorn"][1:]
    for title in ("", "bare, per second", *ways):
        table.add_column(title, justify="right" if title else "left")
    for server in (options.only,) if options.only else SERVERS:
        with console.status(server):
            measured = measure(server, rounds=options.rounds, seconds=options.seconds)
        for load, figures in measured.items():
            ratios = (f"{figures[way][1]:.2f}" if way in figures else "" for way in ways)
            table.add_row(f"{server}, {load}", f"{figures[BARE][0]:,.0f}", *ratios)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
