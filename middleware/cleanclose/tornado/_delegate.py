"""Passes on what tornado reports about a request, to the core and to the application."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from tornado import http1connection, httputil, web

from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.conduct import TOO_LARGE, answer_of
from cleanclose.core.deliver.framing import (
    ANNOUNCES_BODY,
    CHUNKED,
    NO_BODY,
    asks_for_websocket,
    body_length,
)
from cleanclose.servers.tornado import lost_delegate_error
from cleanclose.tornado._upload import Successor, UploadWatch
from cleanclose.tornado._websocket import WebSocketWatch
from cleanclose.tornado._witness import (
    StartLine,
    TornadoSetup,
    TornadoWatch,
    watch_close,
)

__all__ = ["Delegate", "StartRequest"]

StartRequest = Callable[[object, httputil.HTTPConnection], httputil.HTTPMessageDelegate]

_MORE_TO_COME: Final = ANNOUNCES_BODY | {"Upgrade"}
"""Without one of these, nothing but the next request comes behind a request's head."""


class Delegate(httputil.HTTPMessageDelegate):
    """Stands between tornado's connection and the application's delegate.

    It makes the application's own delegate when the headers are there.

    Args:
        start_request: The application's own.
        setup: What all requests share.
        server_conn: The argument that tornado passes to it.
        request_conn: Tornado's own connection.
    """

    _inner: httputil.HTTPMessageDelegate | None = None
    _upload: UploadWatch | None = None
    """The request's watch, if it has a body."""

    def __init__(
        self,
        start_request: StartRequest,
        setup: TornadoSetup,
        server_conn: object,
        request_conn: Any,
    ) -> None:
        self._start_request = start_request
        self._setup = setup
        self._server_conn = server_conn
        self._request_conn = request_conn
        watch_close(request_conn.stream)
        # One task serves all requests of a connection: the one before is over.
        CURRENT.set(None)

    def headers_received(
        self, start_line: StartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        """The request's head is there."""
        connection, kind = self._request_conn, TornadoWatch
        more = _MORE_TO_COME.intersection(headers)
        if more:
            length = _body_length(start_line, headers, more)
            if length != NO_BODY:
                return self._upload_begins(start_line, headers, length)
            if "Upgrade" in more and asks_for_websocket(headers["Upgrade"]):
                kind = WebSocketWatch
        CURRENT.set(kind(connection, start_line[0], headers, self._setup))
        self._inner = inner = self._start_request(self._server_conn, connection)
        return inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of the body is there."""
        assert self._inner is not None
        upload = self._upload
        if upload is None:
            return self._inner.data_received(chunk)
        upload.tornado_waits = True
        upload.bytes_in += len(chunk)
        try:
            if upload.messages is None and upload.length != CHUNKED:
                waiting = self._inner.data_received(chunk)
            else:
                waiting = self._piece_received(upload, chunk)
        finally:
            upload.tornado_waits = False
        rest = None if upload.messages is None else upload.rest()
        return rest if waiting is None else waiting

    def finish(self) -> None:
        """The body is complete."""
        assert self._inner is not None
        upload = self._upload
        if upload is not None:
            upload.body_complete = True
        if upload is None or upload.messages is None:
            self._inner.finish()
            return
        upload.messages.body_comes(0, ends=True)
        if upload.messages.exchange.response_complete:
            # What tornado says after an early response: the handler is not to go on.
            self._inner.on_connection_close()
        else:
            self._inner.finish()
        upload.body_over()

    def on_connection_close(self) -> None:
        """The connection was closed before the body was complete."""
        if self._inner is None:
            return
        raised = lost_delegate_error()
        upload = self._upload
        delivery = None if upload is None else upload.messages
        if delivery is not None:
            delivery.closed()
        self._inner.on_connection_close()
        if delivery is not None:
            delivery.do(delivery.exchange.abandoned(time.monotonic()))
        self._request_conn.watch.end(time.monotonic(), raised)
        if upload is not None:
            upload.body_over()

    def _upload_begins(
        self, start_line: Any, headers: httputil.HTTPHeaders, length: int
    ) -> Awaitable[None] | None:
        connection = self._request_conn
        self._upload = upload = UploadWatch(
            connection, start_line.method, headers, self._setup, length
        )
        CURRENT.set(upload)
        if length == CHUNKED:
            # Tornado answers too large a count with a bare 400, so we count instead.
            upload.take_at_most(upload.servers_own)
        self._inner = inner = self._start_request(self._server_conn, connection)
        self._request = (start_line, headers)
        waiting = inner.headers_received(start_line, headers)
        if waiting is None and not _is_too_long(upload):
            return _before_body(upload)
        return self._headers_handled(waiting, upload)

    async def _headers_handled(self, waiting: Awaitable[None] | None, upload: UploadWatch) -> None:
        if waiting is not None:
            await waiting
        if _is_too_long(upload):
            await self._refuse(upload)
        rest = _before_body(upload)
        if rest is not None:
            await rest

    def _piece_received(self, upload: UploadWatch, chunk: bytes) -> Awaitable[None] | None:
        assert self._inner is not None
        delivery = upload.messages
        if delivery is not None:
            delivery.body_comes(len(chunk))
            if delivery.exchange.response_complete:
                return None
        if upload.passes(len(chunk)):
            return self._refuse(upload)
        if delivery is not None:
            delivery.app_reads()
        return self._inner.data_received(chunk)

    async def _refuse(self, upload: UploadWatch) -> None:
        """Answer 413 in the application's place."""
        assert self._inner is not None
        if upload.messages is not None:
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
            request, _TooLargeHandler, {"status_code": TOO_LARGE}
        )
        waiting = self._inner.headers_received(start_line, headers)
        if waiting is not None:
            await waiting


