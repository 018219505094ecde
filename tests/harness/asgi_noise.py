"""The ASGI servers and frameworks of the tests about noise, and what their clients do."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.harness.apps.noise_asgi import BUSY, EDGE, GATE, UPSTREAM_PORT
from tests.harness.leavers import How, connected, leave, request
from tests.harness.processes import ServerProcess
from tests.harness.stacks import Stack
from tests.harness.tap import PATH_VARIABLE, noted, read_tap
from tests.harness.waiting import LIMIT, until

__all__ = [
    "HOWS",
    "WARNING",
    "Observed",
    "asgi_stack",
    "edge_stack",
    "leave_websocket",
    "masking_stack",
    "module_stack",
    "observed",
    "open_websocket",
    "said_by",
    "say_goodbye",
    "together",
]

HOWS: Final[tuple[How, ...]] = ("rst", "fin")
WARNING: Final = 30

_PYTHON: Final = (sys.executable, "-m")
_UVICORN: Final = (
    *_PYTHON,
    "uvicorn",
    "--host=127.0.0.1",
    "--port={port}",
    "--no-access-log",
    "--timeout-graceful-shutdown=2",
)
# Without a worker, which would be a Python of its own, and not forked as this process is.
_HYPERCORN: Final = (
    *_PYTHON,
    "hypercorn",
    "--workers=0",
    "--bind=127.0.0.1:{port}",
    "--graceful-timeout=1",
)
_SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn-h11": (*_UVICORN, "--loop=asyncio", "--http=h11", "--ws=websockets-sansio"),
    "uvicorn-httptools": (*_UVICORN, "--loop=asyncio", "--http=httptools", "--ws=wsproto"),
    "uvicorn-uvloop": (*_UVICORN, "--loop=uvloop", "--http=httptools", "--ws=websockets"),
    "hypercorn": _HYPERCORN,
    "gunicorn": (
        *_PYTHON,
        "gunicorn",
        "--bind=127.0.0.1:{port}",
        "--workers=1",
        "--worker-class=asgi",
        "--timeout=120",
        "--graceful-timeout=1",
        "--no-control-socket",
        # By default it cancels what goes on for three seconds behind its client's back. What it
        # never tells the application of ends only then.
        "--asgi-disconnect-grace-period=15",
    ),
    "hypercorn-trio": (*_HYPERCORN, "--worker-class=trio"),
    "daphne": (*_PYTHON, "daphne", "-b", "127.0.0.1", "-p", "{port}"),
    "granian": (*_PYTHON, "granian", "--interface=asgi", "--host=127.0.0.1", "--port={port}"),
}
_UPGRADE: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def asgi_stack(server: str, framework: str = "raw") -> Stack:
    """One of the servers with the noise app on one of the frameworks."""
    module = "noise_asgi_raw" if framework == "raw" else "noise_asgi_frameworks"
    return Stack(
        name=f"{server}-{framework}",
        interface="asgi",
        command=(*_SERVERS[server], f"tests.harness.apps.{module}:app"),
        env={"TEST_FRAMEWORK": framework},
        loses="always",
    )


def edge_stack(server: str, edge: str) -> Stack:
    """One of the servers with one of the applications in ``edges_asgi``."""
    return Stack(
        name=f"{server}-{edge}",
        interface="asgi",
        command=(*_SERVERS[server], "tests.harness.apps.edges_asgi:app"),
        env={EDGE: edge},
        loses="always",
    )


def masking_stack(server: str) -> Stack:
    """One of the servers with the application in ``masking_asgi``."""
    return module_stack(server, "masking_asgi")


def module_stack(server: str, module: str) -> Stack:
    """One of the servers with the application in one of the modules."""
    return Stack(
        name=f"{server}-{module}",
        interface="asgi",
        command=(*_SERVERS[server], f"tests.harness.apps.{module}:app"),
        loses="always",
    )


@dataclass
class Observed:
    """A server, and what it says until it has stopped."""

    server: ServerProcess
    path: Path
    gate: Path
    records: Sequence[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Records at WARNING and above, once it has stopped."""
    events: Sequence[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """All events, once it has stopped."""

    @property
    def port(self) -> int:
        """The port that it serves on."""
        return self.server.port

    def ask(self, path: str) -> Any:
        """The JSON which a GET of this path is answered with."""
        head, _, body = said_by(self.port, path).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        return json.loads(body)

    def all_have_left(self) -> None:
        """Let what works behind its client's back come to its end."""
        self.gate.touch()

    def departures(self) -> int:
        """The sum of its counters of departures."""
        counters: Mapping[str, int] = self.ask("/counters")
        return sum(
            value
            for name, value in counters.items()
            if name.startswith("cleanclose_departures_total")
        )

    def events_now(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The events so far, by the request's id."""
        return _by_request(read_tap(self.path)[1])

    def events_by_request(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """All events, by the request's id."""
        return _by_request(self.events)

    def records_now(self) -> Sequence[Mapping[str, Any]]:
        """The records at WARNING and above so far."""
        return [each for each in read_tap(self.path)[0] if each["level"] >= WARNING]

    def errors(self) -> Sequence[tuple[str, str | None]]:
        """The loggers of the records, and the classes of their exceptions, in order."""
        return sorted((each["logger"], each["error"] or "") for each in self.records)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        until(condition, lambda: f"{what}\n{self.server.log_text()[-4000:]}")

    def noted(self, what: str, who: str) -> bool:
        """Whether a request is where it has to be: `noise_asgi.CAME`, ``WORKS`` or ``HOLDS``."""
        return noted(self.path, what, who)


def _by_request(
    events: Sequence[Mapping[str, Any]],
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        found.setdefault(event.get("request_id", ""), []).append(event)
    return found


@contextlib.contextmanager
def observed(
    stack: Stack,
    folder: Path,
    *,
    wrapped: bool,
    upstream_port: int = 1,
    busy: bool = False,
    more: Mapping[str, str] | None = None,
) -> Generator[Observed]:
    """A server for the time of a ``with`` block; afterwards, all that it has said.

    Args:
        stack: The server.
        folder: Where it may write.
        wrapped: Whether it has the middleware.
        upstream_port: The port of what its handlers fail with.
        busy: Whether handlers hold the loop while their client leaves.
        more: More of the environment.
    """
    name = "wrapped" if wrapped else "bare"
    path, gate = folder / f"tap-{name}.jsonl", folder / f"gate-{name}"
    env = {
        PATH_VARIABLE: str(path),
        GATE: str(gate),
        UPSTREAM_PORT: str(upstream_port),
        **(more or {}),
    }
    if busy:
        env[BUSY] = "1"
    with stack.process(wrapped=wrapped, env=env) as server:
        seen = Observed(server, path, gate)
        yield seen
    records, seen.events = read_tap(path)
    seen.records = [record for record in records if record["level"] >= WARNING]


def said_by(port: int, path: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The whole response to a GET on a connection of its own."""
    with connected(port) as sock:
        sock.sendall(request("GET", path, headers=(*headers, ("Connection", "close"))))
        pieces: list[bytes] = []
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)


def open_websocket(port: int, path: str, request_id: str) -> socket.socket:
    """A websocket whose handshake is over."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    sock.sendall(request("GET", path, headers=(*_UPGRADE, ("X-Request-ID", request_id))))
    head = b""
    while b"\r\n\r\n" not in head:
        # One by one: what follows is for whoever has the socket.
        byte = sock.recv(1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


def leave_websocket(
    port: int,
    path: str,
    request_id: str,
    how: How,
    *,
    read: int = 0,
    once: Callable[[], bool] | None = None,
) -> None:
    """Open a websocket, read that many bytes, and leave without a close frame.

    Args:
        port: The server's port.
        path: The path.
        request_id: The request's id.
        how: How to leave.
        read: How many bytes to read before.
        once: What has to be so before, besides.
    """
    sock = open_websocket(port, path, request_id)
    while read > 0:
        data = sock.recv(min(read, 65536))
        assert data
        read -= len(data)
    if once is not None:
        until(once, "what this client waits for never came")
    leave(sock, how)


def say_goodbye(port: int, path: str, request_id: str, code: int) -> None:
    """Open a websocket, and close it as RFC 6455 (section 7.1.2) has it."""
    sock = open_websocket(port, path, request_id)
    mask = b"abcd"
    payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(struct.pack("!H", code)))
    sock.sendall(bytes((0x88, 0x80 | len(payload))) + mask + payload)
    # The server's close frame, and then the end of the connection.
    while sock.recv(65536):
        pass
    sock.close()


def together(jobs: Sequence[Callable[[], None]]) -> None:
    """Do all of these at once."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
