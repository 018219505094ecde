"""The connection which the application has: tornado's own, with the response's end in our hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tornado import httputil, iostream

from cleanclose.core import CHUNKED, Keep, Step, response_length
from cleanclose.tornado._delivery import Delivery

__all__ = ["HeldConnection"]


class HeldConnection(httputil.HTTPConnection):
    """Stands in for `tornado.http1connection.HTTP1Connection` while a request has a body.

    Args:
        delivery: The exchange's delivery.
        length: The body's length, or `cleanclose.core.CHUNKED`.
    """

    def __init__(self, delivery: Delivery, length: int) -> None:
        connection = delivery.connection
        self._delivery = delivery
        self._connection = connection
        self._length = length
        self._retired = False
        limit: int | None = connection.params.max_body_size
        self.max_body_size: int = limit if limit is not None else connection.stream.max_buffer_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def retire(self) -> HeldConnection:
        """Make way for another answer: to whoever still has this one, the connection is closed.

        Returns:
            The connection for that other answer.
        """
        other = HeldConnection(self._delivery, self._length)
        other.max_body_size = self.max_body_size
        self._retired = True
        return other

    def leave_alone(self) -> None:
        """The per-response opt-out."""
        self._delivery.exchange.leave_alone()

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
        delivery = self._delivery
        exchange = delivery.exchange
        assert isinstance(start_line, httputil.ResponseStartLine)
        if self._retired:
            return _closed()
        length = response_length(headers.get("Content-Length"))
        step = exchange.response_started(start_line.code, length, delivery.now)
        if chunk:
            step = exchange.response_piece(len(chunk), delivery.now)
        if not isinstance(step, Keep):
            return self._forward(
                step, lambda: self._connection.write_headers(start_line, headers, chunk)
            )
        delivery.keep_head(start_line, headers)
        return self._keep(step, chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        if self._retired:
            return _closed()
        delivery = self._delivery
        step = delivery.exchange.response_piece(len(chunk), delivery.now)
        if not isinstance(step, Keep):
            return self._forward(step, lambda: self._connection.write(chunk))
        return self._keep(step, chunk)

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        if self._retired:
            return
        delivery = self._delivery
        exchange, now = delivery.exchange, delivery.now
        delivery.app_finished()
        step = exchange.response_completed(now)
        if exchange.event(now) is not None:
            # The client's side is told by that; what the application raised is known only here.
            self._connection.watch.app_finished(told=True)
        delivery.do(step)

    def _keep(self, step: Step, chunk: bytes | None) -> asyncio.Future[None]:
        if chunk:
            self._delivery.keep_piece(chunk)
        self._delivery.do(step)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_result(None)
        return written

    def _forward(
        self, step: Step, write: Callable[[], asyncio.Future[None]]
    ) -> asyncio.Future[None]:
        self._delivery.do(step)
        return write()


def _closed() -> asyncio.Future[None]:
    # What HTTP1Connection returns when its stream is closed.
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(iostream.StreamClosedError())
    future.exception()
    return future
