"""A WSGI application as asgiref makes an ASGI one of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

from tests.harness.apps.noise_asgi import Receive, Scope, Send, prepare


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


# It has no types.
_INNER: Final[Any] = importlib.import_module("asgiref.wsgi").WsgiToAsgi(_wsgi)


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    # It raises for the server's lifespan.
    if scope["type"] == "http":
        await _INNER(scope, receive, send)


app: Any = prepare(bare)
