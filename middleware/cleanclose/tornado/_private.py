"""What the shim uses of tornado that no documentation promises, and what happens when it is gone.

Nothing of it is needed for a request to be served: where it has another name one day, the
exchange goes as if nothing were installed, or less is known of it; and one line says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from tornado import http1connection, web

from cleanclose.core.outlets import LOGGER_NAME

__all__ = ["CLOSES_ALL", "handlers_can_be_stopped", "is_known"]

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "HTTP1Connection": (
        "context",
        "detach",
        "params",
        "set_close_callback",
        "set_max_body_size",
        "stream",
    ),
    "HTTP1ConnectionParameters": ("max_body_size",),
    "IOStream": (
        "close",
        "closed",
        "error",
        "fileno",
        "io_loop",
        "max_buffer_size",
        "reading",
        "set_close_callback",
        "socket",
        "write",
        "writing",
    ),
}
"""By class: without one of these a request goes as if nothing were installed."""

USEFUL: Final[Mapping[str, tuple[str, ...]]] = {
    "IOStream": ("_read_buffer_size", "_total_write_done_index"),
}
"""By class: without one of these an event says less. How much of the body tornado has read and
not passed on is counted as unread; a response that was begun in vain counts as begun."""

NEEDED_TO_STOP: Final = ("_break_cycles", "_execute", "on_finish", "send_error")
"""Of a `RequestHandler`: without one of these ``install(stop_work=…)`` has no effect."""

CLOSES_ALL: Final[object] = getattr(
    getattr(getattr(http1connection, "HTTP1ServerConnection", None), "close", None),
    "__code__",
    None,
)
"""The code by which a server that stops closes its connections; None if that is elsewhere now:
then a client that it cuts off is not told from one that the application closes."""

_CONNECTION: Final[Any] = getattr(http1connection, "HTTP1Connection", ())
# What each pair of classes has is the same for all their objects: they set it when they are made.
_found: Final[dict[tuple[type, type], bool]] = {}
_said: Final[set[str]] = set()


def is_known(connection: object) -> bool:
    """Whether a connection is tornado's own, with all that the shim needs of it.

    Args:
        connection: What an application's ``start_request`` was given.

    Returns:
        False also for what is no `HTTP1Connection`: an application's own, a stand-in of ours.
    """
    if not isinstance(connection, _CONNECTION):
        return False
    stream: object = getattr(connection, "stream", None)
    kind: tuple[type, type] = (type(connection), type(stream))
    known = _found.get(kind)
    if known is None:
        known = _found[kind] = _look_at(connection)
    return known


def handlers_can_be_stopped() -> bool:
    """Whether a handler has all that is needed to stop it."""
    return _has_all("RequestHandler", web.RequestHandler, NEEDED_TO_STOP, _NOT_STOPPED)


_BARE: Final = "requests are served as if nothing were installed"
_LESS: Final = "events say less than they could"
_NOT_STOPPED: Final = "stop_work has no effect here"


def _look_at(connection: object) -> bool:
    stream: object = getattr(connection, "stream", None)
    objects = {
        "HTTP1Connection": connection,
        "HTTP1ConnectionParameters": getattr(connection, "params", None),
        "IOStream": stream,
    }
    known = _has_all("HTTP1Connection", connection, NEEDED["HTTP1Connection"], _BARE) and all(
        _has_all(name, each, NEEDED[name], _BARE) for name, each in objects.items()
    )
    if known:
        _has_all("IOStream", stream, USEFUL["IOStream"], _LESS)
    return known


def _has_all(owner: str, found: object, names: tuple[str, ...], consequence: str) -> bool:
    missing = [name for name in names if not hasattr(found, name)]
    for name in missing:
        _say(f"{owner}.{name}", consequence)
    return not missing


def _say(what: str, consequence: str) -> None:
    if what not in _said:
        _said.add(what)
        logging.getLogger(LOGGER_NAME).warning(
            "tornado's %s is not there any more: %s", what, consequence
        )
