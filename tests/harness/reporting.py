"""Servers with the apps ``told_…``, and crowds of clients that leave them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.harness.asking import get_json, status_of
from tests.harness.leavers import leave_at, request
from tests.harness.processes import ServerProcess
from tests.harness.stacks import Stack, gunicorn

__all__ = [
    "GTHREAD",
    "SYNC",
    "TORNADO",
    "UVICORN",
    "counted",
    "crowd",
    "departures",
    "quietly_get",
]


def uvicorn(name: str, *arguments: str) -> Stack:
    """A uvicorn with the Starlette app, and more arguments."""
    return Stack(
        name=f"told-{name}",
        interface="asgi",
        command=(
            sys.executable,
            "-m",
            "uvicorn",
            "--host=127.0.0.1",
            "--port={port}",
            "--timeout-graceful-shutdown=2",
            *arguments,
            "tests.harness.apps.told_asgi:app",
        ),
        loses="on_close",
    )


UVICORN: Final = uvicorn("uvicorn", "--no-access-log")
SYNC: Final = gunicorn("told-sync", "told_flask", "--worker-class=sync", threads=False)
GTHREAD: Final = gunicorn(
    "told-gthread", "told_flask", "--worker-class=gthread", "--threads=8", threads=True
)
TORNADO: Final = Stack(
    name="told-tornado",
    interface="tornado",
    command=(sys.executable, "-m", "tests.harness.apps.told_tornado", "{port}"),
    loses="always",
)


def counted(server: ServerProcess) -> dict[str, float]:
    """The server's counters, added up over their labels."""
    values: dict[str, float] = get_json(server.port)
    sums: dict[str, float] = {}
    for name, value in values.items():
        family = name.partition("{")[0].removeprefix("cleanclose_").removesuffix("_total")
        sums[family] = sums.get(family, 0) + value
    return sums


def departures(server: ServerProcess) -> int:
    """How many clients have left."""
    return int(counted(server)["departures"])


def crowd(server: ServerProcess, each: int, *, at_once: int = 6) -> int:
    """Let clients leave in their uploads, while the handler works, and in their downloads.

    Args:
        server: The server.
        each: How many of each kind.
        at_once: How many are there at a time.

    Returns:
        How many there were.
    """
    upload = request("POST", "/read", length=1000)
    kinds: list[dict[str, Any]] = [
        {"head": upload, "body": b"some"},
        {"head": request("GET", "/work")},
        {"head": request("GET", "/stream"), "read": 100_000},
    ]
    clients = [kind for kind in kinds for _ in range(each)]

    def leave(kind: dict[str, Any]) -> None:
        leave_at(server.port, how="rst", **kind)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(leave, clients))
    return len(clients)


def quietly_get(server: ServerProcess, path: str) -> int | None:
    """The status of a GET; None if its response breaks off."""
    return status_of(server.port, path)
