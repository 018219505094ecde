"""An application that says which requests it was called for, for the fuzzing of the wire.

The path says what it does, the query names the request, and the answer's body is that name.

============  ==================================================================
``/read``     reads the body, then 200
``/refuse``   413 from the headers alone
``/some``     413 when some of the body has been read
``/executed`` JSON: the names of the requests since it was last asked
============  ==================================================================

``app`` is for ASGI, ``wsgi_app`` for WSGI; run as ``python -m tests.harness.apps.fuzzed PORT`` it
is Tornado's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tests.harness.apps import raw_asgi, raw_wsgi, routes, tornado_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

READ = "/read"
SOME = "/some"
EXECUTED = "/executed"

_executed: list[str] = []


def _called(path: str, name: str) -> bytes | None:
    """Note a request; what to answer if it asks for what was noted."""
    if path == EXECUTED:
        said = json.dumps(_executed).encode()
        _executed.clear()
        return said
    if path != routes.INDEX:
        _executed.append(name)
    return None


async def bare(scope: raw_asgi.Scope, receive: raw_asgi.Receive, send: raw_asgi.Send) -> None:
    """The ASGI app."""
    if scope["type"] == "lifespan":
        await raw_asgi.lifespan(receive, send)
        return
    path, name = scope["path"], scope["query_string"].decode("latin-1")
    said = _called(path, name)
    try:
        if path == READ:
            await raw_asgi.pieces(receive)
        elif path == SOME:
            await raw_asgi.pieces(receive, 1)
    except raw_asgi.LeftEarlyError:
        return
    status = 413 if path in (routes.REFUSE, SOME) else 200
    await raw_asgi.answer(send, status, said if said is not None else name.encode("latin-1"))


def bare_wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI app."""
    path, name = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    said = _called(path, name)
    if path == READ:
        for _ in raw_wsgi.pieces(environ):
            pass
    elif path == SOME:
        next(raw_wsgi.pieces(environ), None)
    status = 413 if path in (routes.REFUSE, SOME) else 200
    body = said if said is not None else name.encode("latin-1")
    start_response(raw_wsgi.STATUS[status], [("Content-Length", str(len(body)))])
    return [body]


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
        def prepare(self) -> None:
            self.lift_limit()
            self.said = _called(self.request.path, self.request.query)
            self._answer_on(routes.REFUSE)

        def data_received(self, chunk: bytes) -> None:
            self._answer_on(SOME)

        def _answer_on(self, path: str) -> None:
            if self.request.path == path and not self._finished:
                self.set_status(413)
                self.say(self.request.query)

        async def act(self) -> None:
            if self.request.path == SOME:
                self.set_status(413)
            await self.say(self.request.query if self.said is None else self.said)

    application = Application([(".*", Handler)])
    if routes.wrapped():
        from cleanclose.tornado import install

        install(application, **routes.settings())
    return application


if __name__ == "__main__":
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    asyncio.run(tornado_app.main(int(sys.argv[1]), _tornado()))
