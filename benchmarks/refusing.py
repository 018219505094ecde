"""One small application per interface that refuses every upload unread, bare or wrapped.

`python -m benchmarks.lingering` serves them; each refuses ``POST`` with 413 and answers ``GET``:
``/counters`` with what the middleware has counted.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tornado import web

from cleanclose.asgi import CleanCloseMiddleware as Asgi
from cleanclose.core import snapshot
from cleanclose.tornado import install
from cleanclose.wsgi import CleanCloseMiddleware as Wsgi

BODY = b"too large\n" * 10


def body(path: str) -> bytes:
    return json.dumps(dict(snapshot())).encode() if path == "/counters" else BODY


async def asgi(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        while scope["type"] == "lifespan":
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
        return
    status = 413 if scope["method"] == "POST" else 200
    answer = body(scope["path"])
    length = (b"content-length", b"%d" % len(answer))
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": answer})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    refused = environ["REQUEST_METHOD"] == "POST"
    status = "413 Request Entity Too Large" if refused else "200 OK"
    answer = body(environ["PATH_INFO"])
    start_response(status, [("Content-Length", str(len(answer)))])
    return [answer]


@web.stream_request_body
class Refuse(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413 if self.request.method == "POST" else 200)
        self.finish(body(self.request.path))  # pyright: ignore[reportUnknownMemberType]

    def data_received(self, chunk: bytes) -> None:
        """Refused, unread."""


def tornado() -> web.Application:
    return web.Application([("/.*", Refuse)])


def quiet(event: object) -> None:
    """An outlet that costs nothing."""


# Who sends next to nothing may stay, so that a thousand linger for as long as it is measured.
_PATIENT: dict[str, Any] = {"idle_seconds": 60.0, "max_seconds": 60.0, "min_rate": 0.0}

asgi_wrapped = Asgi(asgi, outlets=[quiet])
asgi_patient = Asgi(asgi, outlets=[quiet], **_PATIENT)
wsgi_wrapped = Wsgi(wsgi, outlets=[quiet])
wsgi_patient = Wsgi(wsgi, outlets=[quiet], **_PATIENT)


def tornado_wrapped() -> web.Application:
    return install(tornado(), outlets=[quiet])


def tornado_patient() -> web.Application:
    return install(tornado(), outlets=[quiet], **_PATIENT)
