"""What ``make bench-servers`` serves: one application per interface, behind each of the wrappers.

The variable ``CLEANCLOSE_BENCH_WAY`` names the wrapper. ``/refused`` answers 413 unread; all else
reads what there is, and answers. ``python -m benchmarks.served PORT`` serves Tornado.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from benchmarks import requests_asgi, requests_tornado, requests_wsgi
from benchmarks.requests import ANSWER, BARE, FORWARDING, WRAPPED
from cleanclose.asgi import CleanCloseMiddleware as Asgi
from cleanclose.tornado import install
from cleanclose.wsgi import CleanCloseMiddleware as Wsgi

__all__ = ["CORRELATION", "OPENTELEMETRY", "REFUSED", "WAY", "asgi", "wsgi"]

WAY: Final = "CLEANCLOSE_BENCH_WAY"
CORRELATION: Final = "asgi-correlation-id"
OPENTELEMETRY: Final = "OpenTelemetry"
REFUSED: Final = "/refused"

_way: Final = os.environ.get(WAY, BARE)


async def _asgi(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["path"] != REFUSED:
        await requests_asgi.app(scope, receive, send)
        return
    length = (b"content-length", b"%d" % len(ANSWER))
    await send({"type": "http.response.start", "status": 413, "headers": [length]})
    await send({"type": "http.response.body", "body": ANSWER})


def _wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != REFUSED:
        return requests_wsgi.app(environ, start_response)
    start_response("413 Request Entity Too Large", [("Content-Length", str(len(ANSWER)))])
    return [ANSWER]


class Refuse(RequestHandler):
    """The same on Tornado, which has read the body by then."""

    def post(self) -> None:
        """Refuse."""
        self.set_status(413)
        self.write(ANSWER)  # pyright: ignore[reportUnknownMemberType]


def _instrumentation(name: str) -> Any:
    # It is in the environment of `make bench-servers` only.
    return importlib.import_module(f"opentelemetry.instrumentation.{name}")


def _wrapped_asgi() -> Any:
    match _way:
        case "cleanclose":
            return Asgi(_asgi)
        case "forwarding":
            return requests_asgi.Forwarding(_asgi)
        case "asgi-correlation-id":
            from asgi_correlation_id import CorrelationIdMiddleware

            return CorrelationIdMiddleware(_asgi)
        case "OpenTelemetry":
            return _instrumentation("asgi").OpenTelemetryMiddleware(_asgi)
        case _:
            return _asgi


def _wrapped_wsgi() -> Any:
    match _way:
        case "cleanclose":
            return Wsgi(_wsgi)
        case "forwarding":
            return requests_wsgi.forwarding(_wsgi)
        case "OpenTelemetry":
            return _instrumentation("wsgi").OpenTelemetryMiddleware(_wsgi)
        case _:
            return _wsgi


def _tornado() -> Any:
    if _way == OPENTELEMETRY:
        _instrumentation("tornado").TornadoInstrumentor().instrument()
    application = Application([(REFUSED, Refuse), (".*", requests_tornado.Page)])
    if _way == WRAPPED:
        return install(application)
    return requests_tornado.Forwarding(application) if _way == FORWARDING else application


async def _serve_tornado(port: int) -> None:
    HTTPServer(_tornado()).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


asgi = _wrapped_asgi()
wsgi = _wrapped_wsgi()

if __name__ == "__main__":
    asyncio.run(_serve_tornado(int(sys.argv[1])))
