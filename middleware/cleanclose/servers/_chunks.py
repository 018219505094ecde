"""What follows the last chunk of a WSGI request's body must not become the next request.

For servers that leave it on the connection, where their next request begins.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Mapping
from typing import Any, Final

from cleanclose.core.server import Server
from cleanclose.servers._asking import MISSING, find
from cleanclose.servers._connection import ClientConnection, find_connection
from cleanclose.servers._lookup import wsgi_response, wsgi_server

__all__ = ["close_behind_chunks", "end_chunks"]

_FIELD: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:")
"""RFC 9112, section 5: a field line begins with a token and a colon."""


def close_behind_chunks(environ: Mapping[str, Any], start_response: object) -> None:
    """Nobody will read the body: make the server close the connection if it is in chunks.

    Args:
        environ: The environ.
        start_response: The callable as the server gave it.
    """
    server = wsgi_server(environ, start_response)
    if server.trailers is not None and server.close and "HTTP_TRANSFER_ENCODING" in environ:
        server.close(getattr(start_response, "__self__", None), environ["wsgi.input"])


def end_chunks(
    environ: Mapping[str, Any],
    stream: Any,
    start_response: object,
    server: Server,
    asked_for: Container[str],
) -> None:
    """The exchange is over: read what follows the body, or make the server close the connection.

    Args:
        environ: The environ.
        stream: The server's own ``wsgi.input``.
        start_response: The callable as the server gave it.
        server: The server, as it was recognised.
        asked_for: The names of the stream's attributes that the application has used by itself.
    """
    trailers = server.trailers
    if trailers is None or trailers in asked_for:
        return
    is_read = _has_rest(stream, trailers, find_connection(environ, stream, server))
    if not is_read and server.close is not None:
        server.close(wsgi_response(start_response, server), stream)


def _has_rest(stream: Any, trailers: str, connection: ClientConnection | None) -> bool:
    """Read what follows the last chunk of a body that has been read to its end, if it has come.

    Args:
        stream: The server's ``wsgi.input``.
        trailers: The name of its method for that.
        connection: The client's connection.

    Returns:
        Whether nothing of the body is left in front of the next request.
    """
    if connection is None or not getattr(stream, "closed", False):
        return False
    sock = connection.sock
    before = sock.gettimeout()
    try:
        sock.settimeout(0)
        read = find(stream, trailers)
        # A line that is not a field could be the next request's beginning.
        return read is not MISSING and all(_FIELD.match(field) for field in read())
    except Exception:  # noqa: BLE001 - whatever it is, the connection is of no more use
        return False
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(before)
