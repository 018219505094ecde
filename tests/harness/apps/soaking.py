"""What the apps of the soak have in common: outlets that misbehave, and a census of the process.

``TEST_JOURNAL`` names the file that every event goes to, one JSON object with the process's number
each: so what a worker has told outlives it.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cleanclose.core import Event, snapshot
from cleanclose.core.deliver.places import Places
from cleanclose.integrations.queue import QueuedOutlet
from cleanclose.linger import LINGERER
from tests.harness.apps import routes

if TYPE_CHECKING:
    from cleanclose.core import Outlet

__all__ = ["CENSUS", "JOURNAL_VARIABLE", "census", "outlets"]

CENSUS: Final = "/census"
JOURNAL_VARIABLE: Final = "TEST_JOURNAL"
_BLOCKED: Final = 0.2
"""Seconds that an event is blocked for: with a queue of three, most have no room."""


def outlets() -> list[Outlet]:
    """One that writes, and behind it one that raises, one that blocks and one on a full disk."""
    return [_journal, _raises, QueuedOutlet(_blocks, size=3), _disk_is_full]


def _journal(event: Event) -> None:
    line = json.dumps({"pid": os.getpid(), "event": event.name, **event.fields()}, default=str)
    number = os.open(os.environ[JOURNAL_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(number, line.encode() + b"\n")
    finally:
        os.close(number)


def _raises(event: Event) -> None:
    raise RuntimeError("this outlet is broken")


def _blocks(event: Event) -> None:
    time.sleep(_BLOCKED)


def _disk_is_full(event: Event) -> None:
    with Path("/dev/full").open("w") as disk:
        disk.write(event.name)


def census(tasks: int | None, seen: routes.Seen) -> bytes:
    """What this process has of everything that can be left behind, as JSON.

    Args:
        tasks: How many tasks its event loop has; None where there is none.
        seen: What the app has counted.
    """
    gc.collect()
    places = [each for each in gc.get_objects() if type(each) is Places]
    return json.dumps(
        {
            "pid": os.getpid(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "tasks": tasks,
            "lingering": LINGERER.count,
            "places": sum(each.taken for each in places),
            "smuggled": seen.smuggled,
            "counters": snapshot(),
        }
    ).encode()
