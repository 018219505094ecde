"""Clients that leave: by a reset or in good order, at a chosen moment."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final, Literal

__all__ = ["How", "connected", "leave", "leave_at", "request", "until_read"]

How = Literal["rst", "fin"]

_LINGER_0: Final = struct.pack("ii", 1, 0)
_CONNECTIONS: Final = Path("/proc/net/tcp")
_OPEN: Final = ("01", "08")
"""TCP_ESTABLISHED and TCP_CLOSE_WAIT of net/tcp_states.h: not closed by the server."""
_EVERY: Final = 0.02
"""Seconds between two looks at them."""
_UNREAD_FOR: Final = 5.0
"""Seconds after which a server is taken to want no more than it has read."""
_UNACCEPTED_FOR: Final = 20.0


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


def until_read(sock: socket.socket) -> None:
    """Wait until the server has read what was sent, or some of it if it wants no more.

    A reset throws away what it has not read, the request's head as well: to a server that was busy
    for as long as the client was there, such a client has never come.

    Args:
        sock: A connection to a server on 127.0.0.1. Not on Linux, nothing is waited for.

    Raises:
        AssertionError: It has not accepted the connection.
    """
    began = time.monotonic()
    while (waits := _waiting_for_the_server(sock)) is not None:
        waited = time.monotonic() - began
        if waits == "read" and waited > _UNREAD_FOR:
            return
        assert waited < _UNACCEPTED_FOR, "the server has not even accepted the connection"
        time.sleep(_EVERY)


def _waiting_for_the_server(sock: socket.socket) -> Literal["accept", "read"] | None:
    if not _CONNECTIONS.exists():
        return None
    here, there = (_in_hex(address) for address in (sock.getsockname(), sock.getpeername()))
    _, found, rest = _all_connections(int(time.monotonic() / _EVERY)).partition(f"{there} {here} ")
    if not found:
        return None
    state, queues, _, _, _, _, inode, *_ = rest.partition("\n")[0].split()
    if state not in _OPEN:
        return None
    if inode == "0":
        return "accept"
    return "read" if int(queues.partition(":")[2], 16) else None


@functools.lru_cache(maxsize=1)
def _all_connections(moment: int) -> str:
    # Once for all clients: thousands of closed connections stand in it as well.
    return _CONNECTIONS.read_text()


def _in_hex(address: tuple[str, int]) -> str:
    # get_tcp4_sock in net/ipv4/tcp_ipv4.c: the address as the machine has it, the port as it is.
    return f"{int.from_bytes(socket.inet_aton(address[0]), sys.byteorder):08X}:{address[1]:04X}"


def leave_at(
    port: int, head: bytes, how: How, *, body: bytes = b"", after: float = 0.2, read: int = 0
) -> None:
    """Send, wait for a moment or for the first bytes of the response, and leave.

    Args:
        port: The server's port.
        head: The request's head.
        how: How to leave.
        body: The part of the body that is sent.
        after: Seconds between the last byte that was read, by the server or here, and the leaving.
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
        until_read(sock)
        time.sleep(after)
        leave(sock, how)
