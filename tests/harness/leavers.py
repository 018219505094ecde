"""Clients that leave: by a reset or in good order, at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Generator
from typing import Final, Literal, NamedTuple

from tests.harness.waiting import LIMIT, until

__all__ = ["How", "connected", "leave", "leave_at", "request", "until_read"]

How = Literal["rst", "fin"]

_LINGER_0: Final = struct.pack("ii", 1, 0)
_ESTABLISHED: Final = 1
"""TCP_ESTABLISHED of net/tcp_states.h."""
_OPEN: Final = (_ESTABLISHED, 8)
"""The same and TCP_CLOSE_WAIT: not closed by the server."""
_SOCK_DIAG: Final = 4
"""NETLINK_SOCK_DIAG of linux/netlink.h."""
_BY_FAMILY: Final = 20
"""SOCK_DIAG_BY_FAMILY of linux/sock_diag.h."""
_REQUEST: Final = 1
"""NLM_F_REQUEST of linux/netlink.h."""
_ALL: Final = 0xFFFFFFFF
"""All states; no cookie (INET_DIAG_NOCOOKIE)."""
_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr."""
_QUERY: Final = struct.Struct("=BBxxI2s2s4s12x4s12x4xII")
"""struct inet_diag_req_v2 of linux/inet_diag.h, for one socket."""
_ANSWER: Final = struct.Struct("=xB2x48x4xI4x4xI")
"""State, rqueue and inode of struct inet_diag_msg."""


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
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    try:
        yield sock
    finally:
        sock.close()


def leave(sock: socket.socket, how: How) -> None:
    """Close the connection, with a reset or with a FIN, and see it arrive at the other end.

    Args:
        sock: A connection within this machine.
        how: How to leave.

    Raises:
        AssertionError: The other end's kernel never noticed.
    """
    ends = _ends(sock)
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    sock.close()
    until(lambda: _noticed(ends), "the other end has not noticed that this one left")


def until_read(sock: socket.socket) -> None:
    """Wait until the server has read what was sent.

    A reset throws away what it has not read, the request's head as well: to a server that was busy
    for as long as the client was there, such a client has never come.

    Args:
        sock: A connection to a server on 127.0.0.1. Not on Linux, nothing is waited for: the
            others cannot be asked about a server's end.

    Raises:
        AssertionError: It has not read it, or has not even accepted the connection.
    """
    ends = _ends(sock)
    until(lambda: _is_read(ends), lambda: f"the server has not read it: {_other_end(ends)}")


class _Ends(NamedTuple):
    here: tuple[str, int]
    there: tuple[str, int]


def _is_read(ends: _Ends | None) -> bool:
    found = _other_end(ends)
    return found is None or found.state not in _OPEN or (found.inode != 0 and found.unread == 0)


def _noticed(ends: _Ends | None) -> bool:
    found = _other_end(ends)
    return found is None or found.state != _ESTABLISHED


def _ends(sock: socket.socket) -> _Ends | None:
    """Both addresses; None where nobody can be asked about them."""
    if sock.family != socket.AF_INET or not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        return _Ends(sock.getsockname(), sock.getpeername())
    except OSError:
        # The other end has reset it.
        return None


class _End(NamedTuple):
    state: int
    unread: int
    inode: int


def _other_end(ends: _Ends | None) -> _End | None:
    """The other end of a connection within this machine, as sock_diag(7) has it."""
    if ends is None:
        return None
    (here, port), (there, other_port) = ends
    header = _HEADER.pack(_HEADER.size + _QUERY.size, _BY_FAMILY, _REQUEST, 0, 0)
    query = _QUERY.pack(
        *(socket.AF_INET, socket.IPPROTO_TCP, _ALL),
        *(other_port.to_bytes(2), port.to_bytes(2)),
        *(socket.inet_aton(there), socket.inet_aton(here), _ALL, _ALL),
    )
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as netlink:
            netlink.send(header + query)
            answer = netlink.recv(4096)
    except OSError:
        # Not every sandbox has it.
        return None
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    return _End(*_ANSWER.unpack_from(answer, _HEADER.size))


def leave_at(
    port: int,
    head: bytes,
    how: How,
    *,
    body: bytes = b"",
    read: int = 0,
    once: Callable[[], bool] | None = None,
) -> None:
    """Send, wait until that is read, or for the first bytes of the response, and leave.

    Args:
        port: The server's port.
        head: The request's head.
        how: How to leave.
        body: The part of the body that is sent.
        read: How many bytes of the response to read before.
        once: What has to be so before, besides: that a handler works, for example.
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
        if once is not None:
            until(once, "what this client waits for never came")
        leave(sock, how)
