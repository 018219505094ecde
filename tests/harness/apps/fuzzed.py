"""An application that says which requests it was called for, for the fuzzing of the wire.

The path says what it does, and the query names the request. Each answer has that name in its
header `NAME`, and what has been read of the body by then in `READ_HEADER`.

============  ==================================================================
``/read``     reads the body, then 200
``/refuse``   413 from the headers alone
``/some``     413 when some of the body has been read
``/stream``   413 in two pieces from the headers alone, without a length
``/begin``    begins a 200, reads the body, and then sends its own
``/nothing``  204 from the headers alone
``/same``     304 from the headers alone
``/large``    413 from the headers alone, with a body of `LARGE_BODY`
``/fail``     an exception from the headers alone
``/break``    an exception behind the first of two pieces
``/executed`` JSON: the names of the requests since it was last asked, see `COLLECT`
============  ==================================================================

``app`` is for ASGI, ``wsgi_app`` for WSGI; run as ``python -m tests.harness.apps.fuzzed PORT`` it
is Tornado's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tests.harness.apps import raw_asgi, raw_wsgi, routes, tornado_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

READ = "/read"
SOME = "/some"
STREAM = "/stream"
BEGIN = "/begin"
NOTHING = "/nothing"
SAME = "/same"
LARGE = "/large"
FAIL = "/fail"
BREAK = "/break"
EXECUTED = "/executed"
COLLECT = "collect"
"""The query of `EXECUTED` that has the cyclic collector run."""

NAME: Final = "X-Name"
READ_HEADER: Final = "X-Read"
LARGE_BODY: Final = b"z" * 200_000

_STATUS: Final = {routes.REFUSE: 413, SOME: 413, STREAM: 413, LARGE: 413, NOTHING: 204, SAME: 304}
_STREAMED: Final = frozenset({STREAM, BEGIN, BREAK})
_EMPTY: Final = frozenset({NOTHING, SAME})
_LINES: Final = {**raw_wsgi.STATUS, 304: "304 Not Modified"}
_executed: list[str] = []


class FuzzedError(Exception):
    """What ``/fail`` and ``/break`` raise."""


def _called(path: str, query: str) -> tuple[str, bytes | None]:
    """Note a request; its name, and what to answer if it asks for what was noted."""
    # A query may be anything, and a header may not.
    name = re.sub("[^A-Za-z0-9-]", "", query)[:100]
    if path == EXECUTED:
        if query == COLLECT:
            gc.collect()
        said = json.dumps(_executed).encode()
        _executed.clear()
        return name, said
    if path != routes.INDEX:
        _executed.append(name)
    return name, None


def _body(path: str, name: str, said: bytes | None) -> bytes:
    if said is not None:
        return said
    return LARGE_BODY if path == LARGE else name.encode()


def _headers(path: str, name: str, read: str, body: bytes) -> list[tuple[str, str]]:
    headers = [(NAME, name), (READ_HEADER, read)]
    if path not in _STREAMED and path not in _EMPTY:
        headers.append(("Content-Length", str(len(body))))
    return headers


def _summary(read: Iterable[bytes]) -> str:
    size = crc = 0
    for piece in read:
        size += len(piece)
        crc = zlib.crc32(piece, crc)
    return f"{size}:{crc}"


async def bare(scope: raw_asgi.Scope, receive: raw_asgi.Receive, send: raw_asgi.Send) -> None:
    """The ASGI app."""
    if scope["type"] == "lifespan":
        await raw_asgi.lifespan(receive, send)
        return
    path: str = scope["path"]
    name, said = _called(path, scope["query_string"].decode("latin-1"))
    read = ""
    try:
        if path == READ:
            read = _summary(await raw_asgi.pieces(receive))
        elif path == SOME:
            await raw_asgi.pieces(receive, 1)
    except raw_asgi.LeftEarlyError:
        return
    if path == FAIL:
        raise FuzzedError
    body = _body(path, name, said)
    headers = [(key.encode(), each.encode()) for key, each in _headers(path, name, read, body)]
    status = _STATUS.get(path, 200)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path in _STREAMED:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if path == BREAK:
            raise FuzzedError
        if path == BEGIN:
            try:
                body = b"+" + _summary(await raw_asgi.pieces(receive)).encode()
            except raw_asgi.LeftEarlyError:
                return
    await send({"type": "http.response.body", "body": b"" if path in _EMPTY else body})


def bare_wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI app."""
    path: str = environ["PATH_INFO"]
    name, said = _called(path, environ.get("QUERY_STRING", ""))
    read = ""
    if path == READ:
        read = _summary(raw_wsgi.pieces(environ))
    elif path == SOME:
        next(raw_wsgi.pieces(environ), None)
    elif path == FAIL:
        raise FuzzedError
    body = _body(path, name, said)
    start_response(_LINES[_STATUS.get(path, 200)], _headers(path, name, read, body))
    if path in _STREAMED:
        return _streamed(path, environ, body)
    return [] if path in _EMPTY else [body]


def _streamed(path: str, environ: WSGIEnvironment, body: bytes) -> Iterator[bytes]:
    yield body
    if path == BREAK:
        raise FuzzedError
    yield b"+" + _summary(raw_wsgi.pieces(environ)).encode() if path == BEGIN else body


app: Any = bare
wsgi_app: Any = bare_wsgi
if routes.wrapped():
    from cleanclose import asgi, wsgi

    app = asgi.CleanCloseMiddleware(bare, **routes.settings())
    wsgi_app = wsgi.CleanCloseMiddleware(bare_wsgi, **routes.settings())


def _tornado() -> Any:
    from tornado.web import Application, stream_request_body

    @stream_request_body
    class Handler(tornado_app.Handler):
        async def prepare(self) -> None:
            self.lift_limit()
            self.read: list[bytes] = []
            self.path = self.request.path
            self.name, self.said = _called(self.path, self.request.query)
            if self.path in (routes.REFUSE, STREAM, NOTHING, SAME, LARGE):
                await self.respond()
            elif self.path == BEGIN:
                self.begin("")
                self.put_piece(self.name.encode())
                await self.flush()
            elif self.path in (FAIL, BREAK):
                if self.path == BREAK:
                    self.begin("")
                    self.put_piece(self.name.encode())
                    await self.flush()
                raise FuzzedError

        async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
            self.read.append(chunk)
            if self.path == SOME and not self._finished:
                await self.respond()

        def begin(self, read: str) -> None:
            self.set_status(_STATUS.get(self.path, 200))
            for key, value in _headers(self.path, self.name, read, b""):
                if key != "Content-Length":
                    self.set_header(key, value)

        async def respond(self) -> None:
            self.begin(_summary(self.read) if self.path == READ else "")
            body = _body(self.path, self.name, self.said)
            if self.path == STREAM:
                self.put_piece(body)
                await self.flush()
            self.say(None if self.path in _EMPTY else body)

        async def act(self) -> None:
            if self.path == BEGIN:
                await self.say(b"+" + _summary(self.read).encode())
            elif not self._finished:
                await self.respond()

        delete = patch = options = act

    application = Application([(".*", Handler)])
    if routes.wrapped():
        from cleanclose.tornado import install

        install(application, **routes.settings())
    return application


if __name__ == "__main__":
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    asyncio.run(tornado_app.main(int(sys.argv[1]), _tornado()))
