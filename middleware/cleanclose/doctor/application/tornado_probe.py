"""The doctor's routes, as handlers of the user's Tornado application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tornado import httputil, web

from cleanclose.doctor.application import routes
from cleanclose.doctor.application.journal import Journal
from cleanclose.testing.uploads import SMUGGLED_PATH

__all__ = ["add_routes"]


def add_routes(application: web.Application, journal: Journal) -> None:
    """Add the doctor's routes to an application, and record every request.

    Args:
        application: The user's application.
        journal: The journal to write to.
    """
    application.add_handlers(
        ".*",
        [
            (routes.REFUSE, _Refuse),
            (routes.REFUSE_LARGE, _RefuseLarge),
            (routes.READ, _Read),
            (f"{routes.PREFIX}/.*", _Other),
        ],
    )
    start_request = application.start_request
    log_request = application.log_request

    def watched(server_conn: object, request_conn: Any) -> httputil.HTTPMessageDelegate:
        return _Watch(start_request(server_conn, request_conn), journal)

    def logged(handler: web.RequestHandler) -> None:
        case = handler.request.headers.get(routes.CASE_HEADER)
        length = handler.request.headers.get("Content-Length", "")
        journal.write(
            "end",
            path=handler.request.path,
            case=case,
            status=handler.get_status(),
            expected=int(length) if length.isdigit() else None,
            # Tornado passes on complete bodies or none.
            read_to_end=False,
            read=0,
        )
        log_request(handler)

    application.start_request = watched  # type: ignore[method-assign]
    application.log_request = logged  # type: ignore[method-assign]


class _Watch(httputil.HTTPMessageDelegate):
    """The application's delegate, and a note when a request begins."""

    def __init__(self, inner: httputil.HTTPMessageDelegate, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        path = getattr(start_line, "path", "").partition("?")[0]
        if path == SMUGGLED_PATH:
            self._journal.write("smuggled")
        self._journal.write("begin", path=path, case=headers.get(routes.CASE_HEADER))
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()
        self._journal.write(
            "end", path="", case=None, status=None, expected=None, read_to_end=False, read=0
        )


def _finish(handler: web.RequestHandler, body: bytes) -> None:
    # Its own signature has an untyped dict.
    handler.finish(body)  # pyright: ignore[reportUnknownMemberType]


def _write(handler: web.RequestHandler, body: bytes) -> None:
    handler.write(body)  # pyright: ignore[reportUnknownMemberType]


@web.stream_request_body
class _Refuse(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413)
        _finish(self, routes.REFUSAL)

    def data_received(self, chunk: bytes) -> None:
        pass


@web.stream_request_body
class _RefuseLarge(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(401)
        _finish(self, routes.LARGE)

    def data_received(self, chunk: bytes) -> None:
        pass


class _Read(web.RequestHandler):
    def post(self) -> None:
        _finish(self, routes.OK)


class _Other(web.RequestHandler):
    async def get(self) -> None:
        serve: Callable[[], Awaitable[None]] | None = {
            routes.SLOW: self._slow,
            routes.STREAM: self._stream,
            routes.UPSTREAM: self._upstream,
            routes.COUNTERS: self._counters,
        }.get(self.request.path)
        if serve is None:
            _finish(self, routes.OK)
        else:
            await serve()

    async def _slow(self) -> None:
        await asyncio.sleep(routes.SLOW_SECONDS)
        _finish(self, routes.OK)

    async def _stream(self) -> None:
        for _ in range(routes.PIECES):
            _write(self, routes.PIECE)
            await self.flush()

    async def _upstream(self) -> None:
        routes.fail_like_an_upstream()

    async def _counters(self) -> None:
        _finish(self, routes.counters_json())
