"""A thousand departures under load, and clients that stay."""

from __future__ import annotations

import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

import pytest

from tests.harness.leavers import connected, request
from tests.harness.scenarios import TRIES
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.stopping import ASGI, TORNADO_ROW, Observed
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import until

pytestmark = [pytest.mark.stacks, pytest.mark.slow]

DEPARTURES: Final = 1000
STAYING: Final = 10_000
"""On two servers, one of each kind. Each of the others has a tenth of them in each try
(``CLEANCLOSE_TRIES``): what a thousand departures would leave behind a hundred leave as well, and
a server takes a minute for all of them."""
ROUNDS: Final = 4
CONNECTIONS: Final = 10
UVICORN: Final = ASGI[0]

ROWS: Final = (*ASGI, TORNADO_ROW)
OTHERS: Final = tuple(
    pytest.param(row, marks=pytest.mark.full) for row in ROWS if row not in (UVICORN, TORNADO_ROW)
)


def observed(serve: Serve, row: Stack, tmp_path: Path, base: int = 0) -> Observed:
    tap = tmp_path / "tap"
    return Observed(serve(row, env={PATH_VARIABLE: str(tap), "TEST_BASE_HTTP": str(base)}), tap)


def so_many(row: Stack, number: int) -> int:
    """How many of them this server has."""
    return number if row in (UVICORN, TORNADO_ROW) else min(number, TRIES * number // 10)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", [UVICORN, TORNADO_ROW, *OTHERS], ids=str)
def test_a_thousand_departures(serve: Serve, row: Stack, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path, base=1)
    tasks = server.state()["tasks"]
    departures = so_many(row, DEPARTURES)
    for number in range(ROUNDS):
        names = [uuid.uuid4().hex for _ in range(departures // ROUNDS)]
        path = ("/handler", "/whole")[number % 2]
        server.delays(server.leave_all(path, ("rst", "fin")[number % 2], names))
    until(lambda: server.happened("cleaned") == departures, server.state)
    until(lambda: len(server.events()) == departures, lambda: len(server.events()))
    assert all(event["stopped"] for event in server.events())
    assert server.state()["running"] == []
    assert server.loud() == []
    if tasks is not None:
        until(lambda: server.state()["tasks"] <= tasks, server.state)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_ten_thousand_that_stay(serve: Serve, row: Stack, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path, base=1)
    staying = so_many(row, STAYING)
    each = staying // CONNECTIONS

    def client(number: int) -> int:
        head = request("GET", "/stay?seconds=0", headers=(("X-Request-ID", str(number)),))
        answers = 0
        with connected(server.port) as sock, sock.makefile("rb") as file:
            sock.settimeout(60)
            for _ in range(each // 10):
                # Ten at once: pipelined.
                sock.sendall(head * 10)
                for _ in range(10):
                    answers += read_response(file) == (200, b"done")
        return answers

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert sum(pool.map(client, range(CONNECTIONS))) == staying
    assert server.happened("cleaned") == staying
    assert server.events() == []
    assert server.loud() == []


@pytest.mark.parametrize("row", ASGI, ids=str)
def test_slow_readers_and_early_responses(serve: Serve, row: Stack, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path)

    def read_slowly(_: int) -> int:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(
                request("GET", "/stay-stream?pieces=30", headers=(("Connection", "close"),))
            )
            received, tail = 0, b""
            # Not until its end: hypercorn on trio leaves such a connection open, bare as well.
            while not tail.endswith(b"0\r\n\r\n"):
                data = sock.recv(3000)
                received, tail = received + data.count(b"x"), (tail + data)[-5:]
                # Slow enough that the server has to wait for room.
                threading.Event().wait(0.001)
        return received

    def refused(_: int) -> bool:
        with connected(server.port) as sock:
            sock.settimeout(60)
            sock.sendall(request("POST", "/refuse", length=5000) + b"y" * 100)
            with sock.makefile("rb") as file:
                return read_response(file)[0] == 413

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_slowly, range(4))) == [600_000] * 4
        if "daphne" not in row.name:
            assert all(pool.map(refused, range(4)))
    assert [event for event in server.events() if event.get("stopped")] == []
    assert server.loud() == []


def read_response(file: BinaryIO) -> tuple[int, bytes]:
    """One response with a Content-Length or in chunks."""
    readline, read = file.readline, file.read
    status = int(readline().split()[1])
    length: int | None = None
    while (line := readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is not None:
        return status, read(length)
    body = b""
    while size := int(readline(), 16):
        body += read(size)
        readline()
    readline()
    return status, body
