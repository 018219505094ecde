"""The client's connection below a server's ``wsgi.input``, and reading no longer than is wanted.

What a server lets an application read waits until all of it is there. Below it is a file over
the client's socket, or a file descriptor; they tell what has arrived, and no more is asked for.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import operator
import re
import select
import ssl
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from cleanclose.core import Server, cooperates_with
from cleanclose.wsgi._source import Piece, Source, readable

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Line", "find_line", "finish_chunks", "open_line", "sleep_of"]

_PIECE: Final = 64 * 1024
_SMALL_PIECE: Final = 16 * 1024
_AT_ONCE: Final = 1024 * 1024
"""Bytes that one reading may take in. cheroot reads a chunk as a whole, however long it is."""
_NOT_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_FIELD: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:")
"""RFC 9112, section 5: a field line begins with a token and a colon."""
_UWSGI_BUFFER: Final = 4096
"""uWSGI's buffer-size, by default: as much of a body can have come with the request's head."""


class Line(Protocol):
    """The client's connection, as far as waiting goes."""

    greenlets: bool
    """Whether it is one of gevent's or eventlet's, which serve each request in a greenlet."""

    def wait(self, seconds: float) -> bool:
        """Whether there is something to read, or the end, within so many seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let the time pass; nothing is read."""
        ...


