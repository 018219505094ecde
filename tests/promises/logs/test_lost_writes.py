"""Writes to a lost connection: asyncio's warning says nothing, the call stack says whose it is.

The negative control is the same server with ``quiet_logs=False``.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from cleanclose.core import SettingsOptions
from tests.harness.apps.floods_asgi import IN_VAIN, OVER
from tests.harness.leavers import connected, leave, request
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

APP: Final = "tests.harness.apps.floods_asgi:app"
UVICORN: Final = (sys.executable, "-m", "uvicorn", "--host=127.0.0.1", "--port={port}")
COMMANDS: Final = {
    "hypercorn": (sys.executable, "-m", "hypercorn", "--bind=127.0.0.1:{port}", APP),
    "uvicorn-sansio": (*UVICORN, "--ws=websockets-sansio", "--loop=asyncio", APP),
}
WARNING: Final = "socket.send() raised exception."
UPGRADE: Final = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", base64.b64encode(bytes(16)).decode()),
)
Record = Mapping[str, Any]


class Served:
    """A server whose records are read."""

    def __init__(self, server: ServerProcess, tap: Path) -> None:
        self.server = server
        self._tap = tap

    def warnings(self) -> list[Record]:
        """The records that say that a write was in vain."""
        return [record for record in read_tap(self._tap)[0] if record["message"] == WARNING]

    def over(self, path: str) -> bool:
        """Whether the app's call has ended."""
        return any(record["message"] == OVER % path for record in read_tap(self._tap)[0])

    def leave_in(self, path: str, *, websocket: bool = False) -> None:
        """Ask for it, read its beginning, leave, and wait until the app has ended."""
        with connected(self.server.port) as sock:
            sock.sendall(request("GET", path, headers=UPGRADE if websocket else ()))
            assert sock.recv(1000)
            leave(sock, "rst")
        until(lambda: self.over(path))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[ServerProcess] = []

    def start(name: str, **settings: Any) -> Served:
        options: SettingsOptions = settings  # type: ignore[assignment]
        tap = tmp_path / f"tap-{len(running)}"
        server = ServerProcess(
            COMMANDS[name],
            env={PATH_VARIABLE: str(tap), "CLEANCLOSE_SETTINGS": json.dumps(options)},
            cwd=ROOT,
            ready_path="/",
            name=name,
        )
        server.start()
        running.append(server)
        return Served(server, tap)

    yield start
    for server in running:
        server.stop()


@pytest.mark.parametrize(("name", "websocket"), [("hypercorn", False), ("uvicorn-sansio", True)])
def test_writes_to_the_clients_lost_connection_are_quiet(
    serve: Callable[..., Served], name: str, websocket: bool
) -> None:
    loud, quiet = serve(name, quiet_logs=False), serve(name)
    for served in (loud, quiet):
        served.leave_in("/stream", websocket=websocket)
    assert {record["level"] for record in loud.warnings()} == {logging.WARNING}
    assert {record["level"] for record in quiet.warnings()} == {logging.DEBUG}
    assert {record["original_level"] for record in quiet.warnings()} == {logging.WARNING}


def test_writes_to_an_upstreams_lost_connection_are_not(serve: Callable[..., Served]) -> None:
    served = serve("hypercorn")
    served.leave_in("/upstream")
    lost = [record for record in served.warnings() if record["original_level"] is None]
    # Before the client has left, and after.
    assert len(lost) == 2 * (IN_VAIN - 4)
    assert {record["level"] for record in lost} == {logging.WARNING}
