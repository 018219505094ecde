"""Real connections whose kernel can be asked about them."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from cleanclose.core.kernel import (
    KernelFigures,
    kernel_figures,
)

# The states of /proc/net/tcp.
_ESTABLISHED: Final = "01"
_LISTENS: Final = "0A"

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")


def figures() -> KernelFigures:
    found = kernel_figures()
    assert found is not None
    return found


@contextlib.contextmanager
def listening(backlog: int = 8, family: int = socket.AF_INET) -> Generator[socket.socket]:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen(backlog)
        yield listener


@contextlib.contextmanager
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end, and the server's."""
    with listening() as listener:
        client = socket.create_connection(listener.getsockname(), timeout=10)
        server, _ = listener.accept()
    with client, server:
        yield client, server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def unread_at(port: int) -> int:
    """The bytes that have arrived at connections to a port of 127.0.0.1, and that nobody has read.

    Those of connections that nobody has accepted count, too.
    """
    # proc(5): tx_queue:rx_queue.
    return sum(int(row[4].partition(":")[2], 16) for row in _connections(port))


def connections_at(port: int) -> int:
    """How many connections to a port of 127.0.0.1 there are, accepted or not."""
    return sum(row[3] == _ESTABLISHED for row in _connections(port))


def _connections(port: int) -> list[list[str]]:
    local = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if row[1] == local and row[3] != _LISTENS]
