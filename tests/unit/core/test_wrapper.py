"""The object that users name stands for its application, and may have subclasses."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Iterable
from typing import Any

import cleanclose.asgi
import cleanclose.wsgi

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Asgi(cleanclose.asgi.CleanCloseMiddleware):
    served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        type(self).served += 1
        return await super().__call__(scope, receive, send)


class Wsgi(cleanclose.wsgi.CleanCloseMiddleware):
    served = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        type(self).served += 1
        return super().__call__(environ, start_response)


def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
    return print


async def receive() -> Any:
    raise AssertionError("nobody asks")


def test_servers_see_a_coroutine_function() -> None:
    """Servers (uvicorn) and asgiref look for one, to tell ASGI 3 from 2."""
    wrapped: Any = cleanclose.asgi.CleanCloseMiddleware(asgi_app)
    assert callable(wrapped)
    assert inspect.iscoroutinefunction(wrapped.__call__)


def test_others_may_put_a_function_around_the_class_s_own() -> None:
    """As Sentry does with each middleware of Starlette's: `__call__` must be the class's."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    wrapped = cleanclose.asgi.CleanCloseMiddleware(asgi_app)
    asyncio.run(cleanclose.asgi.CleanCloseMiddleware.__call__(wrapped, dict(SCOPE), receive, send))
    assert sent == ["http.response.start", "http.response.body"]
    pieces = cleanclose.wsgi.CleanCloseMiddleware.__call__(
        cleanclose.wsgi.CleanCloseMiddleware(wsgi_app), {"REQUEST_METHOD": "GET"}, start_response
    )
    assert b"".join(pieces) == b"ok"


def test_a_subclass_on_asgi_has_its_own_call() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    wrapped = Asgi(asgi_app)
    for each in (wrapped, copy.copy(wrapped)):
        asyncio.run(each(dict(SCOPE), receive, send))
    assert Asgi.served == 2
    assert sent == ["http.response.start", "http.response.body"] * 2


def test_a_subclass_on_wsgi_has_its_own_call() -> None:
    wrapped = Wsgi(wsgi_app)
    for each in (wrapped, copy.copy(wrapped)):
        assert b"".join(each({"REQUEST_METHOD": "GET"}, start_response)) == b"ok"
    assert Wsgi.served == 2
