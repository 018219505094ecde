"""What refused uploads cost a server, bare and wrapped: ``python -m benchmarks.lingering``.

Each server runs as a process of its own with an application that refuses every upload unread.
Ways are measured in turns, and medians are shown: a busy machine is as busy for both.

- burst: 300 uploads of 16 MiB at once: how many clients got the answer, by how much the process
  grew, and CPU seconds per GiB, beside nginx that refuses the same by itself.
- discard: one upload of 1 GiB; its speed against a bare ``recv_into`` loop.
- storm: the 99th percentile of a bystander's GETs beside the clients of
  `benchmarks.lingering_storm`: while a thousand linger, against the calm bare server's, and against
  the bare server's while they linger on another process, because the clients take the processor
  as well; and in a storm, against the bare server's in the same storm. What is left afterwards,
  and whether the counters know of every request.
- stalled: GETs served within 8 s beside one refused upload a second that stops after 1,000 bytes.
- stop: seconds from SIGTERM, SIGINT, SIGHUP and the last of ``--max-requests`` to a process's end,
  while a refused upload drips; and the lines which only the wrapped one logs.
- idle: threads, descriptors and wake-ups after the last connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.lingering_servers import SERVERS, Server, get, nginx, served

__all__ = ["main"]

MIB: Final = 1024 * 1024
BARE: Final = ""
WRAPPED: Final = "_wrapped"
PATIENT: Final = "_patient"
STORM_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 3.0
_PATIENCE: Final = 60.0
_ENDS: Final = (b"too large\n", b"</html>\r\n")


def _head(size: int) -> bytes:
    return f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()


async def _upload(port: int, size: int) -> bool:
    """A client that writes everything first, and gives up on the first error."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        piece = bytes(256 * 1024)
        answer = b""
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, _head(size))
            for _ in range(size // len(piece)):
                await loop.sock_sendall(sock, piece)
            while got := await loop.sock_recv(sock, 65536):
                answer += got
                if answer.endswith(_ENDS):
                    break
        except OSError:
            return False
        return b" 413 " in answer[:20] and answer.endswith(_ENDS)


async def _burst(port: int, count: int, size: int) -> int:
    async with asyncio.timeout(120):
        return sum(await asyncio.gather(*(_upload(port, size) for _ in range(count))))


def burst(server: Server, count: int, size: int) -> tuple[int, float, float]:
    """How many of so many uploads got their answer, the growth in MiB, CPU seconds per GiB."""
    before, cpu = server.resident(), server.cpu()
    highest = [before]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            highest[0] = max(highest[0], server.resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        delivered = asyncio.run(_burst(server.port, count, size))
    finally:
        over.set()
        watcher.join()
    spent = (server.cpu() - cpu) / (count * size / (1024 * MIB))
    return delivered, (highest[0] - before) / MIB, spent


def _send_all(port: int, size: int) -> float:
    piece = bytes(1 * MIB)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(_head(size))
        begun = time.monotonic()
        for _ in range(size // len(piece)):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
        return size / MIB / (time.monotonic() - begun)


_RAW: Final = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        connection, _ = listening.accept()
        with connection:
            buffer = bytearray(65536)
            while connection.recv_into(buffer):
                pass
"""


@contextlib.contextmanager
def raw_loop() -> Generator[int]:
    """The port of a bare `recv_into` loop, in a process of its own like a server."""
    with subprocess.Popen([sys.executable, "-c", _RAW], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def discard(server: Server, size: int, rounds: int) -> float:
    """The speed at which a refused upload goes away, over that of a bare loop."""
    ratios: list[float] = []
    with raw_loop() as raw:
        for _ in range(rounds):
            speed = _send_all(server.port, size)
            ratios.append(speed / _send_all(raw, size))
    return statistics.median(ratios)


def percentile(server: Server, seconds: float) -> float:
    """The 99th percentile of GETs, one after the other, in milliseconds; a lost one is endless."""
    taken: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            taken.append(get(server.port)[0])
        except OSError:
            taken.append(math.inf)
        time.sleep(0.005)
    return sorted(taken)[len(taken) * 99 // 100] * 1000


def beside(
    server: Server, mode: str, seconds: float, *, visited: Server | None = None
) -> tuple[float, int]:
    """The same beside clients that nobody wants; and how many requests these have sent.

    Args:
        server: The server that is measured.
        mode: ``storm`` or ``crowd``.
        seconds: For how long.
        visited: The server that has these clients. Default: the one that is measured.
    """
    port = (visited or server).port
    command = [sys.executable, "-m", "benchmarks.lingering_storm", str(port), mode]
    with subprocess.Popen(
        [*command, str(seconds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as storm:
        assert storm.stdout is not None
        storm.stdout.readline()
        found = percentile(server, seconds - 1.5)
        told, _ = storm.communicate()
    return found, int(told)


def in_storm(server: Server) -> tuple[float, str]:
    """The percentile in a storm; and what the counters say in the end."""
    before = _counted(server)
    found, sent = beside(server, "storm", STORM_SECONDS)
    until = time.monotonic() + _PATIENCE
    while (counted := _counted(server) - before) < sent and time.monotonic() < until:
        time.sleep(0.2)
        if time.monotonic() > until - _PATIENCE + 15:
            break
    return found, f"{counted}/{sent}"


def _counted(server: Server) -> int:
    body = get(server.port, "/counters")[1].partition(b"\r\n\r\n")[2]
    counters: dict[str, int] = json.loads(body)
    names = ("cleanclose_early_responses_total", "cleanclose_client_departures_total")
    return sum(count for name, count in counters.items() if name.startswith(names))


def stalled(server: Server, seconds: int) -> str:
    """GETs served within so many seconds, beside one refused upload a second that stalls."""
    stop = threading.Event()
    held: list[socket.socket] = []

    def stall() -> None:
        while not stop.is_set():
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(_head(64 * MIB) + bytes(1000))
            held.append(sock)
            stop.wait(1)

    thread = threading.Thread(target=stall)
    thread.start()
    count = 0
    slowest = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            slowest = max(slowest, get(server.port)[0])
            count += 1
    stop.set()
    thread.join()
    for sock in held:
        sock.close()
    return f"{count} GETs, slowest {slowest * 1000:.0f} ms"


@contextlib.contextmanager
def dripping(server: Server) -> Generator[None]:
    """A refused upload that sends 300 bytes every 0.2 s, from its answer on."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(_head(64 * MIB))
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.2):
                    sock.sendall(bytes(300))

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            sock.recv(65536)
            yield
        finally:
            over.set()
            thread.join()


def _until_gone(server: Server, pids: list[int]) -> float:
    begun = time.monotonic()
    while time.monotonic() < begun + 40:
        server.process.poll()
        if not set(pids) & set(server.pids()) or server.process.returncode is not None:
            break
        time.sleep(0.01)
    return time.monotonic() - begun


def stop(name: str, way: str, reason: str) -> tuple[float, set[str]]:
    """Seconds until the process that served is gone, and what it logged."""
    option = "--max-requests" if name.startswith("gunicorn") else "--limit-max-requests"
    more = (option, "20") if reason == "requests" else ()
    with served(name, way, *more) as server:
        workers = server.pids()[1:] or server.pids()
        with dripping(server):
            if reason == "requests":
                for _ in range(25):
                    with contextlib.suppress(OSError):
                        get(server.port)
            else:
                server.process.send_signal(signal.Signals[reason])
            taken = _until_gone(server, workers)
        return taken, server.lines()


def reasons(name: str) -> list[str]:
    """What this server ends, or replaces its process, for."""
    found = ["SIGTERM", "SIGINT"]
    if name.startswith("gunicorn"):
        found.append("SIGHUP")
    if name.startswith(("gunicorn", "uvicorn")):
        found.append("requests")
    return found


def idle(server: Server, before: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Threads and descriptors more than before, and wake-ups in some seconds."""
    until = time.monotonic() + 15
    while (now := server.holdings()) != before and time.monotonic() < until:
        time.sleep(0.1)
    woken = server.wake_ups()
    time.sleep(IDLE_SECONDS)
    return (now[0] - before[0], now[1] - before[1]), server.wake_ups() - woken


def _add(table: Table, *cells: str) -> None:
    """A row for the table, and a line at once: all of it takes an hour."""
    table.add_row(*cells)
    click.echo(" | ".join(cells), err=True)


class Figures:
    """The parts, each with a table.

    Args:
        names: The servers.
        rounds: How often each way is measured, in turns.
        uploads: How many uploads there are in a burst.
        size: The bytes of each.
        large: The bytes of the one that is discarded.
    """

    def __init__(
        self, names: list[str], *, rounds: int, uploads: int, size: int, large: int
    ) -> None:
        self._names = names
        self._rounds = rounds
        self._uploads = uploads
        self._size = size
        self._large = large

    def burst(self) -> Table:
        table = Table("server", "bare", "wrapped", "growth: bare", "wrapped", "s/GiB", "nginx's")
        for name in self._names:
            with served(name, BARE) as bare, served(name, WRAPPED) as wrapped, nginx() as other:
                found = [
                    [burst(each, self._uploads, self._size) for each in (bare, wrapped, other)]
                    for _ in range(self._rounds)
                ]
            _add(
                table,
                name,
                *(f"{min(row[way][0] for row in found)}/{self._uploads}" for way in (0, 1)),
                *(f"+{max(row[way][1] for row in found):.1f} MiB" for way in (0, 1)),
                *(f"{statistics.median(row[way][2] for row in found):.2f}" for way in (1, 2)),
            )
        return table

    def discard(self) -> Table:
        table = Table("server", "over a recv_into loop")
        for name in self._names:
            with served(name, WRAPPED) as server:
                _add(table, name, f"{discard(server, self._large, self._rounds):.2f}")
        return table

    def storm(self) -> Table:
        table = Table(
            *("server", "p99, bare, calm", "bare, 1,000 elsewhere", "wrapped, 1,000 linger"),
            *("over calm", "over elsewhere"),
            *("bare, storm", "wrapped, storm", "ratio", "counted", "left"),
        )
        for name in self._names:
            with (
                served(name, BARE) as bare,
                served(name, WRAPPED) as wrapped,
                served(name, PATIENT) as patient,
            ):
                held = wrapped.holdings()
                found: list[tuple[float, ...]] = []
                counted: list[str] = []
                for _ in range(self._rounds):
                    calm = percentile(bare, QUIET_SECONDS)
                    elsewhere, _ = beside(bare, "crowd", STORM_SECONDS, visited=patient)
                    crowded, _ = beside(patient, "crowd", STORM_SECONDS)
                    bare_stormy, _ = beside(bare, "storm", STORM_SECONDS)
                    stormy, told = in_storm(wrapped)
                    found.append((calm, elsewhere, crowded, bare_stormy, stormy))
                    counted.append(told)
                left, _ = idle(wrapped, held)
            medians = map(statistics.median, zip(*found, strict=True))
            calm, elsewhere, crowded, bare_stormy, stormy = medians
            _add(
                table,
                name,
                f"{calm:.1f} ms",
                f"{elsewhere:.1f} ms",
                f"{crowded:.1f} ms",
                f"{crowded / calm:.2f}",
                f"{crowded / elsewhere:.2f}",
                f"{bare_stormy:.1f} ms",
                f"{stormy:.1f} ms",
                f"{stormy / bare_stormy:.2f}",
                " ".join(counted),
                f"{left[0]:+d} threads, {left[1]:+d} fds",
            )
        return table

    def stalled(self) -> Table:
        table = Table("server", "bare", "wrapped")
        for name in self._names:
            cells: list[str] = []
            for way in (BARE, WRAPPED):
                with served(name, way) as server:
                    cells.append(stalled(server, 8))
            _add(table, name, *cells)
        return table

    def stop(self) -> Table:
        table = Table("server", "for", "bare", "wrapped", "logged by the wrapped alone")
        for name in self._names:
            for reason in reasons(name):
                bare = [stop(name, BARE, reason) for _ in range(self._rounds)]
                wrapped = [stop(name, WRAPPED, reason) for _ in range(self._rounds)]
                known = {line for _, lines in bare for line in lines}
                more = {line for _, lines in wrapped for line in lines} - known
                _add(
                    table,
                    name,
                    reason,
                    f"{statistics.median(taken for taken, _ in bare):.2f} s",
                    f"{statistics.median(taken for taken, _ in wrapped):.2f} s",
                    "\n".join(sorted(line.replace("_wrapped", "") for line in more)) or "nothing",
                )
        return table

    def idle(self) -> Table:
        table = Table("server", "bare", "wrapped", "wake-ups in 3 s: bare", "wrapped")
        for name in self._names:
            holdings: list[str] = []
            woken: list[str] = []
            for way in (BARE, WRAPPED):
                with served(name, way) as server:
                    before = server.holdings()
                    with contextlib.suppress(OSError):
                        _send_all(server.port, 32 * MIB)
                    left, wakes = idle(server, before)
                holdings.append(f"{left[0]:+d} threads, {left[1]:+d} fds")
                woken.append(str(wakes))
            _add(table, name, *holdings, *woken)
        return table


PARTS: Final = ("burst", "discard", "storm", "stalled", "stop", "idle")


@click.command(help=__doc__)
@click.option("--server", "names", multiple=True, type=click.Choice(list(SERVERS)))
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS))
@click.option("--rounds", default=3, show_default=True, help="How often each way is measured.")
@click.option("--uploads", default=300, show_default=True, help="Uploads at once.")
@click.option("--size", default=16, show_default=True, help="Their size, in MiB.")
@click.option("--discard", default=1024, show_default=True, help="The large upload, in MiB.")
def main(
    names: tuple[str, ...],
    parts: tuple[str, ...],
    rounds: int,
    uploads: int,
    size: int,
    discard: int,
) -> None:
    figures = Figures(
        list(names or SERVERS), rounds=rounds, uploads=uploads, size=size * MIB, large=discard * MIB
    )
    makers: dict[str, Callable[[], Table]] = {part: getattr(figures, part) for part in PARTS}
    for part in parts or PARTS:
        table = makers[part]()
        table.title = part
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
