"""Real connections whose kernel can be asked about them."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Generator

import pytest

from cleanclose.core.kernel import (
    KernelFigures,
    kernel_figures,
)

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
