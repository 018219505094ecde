"""The special traits of each server: one module for each, and the look-up that the shims call.

Everything that we know about a server is here: how to recognise it, which exceptions it hides,
where it keeps its socket. To add one, add a module here with its `Room` as ``ROOM``; the look-up
finds it.
"""

from cleanclose.servers._asking import MISSING, find, number
from cleanclose.servers._callers import (
    ASGI_CALLS,
    is_called_by_server,
    is_called_by_wsgi_server,
    wants_answer,
)
from cleanclose.servers._calls import Calls, Stopping
from cleanclose.servers._lookup import (
    asgi_server,
    asgi_socket,
    close_asgi,
    cooperates_with,
    gone_sign,
    has_arrived,
    is_asgi_stopping,
    is_servers_own,
    is_surely_there,
    plain_length,
    plain_socket,
    stop_reading,
    waiting_messages,
    wsgi_response,
    wsgi_server,
)
from cleanclose.servers._private import PRIVATE
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room
from cleanclose.servers._rooms import ROOMS
from cleanclose.servers._signs import SETTLED, Sign, sign_of
from cleanclose.servers._wsgi import (
    client_descriptor,
    client_socket,
    forget_head,
    has_read_rest,
    is_socket_gone,
    reader_below,
)

__all__ = [
    "ASGI_CALLS",
    "MISSING",
    "PRIVATE",
    "ROOMS",
    "SETTLED",
    "Calls",
    "Program",
    "Room",
    "Sign",
    "Stopping",
    "asgi_server",
    "asgi_socket",
    "client_descriptor",
    "client_socket",
    "close_asgi",
    "cooperates_with",
    "find",
    "forget_head",
    "gone_sign",
    "has_arrived",
    "has_read_rest",
    "is_asgi_stopping",
    "is_called_by_server",
    "is_called_by_wsgi_server",
    "is_servers_own",
    "is_socket_gone",
    "is_surely_there",
    "number",
    "plain_length",
    "plain_socket",
    "reader_below",
    "sign_of",
    "stop_reading",
    "waiting_messages",
    "wants_answer",
    "wsgi_response",
    "wsgi_server",
]
