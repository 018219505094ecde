"""Reads what a WSGI server's objects hold, at the places that its row names."""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.server import Server
from cleanclose.servers._asking import find, gone

__all__ = [
    "can_replace_head",
    "client_descriptor",
    "client_socket",
    "forget_head",
    "has_read_rest",
    "is_socket_gone",
    "reader_below",
]

_GETTERS: Final[dict[str, Callable[[Any], Any]]] = {}
"""By the attribute. A memo: every request asks."""


def client_socket(environ: Mapping[str, Any], stream: object, server: Server) -> Any:
    """The client's socket, or what stands in for it; None if it is not in reach.

    Args:
        environ: The environ.
        stream: The server's own ``wsgi.input``.
        server: The server, as it was recognised.
    """
    if server.socket_key is not None:
        return environ.get(server.socket_key)
    path = server.input_socket
    if path is None:
        return None
    getter = _GETTERS.get(path)
    if getter is None:
        getter = _GETTERS[path] = operator.attrgetter(path)
    try:
        return getter(stream)
    except AttributeError:
        gone(stream, path)
        return None


def is_socket_gone(stream: object, server: Server) -> bool:
    """Whether the client's socket would be in reach with the server's usual attributes.

    Args:
        stream: The server's ``wsgi.input``.
        server: The server, as it was recognised.
    """
    return server.input_socket is not None and gone(stream, server.input_socket)


def client_descriptor(server: Server) -> int | None:
    """The number of the client's connection, if the server gives that instead of a socket."""
    module, _, name = (server.descriptor or "").rpartition(".")
    # Not from a package: the server itself adds this module to its processes.
    if module not in sys.modules:
        return None
    number: object = getattr(importlib.import_module(module), name, int)()
    return number if isinstance(number, int) and number > 0 else None


def reader_below(stream: Any, server: Server, sock: Any) -> tuple[Any, str] | None:
    """The object that reads the body from the client's socket, and the attribute which holds it.

    Args:
        stream: The server's ``wsgi.input``.
        server: The server, as it was recognised.
        sock: The socket.

    Returns:
        None if that is not known.
    """
    found = None
    for path in server.reads_from:
        owner_path, _, name = path.rpartition(".")
        try:
            owner = operator.attrgetter(owner_path)(stream)
            found = getattr(owner, name)
        except AttributeError:
            continue
        if found is sock:
            return owner, name
    if found is None:
        for path in server.reads_from:
            gone(stream, path)
    return None


def forget_head(response: object, server: Server) -> None:
    """Make a second ``start_response()`` replace the head, on servers where it would add to it.

    Args:
        response: The server's own object behind ``start_response``.
        server: The server, as it was recognised.
    """
    if server.head_attribute is not None:
        head = find(response, server.head_attribute)
        if isinstance(head, list):
            head.clear()  # pyright: ignore[reportUnknownMemberType]


def can_replace_head(response: object, server: Server) -> bool:
    """Whether a second ``start_response()`` may replace a head that is not out yet.

    Args:
        response: The server's own object behind ``start_response``; None if it is hidden.
        server: The server, as it was recognised.
    """
    # Where nobody can forget the first one, the second one would be added to it.
    return server.replaces_head and (server.head_attribute is None or response is not None)


def has_read_rest(stream: object, server: Server) -> bool:
    """Whether the server itself has read the rest of the body.

    Args:
        stream: The server's ``wsgi.input``.
        server: The server, as it was recognised.
    """
    return server.left_attribute is not None and find(stream, server.left_attribute) == 0
