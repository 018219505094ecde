"""The connection of a request with a body: tornado's own, with the response's end in our hands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tornado import httputil, iostream

from cleanclose.core.deliver.framing import CHUNKED, response_length
from cleanclose.core.deliver.table import Keep
from cleanclose.tornado._delivery import Delivery, Setup
from cleanclose.tornado._watched import WatchedConnection

__all__ = ["HeldConnection"]

_LINE_ENDS: Final = frozenset("\r\n")


class HeldConnection(httputil.HTTPConnection):
    """Stands in for `tornado.http1connection.HTTP1Connection` while a request has a body.

    It forwards, until a response begins while the body is incomplete: only then is there anything
    to deliver.

    Args:
        connection: Tornado's connection, with its watch.
        setup: What all requests share.
        headers: The request's headers.
        length: The body's length, or `cleanclose.core.CHUNKED`.
    """

    def __init__(
        self,
        connection: WatchedConnection,
        setup: Setup,
        headers: httputil.HTTPHeaders,
        length: int,
    ) -> None:
        self._connection = connection
        self._setup = setup
        self._headers = headers
        self._length = length
        self._left_alone = False
        self._retired = False
        self.delivery: Delivery | None = None
        """The delivery, once the response has begun before the body's end."""
        limit: int | None = connection.params.max_body_size
        self.max_body_size: int = limit if limit is not None else connection.stream.max_buffer_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def retire(self) -> HeldConnection:
        """Make way for another answer: to whoever still has this one, the connection is closed.

        Returns:
            The connection for that other answer.
        """
        other = HeldConnection(self._connection, self._setup, self._headers, self._length)
        other.max_body_size = self.max_body_size
        self._retired = True
        return other

    def leave_alone(self) -> None:
        """The per-response opt-out."""
        self._left_alone = True

    def tornado_waits(self, waits: bool) -> Awaitable[None] | None:
        """Note whether tornado waits for the delegate: it does not read then.

        Args:
            waits: Whether it does, from now on.

        Returns:
            What else it has to wait for before it reads on; None if it may.
        """
        self._connection.tornado_waits = waits
        if not waits:
            self._connection.tornado_reads = True
        return None if waits or self.delivery is None else self.delivery.rest()

    def set_max_body_size(self, max_body_size: int) -> None:
        """As HTTP1Connection's."""
        self.max_body_size = max_body_size
        if self._length != CHUNKED:
            self._connection.set_max_body_size(max_body_size)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """As HTTP1Connection's."""
        self._connection.set_close_callback(callback)

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        if self._retired:
            return _closed()
        connection = self._connection
        if self.delivery is None and connection.watch.body_complete:
            # There is nothing to deliver: nearly every request.
            return connection.write_headers(start_line, headers, chunk)
        assert isinstance(start_line, httputil.ResponseStartLine)
        delivery = None if _is_refused(start_line, headers, chunk) else self._begun()
        if delivery is None:
            return connection.write_headers(start_line, headers, chunk)
        exchange = delivery.exchange
        length = response_length(headers.get("Content-Length"))
        step = exchange.response_started(start_line.code, length, delivery.now)
        if chunk:
            step = exchange.response_piece(len(chunk), delivery.now)
        if isinstance(step, Keep):
            return delivery.keep(chunk, (start_line, headers))
        delivery.do(step)
        return connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        if self._retired:
            return _closed()
        delivery = self.delivery
        if delivery is not None:
            step = delivery.exchange.response_piece(len(chunk), delivery.now)
            if isinstance(step, Keep):
                return delivery.keep(chunk)
            delivery.do(step)
        return self._connection.write(chunk)

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        if self._retired:
            return
        delivery = self._begun()
        if delivery is None:
            self._connection.finish()
        else:
            delivery.finish()

    def _begun(self) -> Delivery | None:
        """The delivery; None if there is nothing to deliver."""
        if self.delivery is None:
            connection = self._connection
            if connection.watch.body_complete or connection.stream.closed():
                return None
            self.delivery = Delivery(connection, self._setup, self._headers, self._length)
            if self._left_alone:
                self.delivery.exchange.leave_alone()
        return self.delivery


def _is_refused(
    start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders, chunk: bytes | None
) -> bool:
    """Whether HTTP1Connection.write_headers raises: where the application can catch it."""
    length = response_length(headers.get("Content-Length"))
    if length is None:
        if "Content-Length" in headers:
            return True
    elif chunk and len(chunk) > length:
        return True
    pairs = (("", start_line.reason), *headers.get_all())
    return any(_LINE_ENDS.intersection(name + value) for name, value in pairs)


def _closed() -> asyncio.Future[None]:
    # What HTTP1Connection returns when its stream is closed.
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(iostream.StreamClosedError())
    future.exception()
    return future
