"""The metered example service under load: its process, its visitors, and those who leave."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from example_apps.metered import MAX_BYTES
from tests.harness.leavers import How, connected, leave, request, until_read
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.waiting import LIMIT

__all__ = [
    "cut_upload",
    "leave_order",
    "leave_report",
    "metered_service",
    "refused_upload",
    "visit",
    "visitors",
]

_EXPECT: Final = (("Expect", "100-continue"),)
_MIB: Final = 1024 * 1024


def metered_service(folder: Path, prices: str) -> ServerProcess:
    """The service on four workers of gunicorn, not yet started.

    Args:
        folder: Where the workers put their figures.
        prices: The address of its upstream.
    """
    return ServerProcess(
        (
            *(sys.executable, "-m", "gunicorn", "--config=example_apps/metered_gunicorn.py"),
            *("--bind=127.0.0.1:{port}", "--timeout=120", "--graceful-timeout=2"),
            *("--no-control-socket", "example_apps.metered:make_app()"),
        ),
        env={
            "PROMETHEUS_MULTIPROC_DIR": str(folder),
            # More than a client takes to leave.
            "ORDER_SECONDS": "4",
            "PRICES": prices,
            "PORT": "{port}",
        },
        cwd=ROOT,
        ready_path="/",
        name="metered",
    )


def cut_upload(port: int, how: How) -> None:
    """Announce 1,000 bytes, wait until the service takes them, send 5 and leave."""
    with connected(port) as sock:
        _wait_for_continue(sock, request("PUT", "/files", length=1000, headers=_EXPECT))
        sock.sendall(b"12345")
        until_read(sock)
        leave(sock, how)


def leave_order(port: int, how: How, stays: float = 0.0) -> None:
    """Order, and leave when the service has read it.

    Args:
        port: The service's port.
        how: How to leave.
        stays: Seconds of patience: for a picture, which wants clients of all ages.
    """
    with connected(port) as sock:
        _wait_for_continue(sock, request("POST", "/orders", length=5, headers=_EXPECT))
        sock.sendall(b"order")
        until_read(sock)
        time.sleep(stays)
        leave(sock, how)


def leave_report(port: int, how: How) -> None:
    """Read the beginning of a report and leave."""
    with connected(port) as sock:
        sock.sendall(request("GET", "/report"))
        left = 256 * 1024
        while left > 0:
            data = sock.recv(65536)
            assert data, "the report ended early"
            left -= len(data)
        leave(sock, how)


def refused_upload(port: int) -> int:
    """Send an upload that is too large all the way; return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request("PUT", "/files", b"x" * (4 * _MIB + MAX_BYTES))
        answer = connection.getresponse()
        answer.read()
        return answer.status


def visit(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Make an ordinary request; return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


@contextlib.contextmanager
def visitors(port: int, number: int = 2, pause: float = 0.02) -> Generator[None]:
    """Others who use the service meanwhile. What fails them is no concern of this."""
    over = threading.Event()

    def use() -> None:
        while not over.wait(pause):
            with contextlib.suppress(OSError, http.client.HTTPException):
                visit(port, "GET", "/")
                visit(port, "PUT", "/files", b"x" * 1000)

    threads = [threading.Thread(target=use, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def _wait_for_continue(sock: socket.socket, head: bytes) -> None:
    """Send a request's head; its handler is called when the 100 is there."""
    sock.sendall(head)
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(1024)
        assert data, answer
        answer += data
    assert answer.startswith(b"HTTP/1.1 100 "), answer
