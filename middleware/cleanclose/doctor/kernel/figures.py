"""Read what ``/proc`` and netlink show without root: counters, accept queues, settings, owners."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

# The doctor's one use of the product's own reader of the kernel's figures.
from cleanclose.core.kernel import Listener, kernel_figures
from cleanclose.doctor.kernel.sentences import COUNTERS, SYSCTLS

__all__ = ["Figures", "Owner", "Unavailable", "listening_owners", "look", "owner_of"]

_COUNTER_FILES: Final = ("net/netstat", "net/snmp")
_LISTENER_FILES: Final = ("net/tcp", "net/tcp6")
_LISTEN: Final = "0A"
"""TCP_LISTEN of linux/tcp_states.h, as ``/proc/net/tcp`` prints it."""
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_PROC: Final = Path("/proc")


class Unavailable(Exception):
    """The kernel's figures cannot be read here; the message gives the reason in one sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that holds a socket.

    Args:
        pid: Its number in this PID namespace.
        name: The kernel's short name for it.
        command: Its command line, word by word. Empty where it is hidden.
    """

    pid: int
    name: str
    command: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One look at the kernel.

    Args:
        at: Seconds of a clock that only goes forward.
        counters: By their names in `COUNTERS`, without those that an older kernel lacks.
        listeners: The listening TCP sockets.
        owners: For each port, the visible processes that listen at it.
        sysctls: By their names in `SYSCTLS`, without those that a container hides.
        namespace: The kernel's name for this network namespace; None where it is hidden.
        unseen: A sentence for each thing that cannot be seen from here.
    """

    at: float
    counters: Mapping[str, int]
    listeners: Sequence[Listener]
    owners: Mapping[int, Sequence[Owner]]
    sysctls: Mapping[str, int]
    namespace: str | None
    unseen: Sequence[str]


def look() -> Figures:
    """Ask the kernel. This takes some milliseconds, and a few more where many processes run.

    Raises:
        Unavailable: This is not Linux, or ``/proc`` does not show its counters.
    """
    if sys.platform != "linux":
        raise Unavailable(
            f"The kernel's figures are those of Linux, and this is {sys.platform}: run it where "
            "the server runs."
        )
    found = kernel_figures()
    counters = _counters()
    if found is None or not counters:
        raise Unavailable(
            "/proc/net is hidden here, so the kernel's counters cannot be read: mount /proc, or "
            "run this command outside the container."
        )
    owners, hidden = listening_owners()
    sysctls = _sysctls()
    return Figures(
        at=time.monotonic(),
        counters=counters,
        listeners=found.listeners,
        owners=owners,
        sysctls=sysctls,
        namespace=_namespace(),
        unseen=tuple(_unseen(counters, found.listeners, sysctls, hidden)),
    )


def _counters() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in _COUNTER_FILES:
        # The file is hidden, or no longer has its format of thirty years: the other file may help.
        with contextlib.suppress(OSError, ValueError):
            found |= parse_counters((_PROC / name).read_text("ascii").splitlines())
    return {name: found[name] for name in COUNTERS if name in found}


def parse_counters(lines: Iterable[str]) -> dict[str, int]:
    """Read all counters in a file like ``/proc/net/netstat``.

    Args:
        lines: Its lines, in pairs: first the names, then the values, each after a prefix.

    Raises:
        ValueError: The file has another format.
    """
    found: dict[str, int] = {}
    pairs = iter(lines)
    for names in pairs:
        values = next(pairs, "")
        found |= {
            name: int(value)
            for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
        }
    return found


def _sysctls() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in SYSCTLS:
        path = _PROC / "sys" / name.replace(".", "/")
        with contextlib.suppress(OSError, ValueError):
            found[name] = int(path.read_text("ascii"))
    return found


def _namespace() -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(_PROC / "self" / "ns" / "net")
    return None


def _unseen(
    counters: Mapping[str, int],
    listeners: Sequence[Listener],
    sysctls: Mapping[str, int],
    hidden: Sequence[int],
) -> list[str]:
    said: list[str] = []
    if missing := [name for name in COUNTERS if name not in counters]:
        said.append(f"This kernel does not count {', '.join(missing)}.")
    if missing := [name for name in SYSCTLS if name not in sysctls]:
        said.append(f"{', '.join(missing)} cannot be read here.")
    if any(each.limit is None for each in listeners):
        said.append("The limits of the accept queues cannot be read here: netlink is closed.")
    if hidden:
        ports = ", ".join(map(str, hidden))
        said.append(
            f"Who listens at {ports} cannot be seen: a process of another user (root sees it) "
            "or of another container."
        )
    if in_container():
        said.append(
            "This is a container: resets that the host or another container makes are counted "
            "there, not here."
        )
    return said


def in_container() -> bool:
    """Whether this looks like a container, by the files and variables that the usual ones have."""
    # podman and systemd-nspawn set the lower-case variable.
    if {"KUBERNETES_SERVICE_HOST", "container"} & os.environ.keys():
        return True
    return any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv"))


def listening_owners() -> tuple[dict[int, list[Owner]], list[int]]:
    """Find the processes that listen.

    Returns:
        The processes of each port, and the ports without a visible process.
    """
    ports = _listening_inodes()
    by_port: dict[int, list[Owner]] = {}
    for pid in _pids():
        mine = {ports[inode] for inode in _socket_inodes(pid) if inode in ports}
        if mine and (owner := owner_of(pid)) is not None:
            for port in mine:
                by_port.setdefault(port, []).append(owner)
    return by_port, sorted(set(ports.values()) - set(by_port))


def _listening_inodes() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in _LISTENER_FILES:
        with contextlib.suppress(OSError, ValueError, IndexError), open(_PROC / name) as file:
            next(file, None)
            for line in file:
                fields = line.split()
                # Listening sockets come first, and many others may follow.
                if fields[3] != _LISTEN:
                    break
                found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def _pids() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(_PROC) if name.isdigit())
    except OSError:
        return []


def _socket_inodes(pid: int) -> list[str]:
    found: list[str] = []
    # The process may end at any moment, or belong to somebody else.
    with contextlib.suppress(OSError), os.scandir(_PROC / str(pid) / "fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if match := _SOCKET.fullmatch(os.readlink(entry.path)):
                    found.append(match[1])
    return found


def owner_of(pid: int) -> Owner | None:
    """Describe a process.

    Args:
        pid: Its number, or the number of one of its threads.

    Returns:
        The process; None if it does not exist, or no longer.
    """
    folder = _PROC / str(pid)
    try:
        name = (folder / "comm").read_text("utf-8", "replace").rstrip("\n")
        words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return None
    return Owner(pid=pid, name=name, command=tuple(words[:-1]))
