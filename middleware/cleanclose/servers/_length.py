"""How long the body of a WSGI request is, by its environ and by what its server does with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cleanclose.core.deliver.framing import (
    CHUNKED,
    NO_BODY,
    TOO_LONG,
    WITHOUT_UPLOAD,
    body_length,
)
from cleanclose.servers._connection import find_connection
from cleanclose.servers._lookup import wsgi_server
from cleanclose.servers._rooms import ROOMS

__all__ = ["SELF_ENDING", "plain_length", "wsgi_length"]

SELF_ENDING: Final = "wsgi.input_terminated"
"""The environ's key by which a server says that its ``wsgi.input`` ends with the body by itself.

Werkzeug believes it, and then compares no length: it would not tell an application of its that the
client left in the middle of the body."""

# The keys of servers whose Content-Length may not be that of the body. The first one apart: a loop
# would be a good part of what a plain length costs.
_FILTERING_KEY, *_MORE_FILTERING_KEYS = (
    room.environ_key
    for room in ROOMS
    if room.wsgi is not None and room.environ_key is not None and not room.wsgi.declares_length
)


def plain_length(environ: Mapping[str, Any], content_length: object) -> int | None:
    """`wsgi_length` in short, because nearly every POST has a plain length.

    Args:
        environ: The environ.
        content_length: Its Content-Length.

    Returns:
        A number of bytes; None where somebody has to look closer.
    """
    if (
        "HTTP_TRANSFER_ENCODING" in environ
        or "HTTP_UPGRADE" in environ
        or environ.get("SERVER_PROTOCOL") != "HTTP/1.1"
        # A client of somebody's tests may have put a number there.
        or type(content_length) is not str
        # PEP 3333: there is nothing beyond Latin-1, whose only decimals are those of ASCII.
        or not content_length.isdecimal()
        or len(content_length) >= TOO_LONG
        or environ["REQUEST_METHOD"] in WITHOUT_UPLOAD
        or _FILTERING_KEY in environ
        or (_MORE_FILTERING_KEYS and not environ.keys().isdisjoint(_MORE_FILTERING_KEYS))
    ):
        return None
    return int(content_length)


def wsgi_length(environ: Mapping[str, Any], start_response: object) -> int:
    """The same where somebody has to look closer.

    Args:
        environ: The environ.
        start_response: The callable as the server gave it.

    Returns:
        A number of bytes, `CHUNKED` or `NO_BODY`.
    """
    declared = environ.get("CONTENT_LENGTH")
    server = wsgi_server(environ, start_response)
    length = body_length(
        method=environ["REQUEST_METHOD"],
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        content_length=None if declared is None else str(declared),
        transfer_encoding=environ.get("HTTP_TRANSFER_ENCODING"),
        upgrade=environ.get("HTTP_UPGRADE"),
    )
    if length != NO_BODY and not server.declares_length:
        # A filter in front of the application may have changed it: only the end tells.
        return CHUNKED
    if (
        length == CHUNKED
        and not environ.get(SELF_ENDING)
        and find_connection(environ, environ["wsgi.input"], server) is None
    ):
        # Nothing says where wsgi.input ends, and the connection is not in reach either.
        return NO_BODY
    return length
