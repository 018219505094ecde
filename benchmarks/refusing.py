"""One small application per interface that refuses every upload unread, bare or wrapped.

`python -m benchmarks.lingering` serves them; each refuses ``POST`` with 413 and answers ``GET``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tornado import web

from cleanclose.asgi import CleanCloseMiddleware as Asgi
from cleanclose.tornado import install
from cleanclose.wsgi import CleanCloseMiddleware as Wsgi

BODY = b"too large\n" * 10


async def asgi(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        while scope["type"] == "lifespan":
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
        return
    status = 413 if scope["method"] == "POST" else 200
    length = (b"content-length", b"%d" % len(BODY))
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": BODY})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    refused = environ["REQUEST_METHOD"] == "POST"
    status = "413 Request Entity Too Large" if refused else "200 OK"
    start_response(status, [("Content-Length", str(len(BODY)))])
    return [BODY]


@web.stream_request_body
class Refuse(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413 if self.request.method == "POST" else 200)
        self.finish(BODY)  # pyright: ignore[reportUnknownMemberType]

    def data_received(self, chunk: bytes) -> None:
        """Refused, unread."""


def tornado() -> web.Application:
    return web.Application([("/.*", Refuse)])


def quiet(event: object) -> None:
    """An outlet that costs nothing."""


asgi_wrapped = Asgi(asgi, outlets=[quiet])
wsgi_wrapped = Wsgi(wsgi, outlets=[quiet])


def tornado_wrapped() -> web.Application:
    return install(tornado(), outlets=[quiet])
