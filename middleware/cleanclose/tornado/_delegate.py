"""Passes on what tornado reports about a request, to the core and to the application."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tornado import httputil, web

from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, body_length
from cleanclose.tornado._connection import PlainWatch, Successor, WatchedConnection
from cleanclose.tornado._witness import Setup, TornadoWatch, header

__all__ = ["Delegate", "StartRequest"]

StartRequest = Callable[[object, httputil.HTTPConnection], httputil.HTTPMessageDelegate]

_MORE_TO_COME: Final = frozenset({"Content-Length", "Transfer-Encoding", "Upgrade"})
"""Without one of these a request ends with its head, and the server reads nothing more of it."""
_TOO_LARGE: Final = 413
_REASON: Final = "Request Entity Too Large"
"""Python 3.13 has another phrase in its table."""


class Delegate(httputil.HTTPMessageDelegate):
    """Stands between tornado's connection and the application's delegate.

    It makes the application's own delegate when the headers are there.

    Args:
        start_request: The application's own.
        setup: What all requests share.
        server_conn: The argument that tornado passes to it.
        request_conn: Tornado's own connection.
        watched: The class for it, if the request has a body.
    """

    _inner: httputil.HTTPMessageDelegate | None = None
    _has_body: bool = False
    _chunked: bool = False

    def __init__(
        self,
        start_request: StartRequest,
        setup: Setup,
        server_conn: object,
        request_conn: Any,
        watched: type[WatchedConnection],
    ) -> None:
        self._start_request = start_request
        self._setup = setup
        self._watched = watched
        self._server_conn = server_conn
        self._request_conn = request_conn
        # One task serves all requests of a connection: the one before is over.
        CURRENT.set(None)

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        """The request's head is there."""
        connection = self._request_conn
        if _MORE_TO_COME.isdisjoint(headers):
            watch = PlainWatch(connection, start_line[0], headers, self._setup)
            watch.stand_before(connection)
            CURRENT.set(watch)
        else:
            waiting = self._more_to_come(connection, start_line, headers)
            if self._has_body:
                return waiting
        self._inner = inner = self._start_request(self._server_conn, connection)
        return inner.headers_received(start_line, headers)

    def _more_to_come(
        self, connection: Any, request: Any, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        """The request may have a body, or become something else.

        Returns:
            If it has a body: what to wait for before that is read.
        """
        connection.__class__ = self._watched
        watch = TornadoWatch(connection, request[0], headers, self._setup)
        CURRENT.set(watch)
        connection.watch = watch
        if "Upgrade" in headers and headers["Upgrade"].lower() == "websocket":
            watch.is_websocket = True
            connection.__class__ = connection.upgraded
        if "Content-Length" in headers or "Transfer-Encoding" in headers:
            length = body_length(
                method=request.method,
                http_version=request.version.removeprefix("HTTP/"),
                content_length=header(headers, "Content-Length"),
                transfer_encoding=header(headers, "Transfer-Encoding"),
                upgrade=header(headers, "Upgrade"),
            )
            if length != NO_BODY:
                return self._body_announced(connection, request, headers, length)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of the body is there."""
        assert self._inner is not None
        if not self._has_body:
            return self._inner.data_received(chunk)
        connection = self._request_conn
        connection.tornado_waits = True
        connection.watch.bytes_in += len(chunk)
        try:
            if connection.delivery is None and not self._chunked:
                waiting = self._inner.data_received(chunk)
            else:
                waiting = self._piece_received(connection, chunk)
        finally:
            rest = self._goes_on(connection)
        return waiting if waiting is not None else rest

    def finish(self) -> None:
        """The body is complete."""
        assert self._inner is not None
        if not self._has_body:
            self._inner.finish()
            return
        connection = self._request_conn
        connection.watch.body_complete = True
        delivery = connection.delivery
        if delivery is None:
            self._inner.finish()
            return
        early = delivery.exchange.response_complete
        delivery.do(delivery.exchange.body_received(0, True, delivery.now))
        if early:
            # What tornado says after an early response: the handler is not to go on.
            self._inner.on_connection_close()
        else:
            self._inner.finish()
        connection.body_over()

    def on_connection_close(self) -> None:
        """The connection was closed before the body was complete."""
        if self._inner is None:
            return
        raised = _raised_by_the_delegate()
        connection = self._request_conn
        if not self._has_body:
            self._inner.on_connection_close()
            connection.watch.end(raised)
            return
        delivery = connection.delivery
        if delivery is not None:
            delivery.closed()
        self._inner.on_connection_close()
        if delivery is not None:
            delivery.do(delivery.exchange.abandoned(delivery.now))
        connection.watch.end(raised)
        connection.body_over()

    def _body_announced(
        self,
        connection: WatchedConnection,
        start_line: httputil.RequestStartLine,
        headers: httputil.HTTPHeaders,
        length: int,
    ) -> Awaitable[None] | None:
        self._has_body = True
        self._chunked = length == CHUNKED
        connection.body_announced(length)
        if self._chunked:
            # Tornado answers too large a count with a bare 400, so we count instead.
            connection.take_at_most(sys.maxsize)
        self._inner = inner = self._start_request(self._server_conn, connection)
        self._request = (start_line, headers)
        connection.tornado_waits = True
        waiting = inner.headers_received(start_line, headers)
        if waiting is None and not self._is_too_long(length):
            return self._before_body(length)
        return self._headers_handled(waiting, length)

    async def _headers_handled(self, waiting: Awaitable[None] | None, length: int) -> None:
        if waiting is not None:
            await waiting
        if self._is_too_long(length):
            await self._refuse()
        rest = self._before_body(length)
        if rest is not None:
            await rest

    def _is_too_long(self, length: int) -> bool:
        # Checked after the handler's prepare(), which may have raised the limit.
        connection = self._request_conn
        return length > connection.max_body_size and connection.delivery is None

    def _before_body(self, length: int) -> Awaitable[None] | None:
        connection = self._request_conn
        delivery = connection.delivery
        if delivery is not None and not delivery.exchange.response_complete:
            # After the head, as without us: the 100, and the reading.
            delivery.do(delivery.exchange.app_read(delivery.now))
        elif delivery is not None and length > connection.max_body_size:
            connection.take_at_most(sys.maxsize)
        return self._goes_on(connection)

    def _goes_on(self, connection: WatchedConnection) -> Awaitable[None] | None:
        """Tornado reads on.

        Returns:
            What it has to wait for before it does.
        """
        if connection.delivery is not None and connection.delivery.exchange.handed_over:
            # A closed stream keeps the future of its last read, and that keeps this context.
            CURRENT.set(None)
        return connection.rest()

    def _piece_received(
        self, connection: WatchedConnection, chunk: bytes
    ) -> Awaitable[None] | None:
        assert self._inner is not None
        delivery = connection.delivery
        if delivery is not None:
            exchange = delivery.exchange
            delivery.do(exchange.body_received(len(chunk), False, delivery.now))
            if exchange.response_complete:
                return None
        if self._chunked:
            connection.max_body_size -= len(chunk)
            if connection.max_body_size < 0:
                return self._refuse()
        if delivery is not None:
            delivery.do(delivery.exchange.app_read(delivery.now))
        return self._inner.data_received(chunk)

    async def _refuse(self) -> None:
        """Answer 413 in the application's place."""
        assert self._inner is not None
        if self._request_conn.delivery is not None:
            # Too late for another answer: tornado ends it its own way, as without us.
            raise httputil.HTTPInputError("body too large")
        self._inner.on_connection_close()
        # Nothing that the application's handler still writes may reach the wire.
        successor = Successor(self._request_conn)
        start_line, headers = self._request
        application = self._setup.application
        if not isinstance(application, web.Application):
            self._inner = httputil.HTTPMessageDelegate()
            _write_too_large(successor)
            return
        request = httputil.HTTPServerRequest(
            connection=successor,
            server_connection=self._server_conn,
            start_line=start_line,
            headers=headers,
        )
        self._inner = application.get_handler_delegate(
            request, _TooLargeHandler, {"status_code": _TOO_LARGE}
        )
        waiting = self._inner.headers_received(start_line, headers)
        if waiting is not None:
            await waiting


class Mounted(Delegate):
    """The same for an application that another router has among its rules.

    Args:
        find_handler: The application's own, with its arguments.
        setup: What all requests share.
        request: The request, as that router has made it.
        watched: The class for its connection.
    """

    def __init__(
        self,
        find_handler: Callable[[], Any],
        setup: Setup,
        request: httputil.HTTPServerRequest,
        watched: type[WatchedConnection],
    ) -> None:
        def start_request(
            _: object, connection: httputil.HTTPConnection
        ) -> httputil.HTTPMessageDelegate:
            request.connection = connection
            inner: httputil.HTTPMessageDelegate = find_handler()
            return inner

        super().__init__(
            start_request, setup, request.server_connection, request.connection, watched
        )
        self._find_handler = find_handler

    def execute(self) -> Any:
        """Like the delegate's method that `Application` calls for a whole request."""
        return self._find_handler().execute()


def _raised_by_the_delegate() -> BaseException | None:
    """The error of a delegate's method that tornado has just logged before it closes."""
    error = sys.exc_info()[1]
    # HTTP1Connection wraps it in this class. All other errors are of its own reading.
    if error is None or type(error).__name__ != "_QuietException":
        return None
    return error.__context__


@web.stream_request_body
class _TooLargeHandler(web.ErrorHandler):
    """Tornado's own error page, made before the body: a buffering handler would parse it."""

    def prepare(self) -> None:
        """As ErrorHandler's, which takes the phrase from Python's table."""
        raise web.HTTPError(_TOO_LARGE, reason=_REASON)

    def data_received(self, chunk: bytes) -> None:
        """Nothing is left for a handler that has answered."""


def _write_too_large(connection: httputil.HTTPConnection) -> None:
    body = f"{_TOO_LARGE}: {_REASON}\n".encode()
    headers = httputil.HTTPHeaders(
        {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    )
    connection.write_headers(
        httputil.ResponseStartLine("HTTP/1.1", _TOO_LARGE, _REASON), headers, body
    )
    connection.finish()
