"""The servers of `benchmarks.lingering`: how each is started, and what its processes hold."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from example_apps.staging import find_program

__all__ = ["SERVERS", "Server", "get", "nginx", "served"]

_APP: Final = "benchmarks.refusing"
_PATIENCE: Final = 60.0
_WAITS: Final = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


def _uvicorn(*more: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        app = f"{_APP}:asgi{way}"
        return ["uvicorn", app, "--port", str(port), "--no-access-log", *more]

    return command


def _gunicorn(kind: str, *more: str) -> Callable[[int, str], list[str]]:
    def command(port: int, way: str) -> list[str]:
        app = f"{_APP}:{kind}{way}"
        options = ["--bind", f"127.0.0.1:{port}", "--log-level", "warning", "--no-control-socket"]
        return ["gunicorn", app, *options, *more]

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
    log: Path

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

    def wake_ups(self) -> int:
        """How often its threads have waited so far."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/status"):
                with contextlib.suppress(OSError):
                    found = re.search(
                        r"^voluntary_ctxt_switches:\s+(\d+)", task.read_text(), re.MULTILINE
                    )
                    total += int(found[1]) if found else 0
        return total

    def lines(self) -> set[str]:
        """What it has logged, without what differs from run to run."""
        text = self.log.read_text(errors="replace")
        return {re.sub(r"\d+", "N", line).strip() for line in text.splitlines()} - {""}


@contextlib.contextmanager
def _started(command: list[str], port: int, name: str, **more: str) -> Generator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **more},
            )
        try:
            until = time.monotonic() + _PATIENCE
            while True:
                with contextlib.suppress(OSError):
                    get(port)
                    break
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError(f"{name} does not answer:\n{log.read_text()}")
                time.sleep(0.05)
            yield Server(port, process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def served(name: str, way: str, *more: str) -> contextlib.AbstractContextManager[Server]:
    """One of `SERVERS`, running.

    Args:
        name: Its name.
        way: Nothing, or ``_wrapped``.
        *more: More arguments for its command line.
    """
    port = _free_port()
    return _started([sys.executable, "-m", *SERVERS[name](port, way), *more], port, name)


@contextlib.contextmanager
def nginx() -> Generator[Server]:
    """An nginx that refuses every upload by itself."""
    program = find_program("nginx")
    if program is None:
        raise RuntimeError("there is no nginx on this machine")
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "temp").mkdir()
        paths = " ".join(
            f"{kind}_temp_path temp/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi")
        )
        Path(folder, "nginx.conf").write_text(
            textwrap.dedent(f"""
            {"user root root;" if os.geteuid() == 0 else ""}
            worker_processes 1; daemon off; pid nginx.pid; error_log error.log crit;
            events {{ worker_connections 2048; }}
            http {{
                access_log off; client_body_temp_path temp/body; {paths}
                server {{
                    listen 127.0.0.1:{port} backlog=1024;
                    location / {{
                        client_max_body_size 1k;
                        return 200 "ok";
                    }}
                }}
            }}
        """)
        )
        command = [program, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]
        with _started(command, port, "nginx") as server:
            yield server


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def get(port: int, path: str = "/") -> tuple[float, bytes]:
    """The seconds that a GET took, and its answer's bytes."""
    begun = time.monotonic()
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        while got := sock.recv(65536):
            received += got
    return time.monotonic() - begun, received
