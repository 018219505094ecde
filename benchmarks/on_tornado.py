"""Small requests to Tornado's own HTTPServer, over loopback, on connections that are kept alive."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.in_process import BARE, BODY, HEADERS, POST_HEADERS, WRAPPED, Method
from benchmarks.rounds import Costs, take_turns
from benchmarks.tornado_server import CPU, GARBAGE, PAGE
from tests.harness.processes import ServerProcess

__all__ = ["TornadoCosts", "compare_tornado"]

ROOT: Final = Path(__file__).resolve().parent.parent
# So that the server never waits for the client: while one answer is read, others are due.
CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class TornadoCosts:
    """What the two servers cost for each request."""

    wall: Costs
    """By the clock, as the client sees it; its own work is in it."""
    cpu: Costs
    """The processor time of the server."""
    garbage: dict[str, float]
    """Objects for each request which only the cyclic collector could free."""


class Client:
    """Some connections to one server, and one request after the other on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def ask(self, path: str) -> str:
        """The body of one answer."""
        connection = self._connections[0]
        connection.sendall(_request("GET", path))
        return _answer(connection).decode()

    def many(self, method: Method, requests: int) -> None:
        """So many requests for the measured page, on all connections at once."""
        request = _request(method, PAGE)
        for _ in range(requests // CONNECTIONS):
            for connection in self._connections:
                connection.sendall(request)
            for connection in self._connections:
                _answer(connection)


def _request(method: Method, path: str) -> bytes:
    headers, body = (HEADERS, b"") if method == "GET" else (POST_HEADERS, BODY)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(connection)
    head = data[:end].lower()
    assert head.startswith(b"http/1.1 200 "), head
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = data[end + 4 :]
    while len(body) < length:
        body += _some(connection)
    return body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the server closed the connection"
    return data


@contextmanager
def _servers() -> Generator[dict[str, Client]]:
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        for name, how in ((BARE, "bare"), (WRAPPED, "installed")):
            server = stack.enter_context(
                ServerProcess(
                    (sys.executable, "-m", "benchmarks.tornado_server", "{port}", how),
                    cwd=ROOT,
                    ready_path=PAGE,
                    name=f"tornado-{how}",
                )
            )
            clients[name] = stack.enter_context(Client(server.port))
        yield clients


def compare_tornado(method: Method, *, rounds: int, requests: int) -> TornadoCosts:
    """Requests to a bare server and to one with ``install()``, by turns."""
    with _servers() as clients:
        cpu: dict[str, list[float]] = {name: [] for name in clients}

        def batch(name: str) -> Callable[[], float]:
            client = clients[name]

            def run() -> float:
                cpu_before = int(client.ask(CPU))
                started = time.perf_counter_ns()
                client.many(method, requests)
                spent = time.perf_counter_ns() - started
                cpu[name].append((int(client.ask(CPU)) - cpu_before) / requests)
                return spent / requests

            return run

        wall = take_turns({name: batch(name) for name in clients}, rounds)
        # The first round is there to warm up.
        measured = Costs({name: costs[-rounds:] for name, costs in cpu.items()})
        garbage = {name: _garbage(client, method) for name, client in clients.items()}
        return TornadoCosts(wall, measured, garbage)


def _garbage(client: Client, method: Method, requests: int = 400) -> float:
    client.ask(GARBAGE)
    client.many(method, requests)
    return int(client.ask(GARBAGE)) / requests
