"""The client's connection below ``wsgi.input``: to read no longer than wanted, and to let go.

A server's input waits until everything that was asked for is there. The client's socket is below
it. While a body is drained, a stand-in replaces that socket and waits as long as the core says
(decision 0021); anything that it breaks off ends with the connection.
"""

from __future__ import annotations

import array
import contextlib
import os
import re
import select
import selectors
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from cleanclose.core.deliver.table import Read, Step
from cleanclose.core.events import Mechanism
from cleanclose.core.server import Server
from cleanclose.linger import descriptor_of
from cleanclose.servers import (
    MISSING,
    client_descriptor,
    client_socket,
    cooperates_with,
    find,
    plain_socket,
    reader_below,
)

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = [
    "ClientConnection",
    "Drained",
    "drain",
    "find_connection",
    "has_rest_of_chunks",
    "how_gone",
    "readable",
]

PIECE: Final = 256 * 1024
SMALL_PIECE: Final = 16 * 1024
UWSGI_BUFFER: Final = 4096
"""uWSGI's buffer-size, by default: as much of a body can have come with the request's head."""

_FIELD: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:")
"""RFC 9112, section 5: a field line begins with a token and a colon."""
_NOT_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)


class Drained(Protocol):
    """Learns what a drain brings, and says how it goes on."""

    @property
    def left(self) -> int | None:
        """Bytes of the body that are still to come; None if only its end tells its length."""
        ...

    def step(self) -> Step:
        """The next step."""
        ...

    def came(self, size: int) -> Step:
        """So many bytes have come from the client, and no reading has returned with them yet."""
        ...

    def drained(self, size: int, *, at_end: bool) -> Step:
        """A reading has returned with so many bytes; ``at_end`` if it found the stream's end."""
        ...

    def nothing_came(self) -> Step:
        """The time is over."""
        ...


class ClientConnection:
    """The client's connection, as far as it is in reach.

    Args:
        sock: Its socket; None where there is only a number.
        number: Its descriptor.
        reader: The object that reads the body from that socket, and the name of the attribute
            which holds it; None if that is not known.
    """

    def __init__(self, sock: Any, number: int, reader: tuple[Any, str] | None) -> None:
        self.sock = sock
        self.number = number
        self.reader = reader

    def is_peer(self, address: object, port: object) -> bool:
        """Whether the client itself is at the other end, and not somebody who relays it.

        Args:
            address: The client's, as the server has it.
            port: The client's; None if the server does not give it.
        """
        try:
            with socket.socket(fileno=os.dup(self.number)) as same:
                peer: Any = same.getpeername()
        except OSError:
            return False
        # A path, on a socket of the file system.
        if isinstance(peer, str):
            return False
        return peer[0] == address and port in (None, str(peer[1]))

    @property
    def greenlets(self) -> bool:
        """Whether it is one of gevent's or eventlet's, which serve each request in a greenlet."""
        return cooperates_with(self.sock) is not None

    def end_reading(self) -> bool:
        """Make the server find the stream's end, because it reads on by itself before it closes.

        Returns:
            Whether it will.
        """
        if self.reader is None:
            return False
        setattr(*self.reader, _Ended(self.sock))
        return True

    def take_away(self, *, closes: bool) -> None:
        """Take the connection, which has a duplicate, away from the server.

        Args:
            closes: Whether the server will close it now. If not, it gets one in its place that
                the peer has closed.
        """
        if self.sock is None:
            return
        if closes:
            number: int = self.sock.detach()
            if number >= 0:
                os.close(number)
        elif self.sock.fileno() == self.number:
            here, there = socket.socketpair()
            with here, there:
                there.close()
                os.dup2(here.fileno(), self.number)


def find_connection(
    environ: dict[str, Any], stream: Any, server: Server
) -> ClientConnection | None:
    """The client's connection, if it is in reach.

    Args:
        environ: The environ.
        stream: The server's own ``wsgi.input``.
        server: The server.
    """
    descriptor = client_descriptor(server)
    if descriptor is not None:
        return ClientConnection(None, descriptor, None)
    sock = client_socket(environ, stream, server)
    number = descriptor_of(sock)
    if number is None or not hasattr(sock, "settimeout") or not hasattr(sock, "detach"):
        return None
    return ClientConnection(sock, number, reader_below(stream, server, sock))


