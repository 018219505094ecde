"""Private attributes of tornado that the shim uses, and what happens when they are gone.

No request needs them to be served: if one has another name one day, the exchange goes as if nothing
were installed, or we know less about it; and one line says so. `cleanclose.servers.tornado` lists
them.
"""

from __future__ import annotations

from typing import Any, Final

from tornado import http1connection, web

from cleanclose.servers import MISSING, find
from cleanclose.servers.tornado import CONNECTION, NEEDED, NEEDED_TO_STOP, PARAMETERS, STREAM
from cleanclose.tornado._connection import WatchedConnection, watched_class

__all__ = ["handlers_can_be_stopped", "is_watched", "watched_class_of"]

_CONNECTION: Final[Any] = getattr(http1connection, "HTTP1Connection", ())
# All objects of a pair of classes have the same attributes, which they set when they are made.
_found: Final[dict[tuple[type, type], type[WatchedConnection] | None]] = {}


def is_watched(connection: object) -> bool:
    """Whether one of our watches already follows the exchange on a connection."""
    return getattr(connection, "watch", None) is not None


def watched_class_of(connection: Any) -> type[WatchedConnection] | None:
    """The class for a connection to watch, if it has everything that the shim needs.

    Args:
        connection: What an application's ``start_request`` was given.

    Returns:
        None also for anything but an `HTTP1Connection` (an application's own, a stand-in), and for
        a connection that is watched already.
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
    """Whether a handler has everything that stopping it needs."""
    return _has_all(web.RequestHandler, NEEDED_TO_STOP)


def _look_at(connection: Any) -> bool:
    return (
        _has_all(connection, NEEDED[CONNECTION])
        and _has_all(connection.params, NEEDED[PARAMETERS])
        and _has_all(connection.stream, NEEDED[STREAM])
    )


def _has_all(found: object, names: tuple[str, ...]) -> bool:
    return all(find(found, name) is not MISSING for name in names)
