"""The client's connection below a WSGI server's objects: found, asked, and taken away."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.blame.provenance import passed_object, says_lost
from cleanclose.core.events import Mechanism, Witness
from cleanclose.core.kernel import descriptor_of, is_established
from cleanclose.core.server import UNKNOWN, Server
from cleanclose.servers._lookup import cooperates_with, plain_socket
from cleanclose.servers._wsgi import (
    client_descriptor,
    client_socket,
    reader_below,
)

__all__ = [
    "ClientConnection",
    "came_out_of",
    "client_left",
    "find_connection",
    "how_gone",
    "readable",
]

_PEEK: Final[int | None] = (
    socket.MSG_PEEK | socket.MSG_DONTWAIT if hasattr(socket, "MSG_DONTWAIT") else None
)


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


def find_connection(
    environ: Mapping[str, Any], stream: Any, server: Server
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


def client_left(environ: Mapping[str, Any], server: Server) -> tuple[Witness, Mechanism] | None:
    """Where it shows that the client has left, and how; None if nothing shows it.

    It neither reads nor waits.

    Args:
        environ: The environ.
        server: The server, as it was recognised.
    """
    if server is UNKNOWN:
        return None
    sock = client_socket(environ, environ.get("wsgi.input"), server)
    # A socket in the environ has been asked already, where the response begins.
    if sock is not None and server.socket_key is None and is_established(sock):
        return None
    if server.gone_key is not None:
        is_gone: Callable[[], object] | None = environ.get(server.gone_key)
        return (Witness.SERVER, Mechanism.UNKNOWN) if callable(is_gone) and is_gone() else None
    mechanism = how_gone(sock)
    # Nobody can know.
    if mechanism is None or mechanism is Mechanism.UNKNOWN:
        return None
    return Witness.SOCKET, mechanism


def came_out_of(error: BaseException, sock: Any) -> bool:
    """Whether a lost connection's error came out of this socket.

    The standard library's readers, below a ``wsgi.input``, have it in the attribute ``_sock``.

    Args:
        error: The error.
        sock: The client's socket; None if it is not in reach.
    """
    if sock is None or not isinstance(error, OSError) or not says_lost(error):
        return False
    return passed_object(error, lambda each: each is sock or getattr(each, "_sock", None) is sock)


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
