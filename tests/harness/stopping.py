"""Servers with an application that notes what became of its work, and clients that leave them."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.harness.leavers import How, connected, leave, request, until_read
from tests.harness.processes import ServerProcess
from tests.harness.servers_asgi import ROWS as ASGI_ROWS
from tests.harness.stacks import TORNADO, Stack
from tests.harness.tap import read_tap
from tests.harness.waiting import until

__all__ = ["ASGI", "HOWS", "NOT_TOLD", "TORNADO_ROW", "Observed", "stopping", "with_keep_alive"]

WARNING: Final = 30
HOWS: Final[tuple[How, ...]] = ("rst", "fin")
UPLOADS: Final = frozenset({"/unread", "/upload", "/body", "/echo"})


def stopping(row: Stack) -> Stack:
    """The same server with the application of these tests, and patience.

    hypercorn closes a connection that has been idle for so long, bare as well, and sees too late
    that a request was in it: a busy machine looks like clients that stay and are cut off. It keeps
    one for as long whose client has ended its sending, and its tasks with it.
    """
    command = tuple(
        each.replace("starlette_app", "stopping_asgi").replace("tornado_app", "stopping_tornado")
        for each in row.command
    )
    return with_keep_alive(replace(row, name=f"stopping-{row.name}", command=command), 15)


def with_keep_alive(row: Stack, seconds: int) -> Stack:
    """The same server, which keeps an idle connection for so long if it has an option for that."""
    option = re.compile(r"--keep-alive=\d+")
    command = tuple(option.sub(f"--keep-alive={seconds}", each) for each in row.command)
    return replace(row, command=command)


_HTTPTOOLS_ON_ASYNCIO: Final = replace(
    ASGI_ROWS[0],
    name="asgi-uvicorn-asyncio",
    command=(*ASGI_ROWS[0].command[:-1], "--loop=asyncio", ASGI_ROWS[0].command[-1]),
)
ASGI: Final = tuple(map(stopping, (*ASGI_ROWS, _HTTPTOOLS_ON_ASYNCIO)))
TORNADO_ROW: Final = stopping(TORNADO)

NOT_TOLD: Final[Mapping[tuple[str, str], tuple[How, ...]]] = {
    # Compiled: nothing tells of a client while its body is not read.
    ("stopping-asgi-granian", "/unread"): HOWS,
    # A memory channel: what waits in it cannot be looked at; of a reset the kernel tells.
    ("stopping-asgi-hypercorn-trio", "/unread"): ("fin",),
    # It calls the application when it has all of the body.
    ("stopping-asgi-daphne", "/unread"): HOWS,
    ("stopping-asgi-daphne", "/upload"): HOWS,
}
"""Departures that a server does not tell of, by its name and the path."""


class Observed:
    """A server, and what has happened in it since the test began."""

    def __init__(self, server: ServerProcess, tap: Path) -> None:
        self.port = server.port
        self._tap = tap
        self._before = tuple(map(len, read_tap(tap)))
        self._notes: Mapping[str, int] = self.state()["notes"]

    def state(self) -> Mapping[str, Any]:
        """What the application says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=60) as response:
            found: Mapping[str, Any] = json.load(response)
        return found

    def happened(self, what: str) -> int:
        """How often something has."""
        notes: Mapping[str, int] = self.state()["notes"]
        return notes.get(what, 0) - self._notes.get(what, 0)

    def loud(self) -> list[Mapping[str, Any]]:
        """Records at WARNING and above."""
        return [each for each in read_tap(self._tap)[0][self._before[0] :] if each["level"] >= 30]

    def events(self, name: str = "client_departed") -> list[Mapping[str, Any]]:
        """The events of a name, about clients that have an id."""
        new = read_tap(self._tap)[1][self._before[1] :]
        return [each for each in new if each["event"] == name and "request_id" in each]

    def leave_all(self, path: str, how: How, ids: Iterable[str]) -> dict[str, float]:
        """Clients that come, and leave at the same time once the work of all has begun.

        Returns:
            When each has left, by the monotonic clock.
        """
        names = list(ids)
        gate = threading.Barrier(len(names) + 1)
        left: dict[str, float] = {}

        def visit(name: str) -> None:
            try:
                self._visit(path, how, name, gate, left)
            except BaseException:
                gate.abort()
                raise

        threads = [threading.Thread(target=visit, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        until(lambda: set(names) <= set(self.state()["running"]), self.state)
        gate.wait(60)
        for thread in threads:
            thread.join(60)
        return left

    def _visit(
        self, path: str, how: How, name: str, gate: threading.Barrier, left: dict[str, float]
    ) -> None:
        upload = path in UPLOADS
        length = None if not upload else 5 if path == "/body" else 100_000
        head = request(
            "POST" if upload else "GET",
            path,
            length=length,
            headers=(("X-Request-ID", name),),
        )
        with connected(self.port) as sock:
            sock.settimeout(60)
            sock.sendall(head + (b"hello" if upload else b""))
            if "stream" in path or path == "/flowing":
                assert sock.recv(1)
            until_read(sock)
            gate.wait(60)
            left[name] = time.monotonic()
            leave(sock, how)

    def delays(self, left: Mapping[str, float]) -> list[float]:
        """Seconds from each departure to the end of its work, when all of them have ended."""
        until(lambda: not set(left) & set(self.state()["running"]), self.state)
        until(lambda: set(left) <= set(self.state()["ends"]), self.state)
        ends: Mapping[str, float] = self.state()["ends"]
        return sorted(ends[name] - at for name, at in left.items())
