"""Let 500 clients come at once to a server whose accept queue holds eight, and show the reading.

``python -m example_apps.accept_queue``, from the root of the checkout, on Linux. gunicorn with one
sync worker serves an application that takes a millisecond for a request, first with
``--backlog 8``, then with its usual 2048. While the clients come, ``cleanclose kernel`` looks.

Where the system allows it, all of it happens in a network namespace of its own, so that the
counters are of nothing else. With ``--abort`` ``net.ipv4.tcp_abort_on_overflow`` is 1 there: who is
turned away is reset, and does not try again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from example_apps.namespaces import bring_loopback_up, namespace_command, set_sysctl
from example_apps.staging import ServerProcess, StartError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ROOT: Final = Path(__file__).resolve().parent.parent
CLIENTS: Final = 500
TINY: Final = 8
USUAL: Final = 2048
WORK_SECONDS: Final = 0.001
LOOK_SECONDS: Final = 3.0
SLOW: Final = 1.0
"""Seconds. A client that is turned away sends its SYN again after one (RFC 6298, 2.1)."""
_INSIDE: Final = "ACCEPT_QUEUE_INSIDE"
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Work for a millisecond, and answer."""
    time.sleep(WORK_SECONDS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


@dataclass(kw_only=True)
class Crowd:
    """What became of the requests."""

    ends: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])

    def __str__(self) -> str:
        slow = sum(each >= SLOW for each in self.seconds)
        slowest = max(self.seconds, default=0.0)
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        return f"{ends}; {slow} took a second or more, the slowest {slowest:.1f} s"


def server(backlog: int) -> ServerProcess:
    """A gunicorn with this backlog."""
    return ServerProcess(
        (
            sys.executable,
            "-m",
            "gunicorn",
            "--bind=127.0.0.1:{port}",
            "--workers=1",
            f"--backlog={backlog}",
            "--no-control-socket",
            "example_apps.accept_queue:app",
        ),
        cwd=ROOT,
        ready_path="/",
        name="gunicorn",
    )


async def stage(backlog: int, clients: int, picture: Path | None = None) -> tuple[Crowd, int]:
    """Let clients come to a server for as long as the command looks.

    Args:
        backlog: The server's.
        clients: How many come at once, again and again.
        picture: Where the command should draw what it shows. It shows it here too.

    Returns:
        What became of the requests, and the command's exit status.
    """
    crowd = Crowd()
    with server(backlog) as serving:
        over = asyncio.Event()
        tasks = [asyncio.create_task(_client(serving.port, crowd, over)) for _ in range(clients)]
        command = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from cleanclose.doctor.main import main; main()",
            *(() if picture is None else (f"--picture={picture}",)),
            "kernel",
            f"--port={serving.port}",
            f"--seconds={LOOK_SECONDS}",
        )
        status = await command.wait()
        over.set()
        await asyncio.wait(tasks, timeout=LOOK_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return crowd, status


async def _client(port: int, crowd: Crowd, over: asyncio.Event) -> None:
    while not over.is_set():
        began = time.monotonic()
        crowd.ends[await _get(port)] += 1
        crowd.seconds.append(time.monotonic() - began)


async def _get(port: int) -> str:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return "reset" if isinstance(error, ConnectionError) else "not connected"
    try:
        writer.write(_REQUEST)
        answer = await reader.read()
    except OSError:
        return "reset"
    else:
        return "answered" if answer.endswith(b"ok\n") else "cut off"
    finally:
        writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--abort", action="store_true", help="with tcp_abort_on_overflow")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--picture", type=Path, help="draw the first reading as an SVG")
    options = parser.parse_args()
    if _INSIDE in os.environ:
        bring_loopback_up()
        set_sysctl("net.ipv4.tcp_abort_on_overflow", int(options.abort))
    elif (command := namespace_command()) is not None:
        words = [*command, sys.executable, "-m", "example_apps.accept_queue", *sys.argv[1:]]
        os.execvpe(words[0], words, {**os.environ, _INSIDE: "1"})
    elif options.abort:
        print("This system allows no network namespace here.", file=sys.stderr)
        return 2
    try:
        for backlog, picture in ((TINY, options.picture), (USUAL, None)):
            print(f"\ngunicorn --backlog {backlog}, {options.clients} clients at once", flush=True)
            crowd, _ = asyncio.run(stage(backlog, options.clients, picture))
            print(f"The clients: {crowd}.", flush=True)
    except StartError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
