"""What ASGI applications do at the edges of the interface; `noise_asgi.EDGE` names the one served.

Each is served as `noise_asgi.prepare` has it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import anyio.from_thread
import httpx

from tests.harness import tap
from tests.harness.apps import routes
from tests.harness.apps.noise_asgi import (
    DONE,
    EDGE,
    App,
    Receive,
    Scope,
    Send,
    answer,
    note,
    poll,
    prepare,
    work_on,
)

__all__ = ["app"]


async def whole_before_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    """All that the head announces, a while of work, and then the word that it was all.

    The path's last part is the status.
    """
    status = int(scope["path"].rpartition("/")[2])
    headers = [(b"Content-Length", b"5")] if status == 200 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if status == 200 and scope["method"] != "HEAD":
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    else:
        # Some servers write the head with the first piece of the body.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    await work_on()
    await send({"type": "http.response.body"})
    note(DONE)


def _flask() -> App:
    import flask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Deprecated, and served by thousands.
        from starlette.middleware.wsgi import WSGIMiddleware

    app = flask.Flask(__name__)

    @app.get("/whole/200")
    def whole() -> flask.Response:  # pyright: ignore[reportUnusedFunction]
        def pieces() -> Iterable[bytes]:
            yield b"hello"
            anyio.from_thread.run(work_on)
            note(DONE)

        return flask.Response(pieces(), headers={"Content-Length": "5"})

    wrapped: Any = WSGIMiddleware(app)
    return wrapped  # type: ignore[no-any-return]


def _wrap(inner: App) -> App:
    if not routes.wrapped():
        return inner
    from cleanclose.asgi import CleanCloseMiddleware

    return CleanCloseMiddleware(inner, outlets=tap.outlets())


async def _poll(scope: Scope, receive: Receive, send: Send) -> None:
    await poll(dict(scope["headers"])[b"x-request-id"].decode())
    await answer(send, b"ok")


async def _copying(scope: Scope, receive: Receive, send: Send) -> None:
    """What mounts an application: it has a scope of its own."""
    await _wrap(_poll)({**scope, "root_path": "/mounted"}, receive, send)


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def _calling(scope: Scope, receive: Receive, send: Send) -> None:
    """Another application is called in process, in the middle of a request."""
    transport = httpx.ASGITransport(_wrap(_hello))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
        assert (await client.get("/")).content == b"hello"
    await _poll(scope, receive, send)


_EDGES: Final[Mapping[str, Callable[[], App]]] = {
    "whole": lambda: whole_before_the_end,
    "flask": _flask,
    "twice": lambda: _wrap(_poll),
    "mounted": lambda: _copying,
    "calling": lambda: _calling,
}

_EDGE: Final = _EDGES[os.environ[EDGE]]()


async def _front(scope: Scope, receive: Receive, send: Send) -> None:
    # The harness asks for the root until it is answered.
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    elif scope.get("path") == "/":
        await answer(send, b"ok")
    else:
        await _EDGE(scope, receive, send)


app: Final = prepare(_front)
