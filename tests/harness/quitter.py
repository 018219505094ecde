"""An upstream that takes a connection, says something perhaps, and is gone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from typing import Final

from tests.harness.leavers import How, leave, until_read
from tests.harness.waiting import LIMIT

__all__ = ["CUT_CHUNKED", "CUT_LENGTH", "Quitter", "quitter"]

CUT_LENGTH: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it"
"""A response without its end, which its length gives away."""
CUT_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
"""A response without its end, in chunks."""


class Quitter:
    """A server on a loopback port that ends each connection behind the client's first words.

    Args:
        says: What it sends before.
        how: How it leaves.
        first: Whether it speaks first.
    """

    def __init__(self, says: bytes, how: How, *, first: bool = False) -> None:
        self._says = says
        self._first = first
        self._how: How = how
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it serves on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its address for HTTP clients."""
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        """Take no more connections."""
        # Closing alone would leave the accept() of the other thread waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                sock.settimeout(LIMIT)
                if not self._first:
                    sock.recv(65536)
                if self._says:
                    sock.sendall(self._says)
                    # A reset throws away what the client has not read.
                    until_read(sock)
            leave(sock, self._how)


@contextlib.contextmanager
def quitter(says: bytes = b"", how: How = "rst", *, first: bool = False) -> Generator[Quitter]:
    """A `Quitter` for the time of a ``with`` block."""
    server = Quitter(says, how, first=first)
    try:
        yield server
    finally:
        server.close()
