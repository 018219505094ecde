"""What happens to a server in the middle of its traffic: reloads, deaths, no descriptors, sleep."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.harness.processes import ServerProcess, process_tree
from tests.harness.stacks import Stack

__all__ = ["Trouble"]

_PAUSE: Final = (0.8, 1.6)
_STOPPED: Final = (0.3, 1.2)
_STARVED: Final = (0.5, 1.5)
_SPARE: Final = 3
"""Descriptors that a starved process has left."""


class Trouble:
    """Makes trouble for one server.

    Args:
        stack: The server's row: what has a master process can lose a worker.
        server: It runs.
        seed: What decides when, and which.
    """

    def __init__(self, stack: Stack, server: ServerProcess, *, seed: str) -> None:
        self.made: Counter[str] = Counter()
        self._server = server
        self._rng = random.Random(seed)
        command = " ".join(stack.command)
        self._kinds: list[Callable[[], None]] = [self._sleep, self._starve]
        if "gunicorn" in command:
            self._kinds += [self._reload, self._kill_a_worker]
        elif "pyuwsgi" in command:
            self._kinds += [self._kill_a_worker]

    def run(self, seconds: float) -> None:
        """Make trouble for so long; afterwards, all is as it was."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._server.alive:
            time.sleep(min(left, self._rng.uniform(*_PAUSE)))
            if time.monotonic() < until:
                self._rng.choice(self._kinds)()

    def _reload(self) -> None:
        self.made["reload"] += 1
        os.kill(self._server.pid, signal.SIGHUP)

    def _kill_a_worker(self) -> None:
        workers = process_tree(self._server.pid)[1:]
        if workers:
            self.made["worker killed"] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rng.choice(workers), signal.SIGKILL)

    def _sleep(self) -> None:
        """As a machine that is suspended: all clocks have moved on afterwards."""
        self.made["stopped"] += 1
        tree = process_tree(self._server.pid)
        self._signal(tree, signal.SIGSTOP)
        time.sleep(self._rng.uniform(*_STOPPED))
        self._signal(tree, signal.SIGCONT)

    def _starve(self) -> None:
        """No descriptor is left: EMFILE for whoever wants one."""
        self.made["no descriptors"] += 1
        before: dict[int, tuple[int, int]] = {}
        tree = process_tree(self._server.pid)
        # Not a master: what it starts meanwhile would have its limit for ever.
        for member in tree[1:] or tree:
            with contextlib.suppress(OSError):
                highest = max(int(entry.name) for entry in Path(f"/proc/{member}/fd").iterdir())
                limits = resource.prlimit(member, resource.RLIMIT_NOFILE)
                new = (min(highest + _SPARE, limits[0]), limits[1])
                before[member] = resource.prlimit(member, resource.RLIMIT_NOFILE, new)
        time.sleep(self._rng.uniform(*_STARVED))
        for member, limits in before.items():
            with contextlib.suppress(OSError):
                resource.prlimit(member, resource.RLIMIT_NOFILE, limits)

    @staticmethod
    def _signal(tree: list[int], number: signal.Signals) -> None:
        for member in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)
