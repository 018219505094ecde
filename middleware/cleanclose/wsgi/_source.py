"""Reading a request's body for nobody, without waiting longer than was asked.

``wsgi.input`` has no time-out, and its ``read(n)`` waits until n bytes are there, be it one a
second. Where the client's socket is in reach, each wait is bounded there; where it is not, the
server's own time-out is the only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import selectors
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, Final, Protocol

__all__ = ["Piece", "Source", "open_source", "readable"]

_PIECE: Final = 64 * 1024
_NOT_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the body arrived, and was or will be discarded.

    Args:
        size: Its length in bytes.
        ended: Whether there is no more to come: the body's end, or the peer's.
    """

    size: int
    ended: bool


class Source(Protocol):
    """Where the rest of a body is read from."""

    def read(self, left: int | None, seconds: float) -> Piece | None:
        """Read and discard a piece.

        Args:
            left: How many bytes of the body are still to come; None if it is chunked.
            seconds: How long to wait for it.

        Returns:
            The piece; None if nothing came in time.

        Raises:
            OSError: The connection failed.
            Exception: Whatever the server raises for a body that it cannot make out.
        """
        ...


def open_source(stream: Any, sock: object, response: object) -> Source:
    """The best way to read from a ``wsgi.input``.

    Args:
        stream: The server's ``wsgi.input``.
        sock: The client's socket as found in the environ, or None.
        response: The server's object behind ``start_response``, or None.
    """
    if not isinstance(sock, socket.socket):
        return _BlindSource(stream)
    unreader = _gunicorn_unreader(stream, response)
    if unreader is not None:
        return _GunicornSource(stream, sock, unreader)
    return _BoundedSource(stream, sock)


class _BlindSource:
    """No socket in reach: one blocking read after the other.

    Each is a small one, so that a slow client is noticed in between.
    """

    def __init__(self, stream: Any) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def read(self, left: int | None, seconds: float) -> Piece | None:
        size = min(left or _PIECE, _PIECE // 4)
        data: bytes = self._read(size)
        return Piece(len(data), ended=len(data) == left or not data)


class _BoundedSource(_BlindSource):
    """A stream of an unknown kind over a known socket: the socket's time-out bounds each wait.

    What a stream is good for after a time-out is not known either, so that is its end.
    """

    def __init__(self, stream: Any, sock: socket.socket) -> None:
        super().__init__(stream)
        self._sock = sock

    def read(self, left: int | None, seconds: float) -> Piece | None:
        with _timeout(self._sock, seconds):
            return super().read(left, seconds)


class _GunicornSource:
    """``gunicorn.http.body.Body``, whose buffered reading ends at a deadline.

    gunicorn receives through ``Unreader.sock``, an attribute of all its versions from 20 to 27.
    For the length of each reading, a stand-in is in its place which gives up in time.
    """

    _LAST_CHUNK: Final = b"0\r\n\r\n"

    def __init__(self, body: Any, sock: socket.socket, unreader: Any) -> None:
        self._body = body
        self._unreader = unreader
        self._sock = sock
        self._patient = _PatientSocket(sock)
        buffered = getattr(unreader, "buf", None)
        self._untold = buffered.tell() if isinstance(buffered, io.BytesIO) else 0
        """Bytes that came with the request's head. Not known to be more than a chunk's framing."""
        self._ahead = 0
        """Bytes that have been told of, and wait in gunicorn's buffer."""
        self._framing_lost = False

    def read(self, left: int | None, seconds: float) -> Piece | None:
        patient = self._patient
        patient.deadline = time.monotonic() + seconds
        received = patient.received
        # The response is written to the same socket, with the time-out that it had.
        with _timeout(self._sock, seconds):
            self._unreader.sock = patient
            try:
                if self._framing_lost:
                    return self._read_raw()
                size = min(left + self._ahead, _PIECE) if left is not None else _PIECE
                data: bytes = self._body.read(size)
            except _NOT_YET:
                # What has arrived stays in gunicorn's buffer, but the reader of a chunked body
                # is a generator, and dead now.
                self._framing_lost = left is None
                return self._told_ahead(patient.received - received + self._untold)
            finally:
                self._unreader.sock = self._sock
        self._untold = 0
        known = min(self._ahead, len(data))
        self._ahead -= known
        ended = len(data) < size or (left is not None and len(data) - known == left)
        return Piece(len(data) - known, ended)

    def _told_ahead(self, size: int) -> Piece | None:
        self._untold = 0
        self._ahead += size
        return Piece(size, ended=False) if size else None

    def _read_raw(self) -> Piece:
        # The framing is lost, and with it the connection; what is left is to see the sender
        # through to what looks like its end.
        data = self._patient.recv(_PIECE)
        at_end = self._patient.tail == self._LAST_CHUNK and not readable(self._sock, 0)
        return Piece(len(data), ended=not data or at_end)


class _PatientSocket:
    """A socket as far as gunicorn's Unreader knows one: recv(), until a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline = 0.0
        self.received = 0
        self.tail = b""

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(max(0.0, self.deadline - time.monotonic()))
        data = self._sock.recv(size)
        self.received += len(data)
        self.tail = (self.tail + data[-5:])[-5:]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _gunicorn_unreader(body: Any, response: object) -> Any:
    """The Unreader of this connection; None if the body is not gunicorn's, or out of reach.

    A chunked body needs the response too: its framing can be lost, and only the response can
    close the connection then.
    """
    if type(body).__module__ != "gunicorn.http.body":
        return None
    unreader = getattr(getattr(response, "req", None), "unreader", None)
    if unreader is None:
        unreader = getattr(getattr(body, "reader", None), "unreader", None)
    return unreader if hasattr(unreader, "sock") else None


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether a socket has something to read, or its end, within so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(seconds))


@contextlib.contextmanager
def _timeout(sock: socket.socket, seconds: float) -> Generator[None]:
    before = sock.gettimeout()
    sock.settimeout(seconds)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(before)