def drain(stream: Any, connection: ClientConnection | None, drained: Drained) -> Step:
    """Read and discard the rest of a body, as long as the core wants.

    Args:
        stream: The server's ``wsgi.input``.
        connection: The client's connection; None if it is not in reach: then nothing but the
            client, or the server, ends a reading.
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
    if connection.sock is None and sys.platform != "win32":
        return _drain_by_number(stream, connection.number, drained)
    return drained.nothing_came()


def _drain(read: Callable[[int], bytes], piece: int, drained: Drained) -> Step:
    left = drained.left
    while True:
        size = piece if left is None else min(left, piece)
        data = read(size)
        if left is not None:
            left -= len(data)
        at_end = left == 0 or (not data and isinstance(drained.step(), Read))
        step = drained.drained(len(data), at_end=at_end)
        if not isinstance(step, Read):
            return step


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


class _Ended:
    """A socket whose peer has sent everything."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def recv(self, size: int, *flags: int) -> bytes:
        return b""

    def recv_into(self, buffer: Any, *args: int) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


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


def _drain_by_number(stream: Any, number: int, drained: Drained) -> Step:
    """What came together with the request's head is in uWSGI's own buffer, and is read first.

    It does not say how much that is. So a body that may be in there as a whole is asked for
    unseen, where waiting is allowed; uWSGI's socket-timeout (4 s) ends that.
    """
    left = drained.left or 0
    may_be_buffered = left <= UWSGI_BUFFER
    step = drained.step()
    while isinstance(step, Read):
        size = _arrived(number)
        if size == 0 and may_be_buffered and step.at_most_seconds:
            size = left
        elif size == 0:
            if not _wait_for(number, step.at_most_seconds):
                step = drained.nothing_came()
                continue
            size = _arrived(number)
        may_be_buffered = False
        data: bytes = stream.read(min(size, left, PIECE)) if size else b""
        left -= len(data)
        step = drained.drained(len(data), at_end=not data or left == 0)
    return step


def _arrived(number: int) -> int:
    """Bytes that the kernel has for a reader."""
    size = array.array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, size)
    return size[0]


def _wait_for(number: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def has_rest_of_chunks(stream: Any, trailers: str, connection: ClientConnection | None) -> bool:
    """Read what follows the last chunk of a body that has been read to its end, if it has come.

    Args:
        stream: The server's ``wsgi.input``.
        trailers: The name of its method for that.
        connection: The client's connection.

    Returns:
        Whether nothing of the body is left in front of the next request.
    """
    if connection is None or not getattr(stream, "closed", False):
        return False
    sock = connection.sock
    before = sock.gettimeout()
    try:
        sock.settimeout(0)
        read = find(stream, trailers)
        # A line that is not a field could be the next request's beginning.
        return read is not MISSING and all(_FIELD.match(field) for field in read())
    except Exception:  # noqa: BLE001 - whatever it is, the connection is of no more use
        return False
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(before)


_PEEK: Final[int | None] = (
    socket.MSG_PEEK | socket.MSG_DONTWAIT if hasattr(socket, "MSG_DONTWAIT") else None
)


def how_gone(sock: Any) -> Mechanism | None:
    """How the peer of a socket has left; None if it has not, UNKNOWN if nobody can know.

    It neither reads nor waits. Unread data stands before the end, and then the peer counts as
    there.

    Args:
        sock: The client's socket. The kernel does not know what TLS has in its own buffers.
    """
    if sock is None or _PEEK is None or hasattr(sock, "do_handshake"):
        return Mechanism.UNKNOWN
    inner = plain_socket(sock)
    try:
        # A socket with a time-out waits that long, whatever the flags say.
        if inner.gettimeout() and not readable(inner, 0):
            return None
        return None if inner.recv(1, _PEEK) else Mechanism.EOF
    except BlockingIOError:
        return None
    except OSError as error:
        return Mechanism.of(error)
    except (AttributeError, TypeError, ValueError):
        # It is not a socket after all.
        return Mechanism.UNKNOWN


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether a socket has something to read, or its end, within so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(seconds))
