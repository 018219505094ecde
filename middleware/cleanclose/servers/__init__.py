"""What is special about each server: one module for each, and the look-up that the shims call.

Nothing about a server stands elsewhere: how it is recognised, what it hides, where its socket is.
To add one, add a module here with its `Room` as ``ROOM``; the look-up finds it.
"""

from cleanclose.servers._callers import is_called_by_server, is_called_by_wsgi_server
from cleanclose.servers._lookup import (
    ROOMS,
    asgi_server,
    asgi_socket,
    close_asgi,
    cooperates_with,
    is_asgi_stopping,
    is_servers_own,
    plain_socket,
    wsgi_response,
    wsgi_server,
)
from cleanclose.servers._room import Room

__all__ = [
    "ROOMS",
    "Room",
    "asgi_server",
    "asgi_socket",
    "close_asgi",
    "cooperates_with",
    "is_asgi_stopping",
    "is_called_by_server",
    "is_called_by_wsgi_server",
    "is_servers_own",
    "plain_socket",
    "wsgi_response",
    "wsgi_server",
]
