"""How the rest of a body can be read through a server's ``wsgi.input``, no longer than wanted.

A server's input waits until everything that was asked for is there. The client's socket is below
it. While a body is drained, a stand-in replaces that socket and waits as long as the core says
(decision 0021); anything that it breaks off ends with the connection.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.deliver.draining import Drained
from cleanclose.core.deliver.table import Read, Step
from cleanclose.core.server import Server
from cleanclose.servers._connection import ClientConnection

__all__ = ["drain", "read_ahead"]

PIECE: Final = 256 * 1024
SMALL_PIECE: Final = 16 * 1024

_READ_AHEAD: Final = 64 * 1024
"""Bytes that a server's reader may have taken together with the request's head."""

_NOT_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)


def drain(
    stream: Any, connection: ClientConnection | None, server: Server, drained: Drained
) -> Step:
    """Read and discard the rest of a body, as long as the core wants.

    Args:
        stream: The server's ``wsgi.input``.
        connection: The client's connection; None if it is not in reach: then nothing but the
            client, or the server, ends a reading.
        server: The server.
        drained: Learns of it.

    Returns:
        The first step that is not a `Read`.

    Raises:
        Exception: The server's error for a body that it cannot parse.
    """
    if connection is None:
        return _drain(getattr(stream, "read1", stream.read), SMALL_PIECE, drained)
    if connection.reader is not None:
        return _drain_through_stand_in(stream, connection.sock, connection.reader, drained)
    if server.drain is not None:
        return server.drain(stream, connection.number, drained)
    return drained.nothing_came()


def read_ahead(stream: Any, left: int | None) -> int:
    """Read what came with a request's head, from the server's own buffer; return how much it was.

    Only where the server finds the end behind it (`ClientConnection.end_reading`). Nobody needs the
    error that it may raise for that end.

    Args:
        stream: The server's ``wsgi.input``.
        left: Bytes of the body that are still to come; None if only its end tells.
    """
    if left is None:
        return 0
    try:
        return len(stream.read(min(left, _READ_AHEAD)))
    except Exception:  # noqa: BLE001 - whatever it is, the connection is the lingerer's next
        return 0


def _drain(read: Callable[[int], bytes], piece: int, drained: Drained) -> Step:
    left = drained.left
    while True:
        data = read(piece if left is None else min(left, piece))
        if left is not None:
            left -= len(data)
        at_end = left == 0 or (not data and isinstance(drained.step(), Read))
        step = drained.drained(len(data), at_end=at_end)
        if not isinstance(step, Read):
            return step


def _drain_through_stand_in(
    stream: Any, sock: Any, reader: tuple[Any, str], drained: Drained
) -> Step:
    before = sock.gettimeout()
    setattr(*reader, _Patient(sock, drained))
    try:
        return _drain(stream.read, PIECE, drained)
    except Exception:
        step = drained.step()
        if isinstance(step, Read):
            raise
        # Its reader was not content with an end there.
        return step
    finally:
        setattr(*reader, sock)
        with contextlib.suppress(OSError):
            sock.settimeout(before)


class _Patient:
    """A stand-in for the socket of a server's reader, which asks the core before it waits.

    When nobody waits any longer, it reports the end, so that the reader hands out what it has.
    """

    def __init__(self, sock: Any, drained: Drained) -> None:
        self._sock = sock
        self._drained = drained
        self._seconds: float | None = None

    def recv(self, size: int, *flags: int) -> bytes:
        data: bytes = self._wait(b"", self._sock.recv, size, *flags)
        self._drained.came(len(data))
        return data

    def recv_into(self, buffer: Any, *args: int) -> int:
        size: int = self._wait(0, self._sock.recv_into, buffer, *args)
        self._drained.came(size)
        return size

    def _wait(self, nothing: Any, receive: Callable[..., Any], *args: Any) -> Any:
        step = self._drained.step()
        while isinstance(step, Read):
            if step.at_most_seconds != self._seconds:
                self._seconds = step.at_most_seconds
                self._sock.settimeout(self._seconds)
            try:
                return receive(*args)
            except _NOT_YET:
                step = self._drained.nothing_came()
        return nothing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
