"""Tornado's access log: 499 for a client that left.

Tornado writes its line in ``RequestHandler.finish``, when it hands over the response, before the
last bytes are sent. `log_function` waits for those.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Final

from tornado import iostream, web

from cleanclose.core import Watch

__all__ = ["departed", "log_function"]

_DEPARTED: Final = 499
_ACCESS: Final = "tornado.access"


def departed(handler: web.RequestHandler) -> bool:
    """Whether the client of a handler's request has left, for your own ``log_function``.

    Args:
        handler: The handler.
    """
    watch: object = getattr(handler.request.connection, "watch", None)
    return isinstance(watch, Watch) and watch.has_left()


def log_function(handler: web.RequestHandler) -> None:
    """Tornado's own line (`tornado.web.Application.log_request`), with 499 for a client that left.

    ``Application(..., log_function=log_function)``. If part of the response still has to be sent,
    the line waits until that is done or the client has left. For a client that left, its level is
    ``INFO``. All other lines stay as they were.

    Args:
        handler: The handler.
    """
    request = handler.request
    summary = f"{request.method} {request.uri} ({request.remote_ip})"
    write = functools.partial(
        _write, handler.get_status(), summary, 1000.0 * request.request_time()
    )
    watch: object = getattr(request.connection, "watch", None)
    if not isinstance(watch, Watch) or watch.has_left():
        write(departed=departed(handler))
        return
    stream: Any = getattr(request.connection, "stream", None)
    if stream is None or stream.closed() or not stream.writing():
        write(departed=False)
        return
    try:
        # This empty write is done when everything before it is.
        sent: Any = stream.write(b"")
    except iostream.StreamClosedError:
        write(departed=watch.has_left())
        return

    def done(_: object) -> None:
        write(departed=watch.has_left())

    sent.add_done_callback(done)


def _write(status: int, summary: str, milliseconds: float, *, departed: bool) -> None:
    level = logging.ERROR
    if departed:
        status, level = _DEPARTED, logging.INFO
    elif status < 400:
        level = logging.INFO
    elif status < 500:
        level = logging.WARNING
    logging.getLogger(_ACCESS).log(level, "%d %s %.2fms", status, summary, milliseconds)