def _make_room() -> None:
    """Make room on connections for what the watches put there.

    The objects of a class share the names of their attributes, at most thirty, and each of the
    first objects uses up the room of one name for good. An object whose names do not fit costs as
    much as one of another class, for tornado as well. So this makes one object before tornado does.
    """
    connection = object.__new__(http1connection.HTTP1Connection)
    watches: tuple[type[TornadoWatch], ...] = (UploadWatch, WebSocketWatch)
    for watch in watches:
        object.__new__(watch).stand_before(connection)


_make_room()


def _body_length(request: Any, headers: httputil.HTTPHeaders, there: Collection[str]) -> int:
    # Tornado's headers take long to find out that one of them is missing.
    return body_length(
        method=request.method,
        http_version=request.version.removeprefix("HTTP/"),
        content_length=headers["Content-Length"] if "Content-Length" in there else None,
        transfer_encoding=headers["Transfer-Encoding"] if "Transfer-Encoding" in there else None,
        upgrade=headers["Upgrade"] if "Upgrade" in there else None,
    )


def _is_too_long(upload: UploadWatch) -> bool:
    # Checked after the handler's prepare(), which may have raised the limit.
    return upload.messages is None and upload.is_too_long()


def _before_body(upload: UploadWatch) -> Awaitable[None] | None:
    delivery = upload.messages
    if delivery is not None and not delivery.exchange.response_complete:
        # After the head, as without us: the 100, and the reading.
        delivery.app_reads()
    elif delivery is not None and upload.is_too_long():
        upload.take_at_most(sys.maxsize)
    return upload.rest()


class Mounted(Delegate):
    """The same for an application that another router has among its rules.

    Args:
        find_handler: The application's own, with its arguments.
        setup: What all requests share.
        request: The request, as that router has made it.
    """

    def __init__(
        self,
        find_handler: Callable[[], Any],
        setup: TornadoSetup,
        request: httputil.HTTPServerRequest,
    ) -> None:
        def start_request(*_: object) -> httputil.HTTPMessageDelegate:
            inner: httputil.HTTPMessageDelegate = find_handler()
            return inner

        super().__init__(start_request, setup, request.server_connection, request.connection)
        self._find_handler = find_handler

    def execute(self) -> Any:
        """Like the delegate's method that `Application` calls for a whole request."""
        return self._find_handler().execute()


@web.stream_request_body
class _TooLargeHandler(web.ErrorHandler):
    """Tornado's own error page, made before the body: a buffering handler would parse it."""

    def prepare(self) -> None:
        """As ErrorHandler's, which takes the phrase from Python's table."""
        line, _, _ = answer_of(TOO_LARGE)
        raise web.HTTPError(TOO_LARGE, reason=_phrase(line))

    def data_received(self, chunk: bytes) -> None:
        """Nothing is left for a handler that has answered."""


def _write_too_large(connection: httputil.HTTPConnection) -> None:
    line, headers, body = answer_of(TOO_LARGE)
    start_line = httputil.ResponseStartLine("HTTP/1.1", TOO_LARGE, _phrase(line))
    connection.write_headers(start_line, httputil.HTTPHeaders(dict(headers)), body)
    connection.finish()


def _phrase(line: str) -> str:
    return line.partition(" ")[2]
