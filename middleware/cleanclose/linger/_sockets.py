"""A connection's descriptor and the operations on it, none of which waits."""

from __future__ import annotations

import _socket
import contextlib
import os
import socket
import sys
from typing import Final

from cleanclose.core.kernel import tcp_info

__all__ = ["PIECE", "SUPPORTED", "WORTH_WAKING", "Descriptor"]

SUPPORTED: Final = hasattr(socket, "MSG_DONTWAIT")
"""Whether a shared descriptor can be duplicated, and read without making it non-blocking for
everybody. Not on Windows."""

PIECE: Final = 1024 * 1024
"""Bytes that one read discards at most, so that each connection gets its turn."""

WORTH_WAKING: Final = 16 * 1024
"""Bytes that must have come before the kernel wakes a thread for them. It is a small part of the
smallest receive window, so that a sender at full speed never waits for it."""

# tcp(7): Linux discards the bytes without copying them.
_FLAGS: Final[int] = getattr(socket, "MSG_DONTWAIT", 0) | (
    socket.MSG_TRUNC if sys.platform == "linux" else 0
)
_NOTHING: Final = bytearray(PIECE)
# With this flag Python's socket has no time-out of its own. Without it `socket.setdefaulttimeout`
# would make the connection non-blocking, for the server that shares it as well.
_HAS_FLAG: Final = hasattr(socket, "SOCK_NONBLOCK")
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
_TYPE: Final[int] = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


class Descriptor:
    """A descriptor of our own for a connection, which the server may have under another number.

    It uses `_socket` directly: the patched sockets of gevent and eventlet would wait.

    Args:
        number: The descriptor, which is this object's from now on.
    """

    __slots__ = ("_identity", "_sock")

    def __init__(self, number: int) -> None:
        status = os.fstat(number)
        self._identity = status.st_dev, status.st_ino
        if _HAS_FLAG:
            self._sock = _socket.socket(-1, _TYPE, -1, number)
            return
        blocking = os.get_blocking(number)
        self._sock = _socket.socket(-1, _TYPE, -1, number)
        if os.get_blocking(number) is not blocking:
            os.set_blocking(number, blocking)

    @classmethod
    def of(cls, number: int) -> Descriptor:
        """Duplicate a connection's descriptor.

        Raises:
            OSError: None is left, or the number does not belong to an open socket.
        """
        copy = os.dup(number)
        try:
            return cls(copy)
        except OSError:
            os.close(copy)
            raise

    @property
    def sock(self) -> _socket.socket:
        """The socket, for questions to the kernel."""
        return self._sock

    def fileno(self) -> int:
        """The number, for a selector."""
        return self._sock.fileno()

    def address(self) -> str | None:
        """The peer's address; None if the connection is gone."""
        try:
            name: object = self._sock.getpeername()
        except OSError:
            return None
        return str(name[0]) if isinstance(name, tuple) and name else None  # pyright: ignore[reportUnknownArgumentType]

    def is_held_as(self, number: int) -> bool:
        """Whether a number is still a descriptor of this connection.

        A socket's inode is its own for as long as one descriptor of it is open (ours is).
        """
        try:
            status = os.fstat(number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def discard(self) -> int | None:
        """Discard what has arrived, `PIECE` bytes at most.

        Returns:
            The number of bytes; 0 at the peer's end; None if nothing has arrived.

        Raises:
            OSError: The connection is gone.
        """
        try:
            return self._sock.recv_into(_NOTHING, PIECE, _FLAGS)
        except BlockingIOError:
            return None

    def wake_for_much(self) -> None:
        """Let a selector see the connection only when `WORTH_WAKING` bytes have come, or its end.

        For TCP on Linux alone, which also wakes when the receive window is full: elsewhere a sender
        of small pieces might wait for us to read, and we for it to send. On a UNIX socket a read of
        fewer bytes would take the error of a reset with it.
        """
        if sys.platform == "linux" and self._sock.family in _TCP:
            # The sandbox may not know the option.
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WORTH_WAKING)

    def silent_for(self) -> float:
        """Seconds since something has come; 0 if the kernel does not say."""
        info = tcp_info(self._sock)
        return 0.0 if info is None or info.unheard_for is None else info.unheard_for

    def shut_down(self) -> None:
        """Shut down the sending side (RFC 9112, section 9.6)."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # The peer was faster.
            return

    def give_up(self) -> None:
        """Leave the number to its earlier owner."""
        self._sock.detach()

    def close(self) -> None:
        """Close it. May be called more than once."""
        self._sock.close()
