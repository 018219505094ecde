"""Clients that leave: by a reset or in good order, at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Generator
from typing import Final, Literal

__all__ = ["How", "connected", "leave", "leave_at", "request"]

How = Literal["rst", "fin"]

_LINGER_0: Final = struct.pack("ii", 1, 0)


def request(
    method: str, path: str, *, length: int | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """A request's head.

    Args:
        method: The method.
        path: The path.
        length: The announced length of its body; None for no body.
        headers: More headers.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.contextmanager
def connected(port: int) -> Generator[socket.socket]:
    """A connection to a server on this port."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        yield sock
    finally:
        sock.close()


def leave(sock: socket.socket, how: How) -> None:
    """Close the connection: with a reset, or with a FIN."""
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    sock.close()


def leave_at(
    port: int, head: bytes, how: How, *, body: bytes = b"", after: float = 0.2, read: int = 0
) -> None:
    """Send, wait for a moment or for the first bytes of the response, and leave.

    Args:
        port: The server's port.
        head: The request's head.
        how: How to leave.
        body: The part of the body that is sent.
        after: Seconds between the last byte sent, or read, and the leaving.
        read: How many bytes of the response to read before.
    """
    with connected(port) as sock:
        sock.sendall(head + body)
        left = read
        while left > 0:
            data = sock.recv(min(left, 65536))
            if not data:
                break
            left -= len(data)
        time.sleep(after)
        leave(sock, how)
