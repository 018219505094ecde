"""A stream of HTTP/2 that its client resets: its work ends, and the connection goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.harness.leavers import connected
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.stopping import ASGI, Observed
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import LIMIT, until

pytestmark = pytest.mark.stacks

HYPERCORN = [row for row in ASGI if "hypercorn" in row.name]


class Client:
    """A client that knows before that the server speaks HTTP/2."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self._h2.initiate_connection()

    def ask(self, path: str, name: str = "-") -> int:
        number = self._h2.get_next_available_stream_id()
        head = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "h2"}
        self._h2.send_headers(number, [*head.items(), ("x-request-id", name)], end_stream=True)
        self._flush()
        return number

    def reset(self, number: int) -> None:
        self._h2.reset_stream(number)
        self._flush()

    def read_until(self, is_it: Callable[[h2.events.Event], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            data = self._sock.recv(65536)
            assert data, "the server has closed the connection"
            events = self._h2.receive_data(data)
            self._flush()
            if any(map(is_it, events)):
                return
        pytest.fail("it never came")

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())


@pytest.mark.parametrize("row", HYPERCORN, ids=str)
def test_a_reset_stream_is_stopped_and_its_neighbour_is_not(
    serve: Serve, row: Stack, tmp_path: Path
) -> None:
    tap = tmp_path / "tap"
    server = Observed(serve(row, env={PATH_VARIABLE: str(tap)}), tap)
    with connected(server.port) as sock:
        sock.settimeout(LIMIT)
        client = Client(sock)
        streams = {path: client.ask(path, path) for path in ("/handler", "/stream")}
        staying = client.ask("/stay?seconds=1", "stays")
        until(lambda: {"/handler", "/stream", "stays"} <= set(server.state()["running"]))
        for path in ("/handler", "/stream"):
            client.reset(streams[path])
        until(lambda: {"/handler", "/stream"} <= set(server.state()["ends"]), server.state)
        client.read_until(
            lambda event: isinstance(event, h2.events.StreamEnded) and event.stream_id == staying
        )
    until(lambda: server.happened("cleaned") == server.happened("begun"), server.state)
    told = [event for event in server.events() if event.get("stopped")]
    assert sorted(event["request_id"] for event in told) == ["/handler", "/stream"]
    assert server.loud() == []
