"""Reading a request's body for nobody, without waiting longer than was asked.

``wsgi.input`` has no time-out, and its ``read(n)`` waits until n bytes are there, be it one a
second. Where the client's socket is in reach, each wait is bounded there; where it is not, the
server's own time-out is the only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, Final, Protocol

__all__ = ["Nothing", "Piece", "Source", "open_source"]

_PIECE: Final = 64 * 1024
_NOT_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the body was read and discarded.

    Args:
        size: Its length in bytes.
        ended: Whether there is no more to read: the body's end, or the peer's.
    """

    size: int
    ended: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing could be read in time.

    Args:
        moving: Whether bytes have arrived meanwhile, too few to be read.
    """

    moving: bool


class Source(Protocol):
    """Where the rest of a body is read from."""

    def read(self, left: int | None, seconds: float) -> Piece | Nothing:
        """Read and discard a piece.

        Args:
            left: How many bytes of the body are left; None if it is chunked.
            seconds: How long to wait for it.

        Raises:
            OSError: The connection failed.
            Exception: Whatever the server raises for a body that it cannot make out.
        """
        ...

    def finish(self, *, close: bool) -> None:
        """There will be no more reading.

        Args:
            close: Whether the connection must not be used again.
        """
        ...


def open_source(stream: Any, sock: object, response: object) -> Source:
    """The best way to read from a ``wsgi.input``.

    Args:
        stream: The server's ``wsgi.input``.
        sock: The client's socket as found in the environ, or None.
        response: The server's object behind ``start_response``, or None.
    """
    if isinstance(sock, socket.socket):
        unreader = _gunicorn_unreader(stream, response)
        if unreader is not None:
            return _GunicornSource(stream, sock, unreader)
        if hasattr(stream, "read1") and not isinstance(sock, ssl.SSLSocket):
            return _BufferedSource(stream, sock)
    return _BlindSource(stream)


class _BlindSource:
    """No socket in reach: one blocking read after the other.

    Each is a small one, so that a slow client is noticed in between.
    """

    def __init__(self, stream: Any) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def read(self, left: int | None, seconds: float) -> Piece | Nothing:
        size = min(left or _PIECE, _PIECE // 4)
        data: bytes = self._read(size)
        return Piece(len(data), ended=len(data) == left or not data)

    def finish(self, *, close: bool) -> None:
        pass


class _BufferedSource:
    """An `io.BufferedReader` over the socket, as servers made from socketserver have it."""

    def __init__(self, stream: Any, sock: socket.socket) -> None:
        self._stream = stream
        self._sock = sock

    def read(self, left: int | None, seconds: float) -> Piece | Nothing:
        size = min(left or _PIECE, _PIECE)
        # Not a socket time-out: after one of those, SocketIO refuses to read ever again.
        with _timeout(self._sock, 0):
            data = self._read1(size)
            if data is None:
                if not _readable(self._sock, seconds):
                    return Nothing(moving=False)
                data = self._read1(size) or b""
        return Piece(len(data), ended=len(data) == left or not data)

    def finish(self, *, close: bool) -> None:
        pass

    def _read1(self, size: int) -> bytes | None:
        readable = _readable(self._sock, 0)
        data: bytes | None = self._stream.read1(size)
        # No data although the socket was readable: the end of the stream.
        return data if data or readable else None


class _GunicornSource:
    """``gunicorn.http.body.Body``, whose buffered reading ends at a deadline.

    gunicorn receives through ``Unreader.sock``, an attribute of all its versions from 20 to 27.
    For as long as the discarding lasts, a stand-in is in its place which gives up in time.
    """

    _LAST_CHUNK: Final = b"0\r\n\r\n"

    def __init__(self, body: Any, sock: socket.socket, unreader: Any) -> None:
        self._body = body
        self._unreader = unreader
        self._sock = sock
        self._before: float | None = sock.gettimeout()
        self._patient = _PatientSocket(sock)
        self._raw = False
        self._tail = b""
        unreader.sock = self._patient

    def read(self, left: int | None, seconds: float) -> Piece | Nothing:
        patient = self._patient
        received = patient.received
        patient.deadline = time.monotonic() + seconds
        if self._raw:
            return self._read_raw()
        size = min(left or _PIECE, _PIECE)
        try:
            data: bytes = self._body.read(size)
        except _NOT_YET:
            # What has arrived stays in gunicorn's buffer, but the reader of a chunked body is
            # a generator, and dead now.
            self._raw = left is None
            return Nothing(moving=patient.received > received)
        return Piece(len(data), ended=len(data) == left or len(data) < size)

    def finish(self, *, close: bool) -> None:
        if close:
            # A read that fails is how gunicorn learns that a connection cannot be kept;
            # Parser.finish_body would else wait 5 s for the rest.
            self._patient.closed = True
            with contextlib.suppress(Exception):
                while self._body.read(_PIECE):
                    pass
        self._unreader.sock = self._sock
        with contextlib.suppress(OSError):
            self._sock.settimeout(self._before)

    def _read_raw(self) -> Piece | Nothing:
        # The framing is lost, and with it the connection; what is left is to see the sender
        # through to what looks like its end.
        try:
            data = self._patient.recv(_PIECE)
        except _NOT_YET:
            return Nothing(moving=False)
        self._tail = (self._tail + data[-len(self._LAST_CHUNK) :])[-len(self._LAST_CHUNK) :]
        at_end = self._tail == self._LAST_CHUNK and not _readable(self._sock, 0)
        return Piece(len(data), ended=not data or at_end)


class _PatientSocket:
    """A socket as far as gunicorn's Unreader knows one: recv(), until a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline = 0.0
        self.received = 0
        self.closed = False

    def recv(self, size: int) -> bytes:
        if self.closed:
            raise TimeoutError
        self._sock.settimeout(max(0.0, self.deadline - time.monotonic()))
        data = self._sock.recv(size)
        self.received += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _gunicorn_unreader(body: Any, response: object) -> Any:
    """The Unreader of this connection; None if the body is not gunicorn's."""
    if type(body).__module__ != "gunicorn.http.body":
        return None
    # ChunkedReader has it only inside its generator; the request behind the response always.
    for holder in (getattr(body, "reader", None), getattr(response, "req", None)):
        unreader = getattr(holder, "unreader", None)
        if hasattr(unreader, "sock"):
            return unreader
    return None


def _readable(sock: socket.socket, seconds: float) -> bool:
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
        sock.settimeout(before)