class _SocketLine:
    """A socket, which may be one of gevent's."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        package = cooperates_with(sock)
        # The server has imported it.
        self._package: Any = sys.modules.get(package) if package else None
        self.greenlets = self._package is not None

    def wait(self, seconds: float) -> bool:
        if self._package is None:
            return readable(self.sock, seconds)
        try:
            self._package.socket.wait_read(self.sock.fileno(), timeout=seconds)
        except TimeoutError:
            return False
        return True

    def sleep(self, seconds: float) -> None:
        if self._package is None:
            time.sleep(seconds)
        else:
            self._package.sleep(seconds)


class _DescriptorLine:
    """A file descriptor that belongs to the server."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.greenlets = False

    def wait(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def find_line(environ: dict[str, Any], server: Server) -> Line | None:
    """The client's connection, if it is in reach.

    Args:
        environ: The environ, with the server's own ``wsgi.input``.
        server: What is special about the server.
    """
    sock: Any = None
    if server.socket_key is not None:
        sock = environ.get(server.socket_key)
    elif server.input_socket is not None:
        with contextlib.suppress(AttributeError):
            sock = operator.attrgetter(server.input_socket)(environ["wsgi.input"])
    elif server.descriptor is not None:
        module, _, name = server.descriptor.rpartition(".")
        # Not a package: the server puts it there, in its own processes.
        if module in sys.modules:
            descriptor: object = getattr(importlib.import_module(module), name, int)()
            if isinstance(descriptor, int) and descriptor > 0 and hasattr(select, "poll"):
                return _DescriptorLine(descriptor)
    if hasattr(sock, "settimeout") and hasattr(sock, "fileno"):
        return _SocketLine(sock)
    return None


def open_line(
    stream: Any, line: Line, *, chunked: bool, expected: bool, lost: Callable[[], None]
) -> Source | None:
    """The way to read from a ``wsgi.input`` whose layers are known; None if they are not.

    Args:
        stream: The server's ``wsgi.input``.
        line: The client's connection.
        chunked: Whether the body's length is known from its end only.
        expected: Whether the client has announced that it waits for a 100.
        lost: Called when the connection is of no more use, because nobody knows where on it the
            body's framing goes on.
    """
    if isinstance(line, _DescriptorLine):
        return _DescriptorSource(stream, line, expected=expected)
    if not isinstance(line, _SocketLine):
        return None
    file = _file_below(stream)
    if file is None or file.raw._sock is not line.sock:
        return None
    if hasattr(stream, "send_100_continue_enabled"):
        # gevent's, as its own Input._discard does: nobody wants the body that it would call for.
        stream.send_100_continue_enabled = False
    if chunked:
        return _ChunkedSource(stream, file, line, lost)
    return _ArrivedSource(stream, file, line)


def finish_chunks(stream: Any, trailers: str, line: Line | None, seconds: float) -> bool:
    """Read what follows the last chunk of a body that has been read to its end.

    Args:
        stream: The server's ``wsgi.input``.
        trailers: The name of its method for that.
        line: The client's connection.
        seconds: How long to wait for it.

    Returns:
        Whether nothing of the body is left in front of the next request.
    """
    file = _file_below(stream)
    if not getattr(stream, "closed", False) or file is None or not isinstance(line, _SocketLine):
        return False
    try:
        if not file.peek(1)[:1] and not line.wait(seconds):
            return False
        with _deadline(file, line, seconds):
            # One which is no field could be the next request's beginning.
            return all(_FIELD.match(field) for field in getattr(stream, trailers)())
    except Exception:  # noqa: BLE001 - whatever it is, the connection is of no more use
        return False


def _file_below(stream: Any) -> Any:
    """The buffered file over the socket that a ``wsgi.input`` reads from; None if there is none."""
    for file in (stream, getattr(stream, "rfile", None), getattr(stream, "_rfile", None)):
        if hasattr(file, "peek") and hasattr(getattr(file, "raw", None), "_sock"):
            return file
    return None


class _ArrivedSource:
    """A body with a Content-Length: no more is read than has arrived."""

    def __init__(self, stream: Any, file: Any, line: _SocketLine) -> None:
        self._stream = stream
        self._file = file
        self._line = line
        self._sock = line.sock

    def read(self, left: int | None, seconds: float) -> Piece | None:
        size = self._arrived(ready=False)
        if size == 0:
            if not self._line.wait(seconds):
                return None
            size = self._arrived(ready=True)
            if size == 0:
                return None
        if size is None:
            return Piece(0, ended=True)
        size = min(size, _PIECE if left is None else min(left, _PIECE))
        data: bytes = self._stream.read(size)
        return Piece(len(data), ended=len(data) == left or not data)

    def _arrived(self, *, ready: bool) -> int | None:
        """Bytes that can be read without waiting; None at the end."""
        # Not a socket time-out: after one of those, SocketIO refuses to read ever again.
        with _timeout(self._sock, 0):
            try:
                size = len(self._file.peek(1))
            except _NOT_YET:
                return 0
        tls = hasattr(self._sock, "pending")
        size += self._sock.pending() if tls else _arrived(self._sock.fileno())
        # TLS raises where there is nothing yet; what a plain socket has not, it would not have
        # been ready for.
        return None if size == 0 and (tls or ready) else size


class _ChunkedSource:
    """A chunked body, which the server takes apart: its waits end at a deadline.

    When one has ended there, nobody knows in which part of the framing. What is left is to see
    the sender through to what looks like the body's end; the connection is of no more use.
    """

    def __init__(self, stream: Any, file: Any, line: _SocketLine, lost: Callable[[], None]) -> None:
        self._stream = stream
        self._file = file
        self._line = line
        self._lost = lost
        self._tail = b""
        self._framing_lost = False

    def read(self, left: int | None, seconds: float) -> Piece | None:
        if self._framing_lost:
            return self._read_raw(seconds)
        with _deadline(self._file, self._line, seconds) as patient:
            try:
                # Not more: what it waits for must have come before the deadline.
                data: bytes = self._stream.read(_SMALL_PIECE)
            except _LateError:
                self._framing_lost = True
                self._lost()
                self._tail = patient.tail
                return Piece(patient.received, ended=False) if patient.received else None
        return Piece(len(data), ended=len(data) < _SMALL_PIECE)

    def _read_raw(self, seconds: float) -> Piece | None:
        if not self._line.wait(seconds):
            return None
        with _timeout(self._line.sock, 0):
            try:
                data = self._line.sock.recv(_PIECE)
            except _NOT_YET:
                return None
        self._tail = (self._tail + data[-5:])[-5:]
        at_end = self._tail == _LAST_CHUNK and not self._line.wait(0)
        return Piece(len(data), ended=not data or at_end)


class _DescriptorSource:
    """A body with a Content-Length below a file descriptor: uWSGI's.

    What came together with the request's head is in uWSGI's own buffer, of which nobody is told.
    It is read first, with what has arrived behind it. Only a body that may be in there as a whole
    is asked for without knowing; there uWSGI's socket-timeout (4 s) ends the wait.
    """

    def __init__(self, stream: Any, line: _DescriptorLine, *, expected: bool) -> None:
        self._stream = stream
        self._line = line
        # Who waits for a 100 has sent nothing with the head.
        self._untold = 0 if expected else _UWSGI_BUFFER

    def read(self, left: int | None, seconds: float) -> Piece | None:
        untold, self._untold = self._untold, 0
        size = _arrived(self._line.descriptor)
        if size == 0 and left is not None and left <= untold:
            size = left
        elif size == 0:
            if not self._line.wait(seconds):
                return None
            size = _arrived(self._line.descriptor)
            if size == 0:
                return Piece(0, ended=True)
        size = min(size, _PIECE if left is None else min(left, _PIECE))
        data: bytes = self._stream.read(size)
        return Piece(len(data), ended=len(data) == left or not data)


class _LateError(Exception):
    """A reading takes too long, or too much in. No OSError: SocketIO has its own way with those."""


class _PatientSocket:
    """A socket as far as a SocketIO knows one: recv_into(), until a deadline."""

    def __init__(self, sock: Any, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self.received = 0
        self.tail = b""

    def recv_into(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        self._sock.settimeout(max(0.0, left))
        if self.received > _AT_ONCE:
            raise _LateError
        try:
            size: int = self._sock.recv_into(buffer)
        except _NOT_YET:
            raise _LateError from None
        self.received += size
        self.tail = (self.tail + bytes(buffer[max(0, size - 5) : size]))[-5:]
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@contextlib.contextmanager
def _deadline(file: Any, line: _SocketLine, seconds: float) -> Generator[_PatientSocket]:
    """Let a stand-in be the file's socket (decision 0006)."""
    raw = file.raw
    patient = _PatientSocket(line.sock, time.monotonic() + seconds)
    with _timeout(line.sock, seconds):
        raw._sock = patient
        try:
            yield patient
        finally:
            raw._sock = line.sock


def _arrived(descriptor: int) -> int:
    """Bytes that the kernel has for a reader."""
    if sys.platform == "win32":
        # What the file has taken in is all that is known to be there.
        return 0
    size = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, size)
    return size[0]


@contextlib.contextmanager
def _timeout(sock: Any, seconds: float) -> Generator[None]:
    before = sock.gettimeout()
    sock.settimeout(seconds)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(before)


def sleep_of(line: Line | None) -> Callable[[float], None]:
    """How to let time pass on a server."""
    return time.sleep if line is None else line.sleep
