"""What refused uploads cost a server, bare and wrapped: ``python -m benchmarks.lingering``.

Each server runs as a process of its own with an application that refuses every upload unread.

- burst: so many uploads at once; how many clients got the answer, by how much the process grew.
- discard: one large upload; its speed against a bare ``recv_into`` loop in the same run.
- stalled: one upload a second that stops after 1,000 bytes; how many GETs are served meanwhile.
- stop: SIGTERM during an upload that drips; how long the server takes to end.
- idle: threads and descriptors after the last connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

import click
from rich.console import Console
from rich.table import Table

__all__ = ["SERVERS", "main"]

MIB: Final = 1024 * 1024
_APP: Final = "benchmarks.refusing"
_PATIENCE: Final = 60.0


def _uvicorn(*more: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        app = f"{_APP}:asgi{way}"
        return ["uvicorn", app, "--port", str(port), "--no-access-log", *more]

    return command


def _gunicorn(kind: str, *more: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        app = f"{_APP}:{kind}{way}"
        return ["gunicorn", app, "--bind", f"127.0.0.1:{port}", "--log-level", "warning", *more]

    return command


def _hypercorn(worker: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        return ["hypercorn", f"{_APP}:asgi{way}", "--bind", f"127.0.0.1:{port}", "-k", worker]

    return command


def _own(kind: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        return ["benchmarks.serve_refusing", kind, str(port), way.removeprefix("_") or "bare"]

    return command


SERVERS: Final[dict[str, Callable[[int, str], list[str]]]] = {
    "uvicorn h11": _uvicorn("--http", "h11", "--loop", "asyncio"),
    "uvicorn uvloop": _uvicorn("--http", "httptools", "--loop", "uvloop"),
    "hypercorn": _hypercorn("asyncio"),
    "hypercorn trio": _hypercorn("trio"),
    "gunicorn asgi": _gunicorn("asgi", "-k", "asgi"),
    "gunicorn sync": _gunicorn("wsgi", "-k", "sync"),
    "gunicorn gthread": _gunicorn("wsgi", "-k", "gthread", "--threads", "8"),
    "gunicorn gevent": _gunicorn("wsgi", "-k", "gevent"),
    "tornado": _own("tornado"),
    "werkzeug": _own("werkzeug"),
    "wsgiref": _own("wsgiref"),
    "cheroot": _own("cheroot"),
    "gevent.pywsgi": _own("gevent"),
}


@dataclass
class Server:
    """A server process, its workers included."""

    port: int
    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
                found += [int(child) for child in file.read().split()]
        return found

    def resident(self) -> int:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total

    def cpu(self) -> float:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def holdings(self) -> tuple[int, int]:
        """Threads and descriptors."""
        threads = descriptors = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                threads += len(os.listdir(f"/proc/{pid}/task"))
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        return threads, descriptors


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def _served(name: str, way: str) -> Generator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", *SERVERS[name](port, way)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):
                _get(port)
                break
            if time.monotonic() > until or process.poll() is not None:
                raise click.ClickException(f"{name} does not answer")
            time.sleep(0.05)
        yield Server(port, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _get(port: int) -> float:
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while sock.recv(65536):
            pass
    return time.monotonic() - begun


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
                if b"too large\n" * 10 in answer:
                    break
        except OSError:
            return False
        return b" 413 " in answer[:20] and answer.endswith(b"too large\n" * 10)


async def _burst(port: int, count: int, size: int) -> int:
    async with asyncio.timeout(300):
        return sum(await asyncio.gather(*(_upload(port, size) for _ in range(count))))


def burst(server: Server, count: int, size: int) -> tuple[str, str]:
    """How many of so many uploads at once got their answer, and the process's growth."""
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
    return f"{delivered}/{count}", f"+{(highest[0] - before) / MIB:.1f} MiB, {spent:.2f} s/GiB"


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


def raw_loop(size: int) -> float:
    """The speed of a bare `recv_into` loop, in MiB/s."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                buffer = bytearray(65536)
                while connection.recv_into(buffer):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        speed = _send_all(port, size)
        thread.join()
        return speed


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
    served = 0
    slowest = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            slowest = max(slowest, _get(server.port))
            served += 1
    stop.set()
    thread.join()
    for sock in held:
        sock.close()
    return f"{served} GETs, slowest {slowest * 1000:.0f} ms"


def stop(server: Server) -> str:
    """Seconds from SIGTERM to the end, while a refused upload drips."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(_head(64 * MIB))
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.2):
                    sock.sendall(bytes(300))

        thread = threading.Thread(target=drip)
        thread.start()
        sock.recv(65536)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(40)
            taken = f"{time.monotonic() - begun:.2f} s"
        except subprocess.TimeoutExpired:
            taken = "over 40 s"
        over.set()
        thread.join()
    return taken


def idle(server: Server, before: tuple[int, int]) -> str:
    """Threads and descriptors that are left, against those before."""
    until = time.monotonic() + 10
    while (now := server.holdings()) != before and time.monotonic() < until:
        time.sleep(0.1)
    return f"{now[0] - before[0]:+d} threads, {now[1] - before[1]:+d} fds"


@click.command(help=__doc__)
@click.option("--server", "names", multiple=True, type=click.Choice(list(SERVERS)))
@click.option("--uploads", default=300, show_default=True, help="Uploads at once.")
@click.option("--size", default=16, show_default=True, help="Their size, in MiB.")
@click.option("--discard", default=1024, show_default=True, help="The large upload, in MiB.")
@click.option("--seconds", default=8, show_default=True, help="How long uploads stall.")
def main(names: tuple[str, ...], uploads: int, size: int, discard: int, seconds: int) -> None:
    table = Table("server", "way", "burst", "growth, CPU", "discard", "stalled", "stop", "idle")
    for name in names or SERVERS:
        for way in ("", "_wrapped"):
            row = [name, way.removeprefix("_") or "bare"]
            with _served(name, way) as server:
                before = server.holdings()
                row += burst(server, uploads, size * MIB)
                if way:
                    raw = raw_loop(discard * MIB)
                    speed = _send_all(server.port, discard * MIB)
                    row.append(f"{speed:.0f} MiB/s, {speed / raw:.2f} x raw")
                else:
                    row.append("")
                row.append(stalled(server, seconds))
                left = idle(server, before)
                row += [stop(server), left]
            table.add_row(*row)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
