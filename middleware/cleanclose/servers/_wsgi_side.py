"""A WSGI server's own objects for one exchange, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from cleanclose.core.deliver.draining import Drained
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.table import Step
from cleanclose.core.server import Server
from cleanclose.servers._callers import is_called_by_wsgi_server
from cleanclose.servers._connection import find_connection
from cleanclose.servers._drain import drain, read_ahead
from cleanclose.servers._length import SELF_ENDING
from cleanclose.servers._lookup import wsgi_response
from cleanclose.servers._wsgi import is_socket_gone

__all__ = ["WsgiSide"]


class WsgiSide:
    """The server's side of one exchange.

    Args:
        environ: The environ.
        stream: The server's own ``wsgi.input``.
        start_response: The callable as the server gave it.
        server: The server, as it was recognised.
    """

    __slots__ = ("_connection", "_environ", "_stream", "response", "server")

    def __init__(
        self, environ: Mapping[str, Any], stream: Any, start_response: object, server: Server
    ) -> None:
        self.server: Server = server
        """What is special about the server."""
        self.response: object = wsgi_response(start_response, server)
        """Its own object behind ``start_response``; None if others hide it."""
        self._connection = find_connection(environ, stream, server)
        self._environ = environ
        self._stream = stream

    @property
    def threads(self) -> int | None:
        """How many requests the server's process serves at once; None if it does not show that."""
        if self.server.threads is not None:
            return self.server.threads(self._environ, self.response)
        # More than one, if the server says so but not how many.
        return 2 if self._environ.get("wsgi.multithread") else None

    @property
    def number(self) -> int | None:
        """The descriptor of the client's connection; None if that is not in reach."""
        return None if self._connection is None else self._connection.number

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after the response, or can be made to."""
        return self.server.closes_anyway or self.response is not None

    def traits(self, *, can_linger: bool, length: int | None) -> Connection:
        """What a delivery must know of the connection.

        Args:
            can_linger: Whether this system allows taking connections over.
            length: The body's length; None if only its end tells.
        """
        environ, server, connection = self._environ, self.server, self._connection
        relayed = (
            server.relays
            and connection is not None
            and not connection.is_peer(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT"))
        )
        timeout = server.worker_timeout
        blocking = connection is None or not connection.greenlets
        return Connection(
            in_reach=connection is not None and can_linger,
            proxied=relayed,
            half_closes=not relayed,
            blocking=blocking,
            threads=self.threads if blocking else None,
            # This version of the server may have its socket somewhere else than those that we know.
            readable=connection is not None or not is_socket_gone(self._stream, server),
            # If the server cannot be made to close, the rest must stay as the server knows it.
            framed=(server.close is None or self.closes)
            and (length is not None or bool(environ.get(SELF_ENDING))),
            worker_timeout=None if timeout is None else timeout(environ, self.response),
        )

    def is_caller(self, frame: FrameType | None) -> bool:
        """Whether the server itself calls, with nobody in between who could want the body.

        Args:
            frame: A frame to look from; those of this package are passed over.
        """
        return is_called_by_wsgi_server(frame, self.server)

    def close(self) -> None:
        """Make the server close the connection after the response, if there is a way."""
        if self.server.close is not None:
            self.server.close(self.response, self._stream)

    def drain(self, drained: Drained) -> Step:
        """Read and discard the rest of the body, as long as the core wants.

        Args:
            drained: Learns of it.

        Returns:
            The first step that is not a `cleanclose.core.deliver.table.Read`.

        Raises:
            Exception: The server's error for a body that it cannot parse.
        """
        return drain(self._stream, self._connection, self.server, drained)

    def end_reading(self) -> bool:
        """Make the server find the stream's end, because it reads on by itself before it closes.

        Returns:
            Whether it will.
        """
        return self._connection is not None and self._connection.end_reading()

    def read_ahead(self, left: int | None) -> int:
        """Read what came with the request's head, once the server will find the end behind it.

        Args:
            left: Bytes of the body that are still to come; None if only its end tells.

        Returns:
            How many bytes it was.
        """
        return read_ahead(self._stream, left)

    @property
    def says_when_sent(self) -> bool:
        """Whether `when_sent` gets to know the moment."""
        return self.server.when_closing is not None or self.server.closes_last

    def when_sent(self, call: Callable[[], None]) -> Callable[[], None] | None:
        """When the server has sent everything, take the connection away from it and call this.

        Args:
            call: The function. Somebody else has a duplicate of the connection.

        Returns:
            What to call when the server closes the response; None if it calls that by itself, or if
            nothing shows the moment.
        """
        connection, closes = self._connection, self.closes

        def sent() -> None:
            if connection is not None:
                connection.take_away(closes=closes)
            call()

        if self.server.when_closing is not None:
            self.server.when_closing(self.response, sent)
            return None
        return sent if self.server.closes_last else None
