"""Programs that are started for a test, and the memory that they take."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from example_apps import staging
from example_apps.staging import PortClaim, Running, StartError, find_program
from tests.harness import nursery
from tests.harness.paths import ROOT

__all__ = [
    "PortClaim",
    "ServerProcess",
    "StartError",
    "find_program",
    "peak_rss_bytes",
    "process_tree",
    "reset_peak_rss",
    "rss_bytes",
    "run_python",
    "stopped",
]


class ServerProcess(staging.ServerProcess):
    """The same, forked from a process that has imported its libraries, if that is as real.

    See `tests.harness.nursery`.
    """

    def _launch(self, command: Sequence[str], env: Mapping[str, str], log: int) -> Running:
        folder = os.fspath(self.cwd or Path.cwd())
        with Path(os.devnull).open("rb") as nothing:
            started = nursery.forked(command, env, folder, (nothing.fileno(), log, log))
        return started or super()._launch(command, env, log)


def run_python(code: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, which finds this checkout, to its good end.

    Args:
        code: The code, indented or not.
        *options: Options of the interpreter.
        **more: Variables for its environment.

    Raises:
        AssertionError: It has failed.
    """
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def process_tree(pid: int) -> list[int]:
    """A process and everything below it, as far as it still runs. Linux only."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in brackets may hold anything, so the fields are counted behind it.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [pid]
    for member in tree:
        tree += children.get(member, [])
    return tree


@contextlib.contextmanager
def stopped(pid: int) -> Generator[None]:
    """A server's processes run on when what is inside has happened."""
    tree = process_tree(pid)
    for member in tree:
        os.kill(member, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in tree:
            os.kill(member, signal.SIGCONT)


def rss_bytes(pid: int) -> int:
    """The resident memory of a process and everything below it. Linux only."""
    return _memory(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The sum of the highest resident memory of each process of the tree. Linux only."""
    return _memory(pid, "VmHWM")


def reset_peak_rss(pid: int) -> None:
    """Let :func:`peak_rss_bytes` count from now. Linux only."""
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{member}/clear_refs").write_text("5")


def _memory(pid: int, field: str) -> int:
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
    return total
