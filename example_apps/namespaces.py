"""A network namespace of one's own: its counters and its settings are nobody else's."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

if sys.platform == "linux":
    import fcntl

__all__ = ["bring_loopback_up", "namespace_command", "set_sysctl"]

_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


def namespace_command() -> tuple[str, ...] | None:
    """The words in front of a command that give it a network namespace; None if not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    for command in ((unshare, "--net"), (unshare, "--user", "--map-root-user", "--net")):
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
            return command
    return None


def bring_loopback_up() -> None:
    """What ``ip link set lo up`` does, without that program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def set_sysctl(name: str, value: int) -> None:
    """Change a setting of the kernel for this network namespace."""
    Path("/proc/sys", *name.split(".")).write_text(str(value))
