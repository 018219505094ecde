"""Programs that are started for a test, and the memory that they take."""

from __future__ import annotations

import contextlib
from pathlib import Path

from example_apps.staging import PortClaim, ServerProcess, StartError, find_program

__all__ = [
    "PortClaim",
    "ServerProcess",
    "StartError",
    "find_program",
    "peak_rss_bytes",
    "process_tree",
    "reset_peak_rss",
    "rss_bytes",
]


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
