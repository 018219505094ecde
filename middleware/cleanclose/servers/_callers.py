"""Whether the server calls directly, with nobody in between who could want the body."""

from __future__ import annotations

from types import FrameType
from typing import Final

from cleanclose.core.server import UNKNOWN, Server
from cleanclose.servers._lookup import ASGI, asgi_package

__all__ = ["ASGI_CALLS", "is_called_by_server", "is_called_by_wsgi_server", "wants_answer"]

ASGI_CALLS: Final = frozenset({"send", "asgi_send", "_send", "receive", "asgi_receive", "_receive"})
"""The names of the servers' own methods behind an application's callables. One of them is enough,
found by its object, because a middleware around ours may have wrapped the other."""


def is_called_by_server(frame: FrameType | None, receive: object, send: object) -> bool:
    """Whether a server calls, with nobody in between who could still want the request's body.

    Code in between may answer in place of an application that has failed. But unknown code may also
    try another application, and that one would need the body.

    Args:
        frame: The caller's frame.
        receive: The callable as the caller gave it.
        send: The other one.
    """
    package = asgi_package(receive, send)
    return package in ASGI and _is_called_by(frame, package) is True


def wants_answer(receive: object) -> bool:
    """Whether an ASGI application's caller takes an end without a response for its error.

    Starlette's ``BaseHTTPMiddleware`` then raises an error of its own. Servers only close.

    Args:
        receive: The callable as the caller gave it.
    """
    return getattr(receive, "__module__", None) == "starlette.middleware.base"


def is_called_by_wsgi_server(frame: FrameType | None, server: Server) -> bool:
    """The same for WSGI, where a compiled server leaves no frame of its own.

    Args:
        frame: A frame to look from; those of this package are passed over.
        server: The server, as it was recognised.
    """
    own = __name__.partition(".")[0]
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == own:
        frame = frame.f_back
    return server is not UNKNOWN and _is_called_by(frame, server.name) is not False


def _is_called_by(frame: FrameType | None, package: str) -> bool | None:
    # A script's own code calls pyuwsgi's server; that code is nobody's middleware.
    while frame is not None and frame.f_code.co_name != "<module>":
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == package:
            return True
        if module not in _ANSWERING:
            return False
        frame = frame.f_back
    return None


_ANSWERING: Final = frozenset(
    {
        "fastapi.applications",
        # Flask.__call__ passes on everything, for `app.wsgi_app = CleanCloseMiddleware(...)`.
        "flask.app",
        "starlette.applications",
        # ServerErrorMiddleware.__call__: its handlers get no receive().
        "starlette.middleware.errors",
    }
)
"""Modules that answer an exception, or pass it on, without a look at the body."""
