"""What the shim uses of tornado that no documentation promises, and what happens when it is gone.

Nothing of it is needed for a request to be served: where it has another name one day, the
exchange goes as if nothing were installed, or less is known of it; and one line says so. What it
is stands in `cleanclose.servers.tornado`.
"""

from __future__ import annotations

from typing import Any, Final

from tornado import http1connection, web

from cleanclose.servers import MISSING, find
from cleanclose.servers.tornado import CONNECTION, NEEDED, NEEDED_TO_STOP, PARAMETERS, STREAM
from cleanclose.tornado._connection import WatchedConnection, watched_class

__all__ = ["handlers_can_be_stopped", "is_watched", "watched_class_of"]

_CONNECTION: Final[Any] = getattr(http1connection, "HTTP1Connection", ())
# What each pair of classes has is the same for all their objects: they set it when they are made.
_found: Final[dict[tuple[type, type], type[WatchedConnection] | None]] = {}


def is_watched(connection: object) -> bool:
    """Whether somebody of ours watches the exchange on a connection already."""
    return getattr(connection, "watch", None) is not None


def watched_class_of(connection: Any) -> type[WatchedConnection] | None:
    """The class for a connection that is to be watched, if it has all that the shim needs of it.

    Args:
        connection: What an application's ``start_request`` was given.

    Returns:
        None also for what is no `HTTP1Connection` (an application's own, a stand-in), and for what
        is watched already.
    """
    stream: object = getattr(connection, "stream", None)
    kind: tuple[type, type] = (connection.__class__, type(stream))
    if kind not in _found:
        is_plain = isinstance(connection, _CONNECTION) and not isinstance(
            connection, WatchedConnection
        )
        _found[kind] = watched_class(kind[0]) if is_plain and _look_at(connection) else None
    return _found[kind]


def handlers_can_be_stopped() -> bool:
    """Whether a handler has all that is needed to stop it."""
    return _has_all(web.RequestHandler, NEEDED_TO_STOP)


def _look_at(connection: Any) -> bool:
    return (
        _has_all(connection, NEEDED[CONNECTION])
        and _has_all(connection.params, NEEDED[PARAMETERS])
        and _has_all(connection.stream, NEEDED[STREAM])
    )


def _has_all(found: object, names: tuple[str, ...]) -> bool:
    return all(find(found, name) is not MISSING for name in names)
