"""The special traits of each server: one module for each, and the look-up that the shims call.

Everything that we know about a server is here: how to recognise it, which exceptions it hides,
where it keeps its socket. To add one, add a module here with its `Room` as ``ROOM``; the look-up
finds it.
"""

from cleanclose.servers._asking import MISSING, find
from cleanclose.servers._callers import (
    ASGI_CALLS,
    is_called_by_wsgi_server,
)
from cleanclose.servers._calls import Calls, Stopping
from cleanclose.servers._chunks import close_behind_chunks, end_chunks
from cleanclose.servers._connection import (
    ClientConnection,
    came_out_of,
    client_left,
    find_connection,
    how_gone,
)
from cleanclose.servers._drain import drain
from cleanclose.servers._files import file_in_pieces, is_servers_file, teller
from cleanclose.servers._length import SELF_ENDING, plain_length, wsgi_length
from cleanclose.servers._lookup import (
    asgi_server,
    cooperates_with,
    is_servers_own,
    is_surely_there,
    wsgi_response,
    wsgi_server,
)
from cleanclose.servers._private import PRIVATE
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room
from cleanclose.servers._rooms import ROOMS
from cleanclose.servers._signs import SETTLED, sign_of
from cleanclose.servers._wsgi import (
    can_replace_head,
    client_socket,
    forget_head,
    has_read_rest,
    is_socket_gone,
)
from cleanclose.servers._wsgi_side import WsgiSide

__all__ = [
    "ASGI_CALLS",
    "MISSING",
    "PRIVATE",
    "ROOMS",
    "SELF_ENDING",
    "SETTLED",
    "Calls",
    "ClientConnection",
    "Program",
    "Room",
    "Stopping",
    "WsgiSide",
    "asgi_server",
    "came_out_of",
    "can_replace_head",
    "client_left",
    "client_socket",
    "close_behind_chunks",
    "cooperates_with",
    "drain",
    "end_chunks",
    "file_in_pieces",
    "find",
    "find_connection",
    "forget_head",
    "has_read_rest",
    "how_gone",
    "is_called_by_wsgi_server",
    "is_servers_file",
    "is_servers_own",
    "is_socket_gone",
    "is_surely_there",
    "plain_length",
    "sign_of",
    "teller",
    "wsgi_length",
    "wsgi_response",
    "wsgi_server",
]
