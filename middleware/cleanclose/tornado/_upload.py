"""One request with a body: its reading, and a response that begins before the body's end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from tornado import httputil, iostream

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.limit import LimitedBody
from cleanclose.servers.tornado import refuses_head
from cleanclose.tornado._delivery import Delivery
from cleanclose.tornado._witness import StartLine, TornadoSetup, TornadoWatch

__all__ = ["Successor", "UploadWatch"]


class UploadWatch(LimitedBody, TornadoWatch):
    """The watch of a request with a body.

    The connection works like tornado's until a response begins while the body is incomplete: only
    then is there something to deliver.

    Args:
        connection: Tornado's own connection.
        method: The request's method.
        headers: The request's headers.
        setup: What all requests share.
        length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
    """

    __slots__ = (
        "body_complete",
        "bytes_in",
        "expected_in",
        "has_read",
        "length",
        "most",
        "tornado_waits",
    )

    body_complete: bool
    bytes_in: int
    expected_in: int | None
    has_read: bool
    tornado_waits: bool
    """Whether tornado waits for the application's delegate, and so does not read."""
    length: int
    most: int
    messages: Delivery | None = None
    """What the application's calls go through, once there is something to deliver."""
    _reading_over: bool = False
    """Whether tornado reads no more of the body."""

    def __init__(
        self,
        connection: Any,
        method: str,
        headers: httputil.HTTPHeaders,
        setup: TornadoSetup,
        length: int,
    ) -> None:
        # First: the client may have left already, and the event says what is known of the body.
        self.length = length
        self.body_complete = self.has_read = False
        self.bytes_in = 0
        self.tornado_waits = True
        self.expected_in = None if length == CHUNKED else length
        # Not by super(), here and below: it costs a good part of what a POST does.
        TornadoWatch.__init__(self, connection, method, headers, setup)
        most: int | None = connection.params.max_body_size
        self.most = self.stream.max_buffer_size if most is None else most

    def stand_before(self, connection: Any) -> None:
        TornadoWatch.stand_before(self, connection)
        connection.set_max_body_size = self.set_max_body_size

    # What the application calls.

    def write_headers(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        if self.body_complete and self.messages is None:
            # Nearly always.
            return TornadoWatch.write_headers(self, start_line, headers, chunk)
        if self._delivers:
            assert isinstance(start_line, httputil.ResponseStartLine)
            if not refuses_head(start_line.reason, headers, chunk):
                kept = self._delivery().begin(start_line, headers, chunk)
                if kept is not None:
                    return kept
        return TornadoWatch.write_headers(self, start_line, headers, chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        kept = None if self.messages is None else self.messages.go_on(chunk)
        return TornadoWatch.write(self, chunk) if kept is None else kept

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        if (self.body_complete and self.messages is None) or not self._delivers:
            TornadoWatch.finish(self)
        else:
            self._delivery().finish()
            self._let_go()

    def set_max_body_size(self, max_body_size: int) -> None:
        """As HTTP1Connection's."""
        self.most = max_body_size
        self.take_at_most(self.servers_own)

    @property
    def _delivers(self) -> bool:
        return self.messages is not None or not (
            self.body_complete or self._reading_over or self.stream.closed()
        )

    def _delivery(self) -> Delivery:
        if self.messages is None:
            self.messages = Delivery(self, self._connection())
        return self.messages

    # Tornado's own part.

    def take_at_most(self, size: int) -> None:
        """Make tornado refuse larger bodies."""
        connection = self._connection()
        cls = type(connection)
        cls.set_max_body_size(connection, size)

    def rest(self) -> Awaitable[None] | None:
        """What tornado has to wait for before it reads on; None if it may."""
        self.tornado_waits, self.has_read = False, True
        return None if self.messages is None else self.messages.rest()

    def body_over(self) -> None:
        """Tornado reads no more of the body."""
        self._reading_over = True
        self._let_go()

    def _let_go(self) -> None:
        # They refer to each other, which would leave them to the garbage collector.
        if self._reading_over and self.messages is not None and self.messages.is_over:
            self.messages = None


class Successor(httputil.HTTPConnection):
    """The connection for an answer in the application's place.

    Args:
        connection: The connection that the application has. For code that still has it, it is
            closed from now on: nothing that it writes reaches the wire.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        for name in ("write_headers", "write", "finish"):
            vars(self)[name] = getattr(connection, name)
        connection.write_headers = connection.write = _closed
        connection.finish = _finished

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _closed(*_: object, **__: object) -> asyncio.Future[None]:
    # What HTTP1Connection returns when its stream is closed.
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(iostream.StreamClosedError())
    future.exception()
    return future


def _finished() -> None:
    """Do nothing."""
