"""Recognise the server, and find its objects for an exchange.

A server is recognised from the interface itself (the module behind ASGI's ``receive``, keys of
the WSGI ``environ``), never from a version number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

from cleanclose.core.kernel import TCP_ESTABLISHED, TCP_STATE, TCP_STATE_MASK
from cleanclose.core.server import UNKNOWN, Server
from cleanclose.servers._asking import MISSING, find, gone
from cleanclose.servers._rooms import ROOMS

__all__ = [
    "asgi_package",
    "asgi_server",
    "asgi_socket",
    "close_asgi",
    "cooperates_with",
    "gone_sign",
    "has_arrived",
    "is_asgi_stopping",
    "is_servers_own",
    "is_surely_there",
    "plain_socket",
    "stop_reading",
    "waiting_messages",
    "wsgi_response",
    "wsgi_server",
]


ASGI: Final[Mapping[str, Server]] = {
    room.package: room.asgi for room in ROOMS if room.asgi is not None
}
"""By the package of the server's callables."""
_ASGI_BY_MODULE: Final[Mapping[str, Server]] = {
    module: server for room in ROOMS for module, server in room.asgi_parts.items()
}
"""By the module of the server's ``receive``."""
_WSGI_BY_KEY: Final[Mapping[str, Server]] = {
    room.environ_key: room.wsgi
    for room in ROOMS
    if room.wsgi is not None and room.environ_key is not None
}
_WSGI_KEYS: Final = tuple(_WSGI_BY_KEY.items())
_WSGI: Final[Mapping[str, Server]] = {
    room.package: room.wsgi for room in ROOMS if room.wsgi is not None and room.environ_key is None
}
"""By the package of the server's ``start_response``."""
# The first one apart: a loop would be a quarter of what asking costs each request.
_SOCKET_KEY, *_MORE_SOCKET_KEYS = (
    server.socket_key for server in _WSGI_BY_KEY.values() if server.socket_key is not None
)
_LEVEL, _OPTION = TCP_STATE
_INNER_SOCKETS: Final[Mapping[str, str]] = {
    room.package: room.inner_socket for room in ROOMS if room.inner_socket is not None
}


def asgi_server(receive: object, send: object = None) -> Server:
    """The server behind the callables that an ASGI application gets.

    Args:
        receive: The callable as the server gave it. If another middleware wraps it, the server
            is unknown.
        send: The other one, for servers whose ``receive`` is a plain queue's.
    """
    function = _function(receive)
    known = _BY_FUNCTION.get(function)
    if known is None and _is_queues(receive):
        function = _function(_behind_starlette(send))
        known = _BY_FUNCTION.get(function)
    if known is not None:
        return known
    part = _ASGI_BY_MODULE.get(str(getattr(receive, "__module__", None)))
    server = part or ASGI.get(asgi_package(receive, send), UNKNOWN)
    _remember(_BY_FUNCTION, function, server)
    return server


_BY_FUNCTION: Final[dict[object, Server]] = {}
"""Servers that were recognised, by the function behind the method that is theirs. A memo: a
response to an unread body asks many times."""
_QUEUES: Final[dict[object, bool]] = {}
"""The same for `_is_queues`."""
_MOST_FUNCTIONS: Final = 64


def _remember(memo: dict[object, Any], function: object, found: object) -> None:
    if function is None:
        return
    if len(memo) >= _MOST_FUNCTIONS:
        # Somebody makes a class for each request.
        memo.clear()
    memo[function] = found


def _function(call: object) -> object:
    """The function behind a method; None for any other callable."""
    return call.__func__ if type(call) is MethodType else None


def _is_queues(receive: object) -> bool:
    """Whether a server's ``receive`` is a plain queue's: then only its ``send`` is its own."""
    function = _function(receive)
    known = _QUEUES.get(function)
    if known is None:
        known = _package(receive) in ("asyncio", "trio")
        _remember(_QUEUES, function, known)
    return known


def asgi_socket(receive: object, send: object) -> Any:
    """Find the client's socket, or its stand-in, where one is in reach.

    Args:
        receive: The callable as the server gave it.
        send: The other one.

    Returns:
        None behind a middleware that wraps the callables, on servers that keep the socket to
        themselves, and for a server that no longer has attributes of these names.
    """
    found = find(_owner(receive, send), *asgi_server(receive, send).connection)
    if found is MISSING:
        return None
    ask: object = getattr(found, "get_extra_info", None)
    return ask("socket") if callable(ask) else found


def gone_sign(owner: object, server: Server) -> Callable[[object], object] | None:
    """A function that tells, from a server's object for an exchange, whether the peer has left.

    Args:
        owner: The object behind ASGI's ``receive``.
        server: The server, as it was recognised.

    Returns:
        A function of any such object; None if nothing does.
    """
    paths = server.gone_attributes
    for path in paths:
        getter = operator.attrgetter(path)
        try:
            getter(owner)
        except AttributeError:
            # Another kind of connection, or another version of the server.
            continue
        return getter
    for path in paths:
        gone(owner, path)
    return None


def has_arrived(receive: object, send: object) -> bool:
    """Whether all of a request's body has arrived at the server, as far as that shows it.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    server = asgi_server(receive, send)
    waiting = waiting_messages(receive)
    if waiting:
        return any(
            each["type"] == "http.request" and not each.get("more_body", False) for each in waiting
        )
    if server.arrived is None:
        return server.reads_first
    path, expected = server.arrived
    return find(getattr(receive, "__self__", None), path) is expected


def waiting_messages(receive: object) -> Sequence[Mapping[str, Any]]:
    """The messages in a server's queue, where ``receive`` is the ``get`` of one.

    They stay in the queue, because the application may wait for them. In every Python so far (and
    by the documented `asyncio.Queue._get`) the queue is a deque of this name.

    Args:
        receive: The callable as the server gave it.
    """
    owner: object = getattr(receive, "__self__", None)
    kind: type = type(owner)
    waiting = find(owner, "_queue") if issubclass(kind, asyncio.Queue) else None
    return cast("Sequence[Mapping[str, Any]]", waiting) if isinstance(waiting, deque) else ()


def _owner(receive: object, send: object) -> object:
    """The server's object for the exchange, behind one of its callables."""
    if _is_queues(receive):
        return getattr(_behind_starlette(send), "__self__", None)
    return getattr(receive, "__self__", None)


def is_asgi_stopping(receive: object, send: object) -> bool:
    """Whether the server is stopping and waits for this exchange, as far as it shows that.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    sign = asgi_server(receive, send).stopping
    if sign is None:
        return False
    path, expected = sign
    found = find(_owner(receive, send), path)
    return (found() if callable(found) else found) is expected


def close_asgi(receive: object, send: object) -> None:
    """Make the server close the connection after the response, if there is a way.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    attribute = asgi_server(receive, send).closes
    owner: object = getattr(receive, "__self__", None)
    if attribute is None:
        return
    if hasattr(owner, attribute):
        setattr(owner, attribute, False)
    else:
        gone(owner, attribute)


def stop_reading(receive: object, send: object) -> None:
    """Stop the server from reading a connection that somebody else goes on reading.

    Args:
        receive: The callable as the server gave it.
        send: The other one.
    """
    path = asgi_server(receive, send).stops_reading
    stop = None if path is None else find(getattr(receive, "__self__", None), path)
    if callable(stop):
        # asyncio's for a transport that is closing, and uvloop's for one that is closed.
        with contextlib.suppress(RuntimeError):
            stop()


def asgi_package(receive: object, send: object) -> str:
    """The package of an ASGI server's callables.

    Args:
        receive: The callable as the server gave it.
        send: The other one, for servers whose ``receive`` is a plain queue's.
    """
    package = _package(receive)
    if package in ("asyncio", "trio"):
        send = _behind_starlette(send)
        package = _package(getattr(send, "func", send))
    return package


def _behind_starlette(send: object) -> object:
    # ServerErrorMiddleware.__call__ stands around every middleware of an application's own. It
    # hands on the server's receive, but a function of its own as send.
    if getattr(send, "__module__", None) == "starlette.middleware.errors":
        code: object = getattr(send, "__code__", None)
        names: tuple[str, ...] = getattr(code, "co_freevars", ())
        for name, cell in zip(names, getattr(send, "__closure__", None) or (), strict=False):
            if name == "send":
                return cell.cell_contents
    return send


def _package(call: object) -> str:
    module: object = getattr(call, "__module__", None)
    if module is None:
        # A compiled method has none, but its object's class does.
        module = type(getattr(call, "__self__", None)).__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def wsgi_server(environ: Mapping[str, Any], start_response: object = None) -> Server:
    """The server behind a WSGI environ.

    Args:
        environ: The environ.
        start_response: The callable, for servers that leave nothing of theirs in the environ:
            their own, or what others have put around it.
    """
    for key, server in _WSGI_KEYS:
        if key in environ:
            return server
    found = _WSGI.get(_package(start_response))
    if found is not None:
        return found
    for call in _through_wrappers(start_response):
        if getattr(call, "__name__", "") == "start_response" and _package(call) in _WSGI:
            return _WSGI[_package(call)]
    return UNKNOWN


def is_surely_there(environ: Mapping[str, Any]) -> bool:
    """Whether the client is certainly still there. This costs a normal request next to nothing.

    Args:
        environ: The environ. Where the server does not put its socket there, nothing is known.
    """
    sock = environ.get(_SOCKET_KEY)
    if sock is None:
        for key in _MORE_SOCKET_KEYS:
            if key in environ:
                sock = environ[key]
                break
        else:
            return False
    try:
        state: int = sock.getsockopt(_LEVEL, _OPTION)
    except (OSError, AttributeError):
        return False
    return state & TCP_STATE_MASK == TCP_ESTABLISHED


def wsgi_response(start_response: object, server: Server) -> object:
    """The server's own object behind ``start_response``, through what others put around it.

    Sentry and OpenTelemetry hand on a `functools.partial`, or a function with the server's in its
    closure.

    Args:
        start_response: The callable as the application, or the middleware, was given it.
        server: The server, as it was recognised.

    Returns:
        None if there is none, or if it cannot be found.
    """
    for call in _through_wrappers(start_response):
        owner: object = getattr(call, "__self__", None)
        if owner is not None and type(owner).__module__.partition(".")[0] == server.name:
            return owner
        if _package(call) == server.name:
            # The server's own function: eventlet's has its object in the closure.
            for cell in _cells(call):
                if type(cell).__module__.partition(".")[0] == server.name and not callable(cell):
                    return cell
    return None


_MOST_WRAPPERS: Final = 64


def _through_wrappers(call: object) -> Iterator[object]:
    """A callable, and the callables behind it as far as they are visible; the nearest first."""
    waiting, seen = [call], 0
    while waiting and seen < _MOST_WRAPPERS:
        each = waiting.pop(0)
        seen += 1
        yield each
        waiting += _wrapped_by(each)


def _wrapped_by(call: object) -> Iterator[object]:
    function: object = getattr(call, "__func__", call)
    kind: type = type(call)
    if issubclass(kind, functools.partial):
        partial = cast("functools.partial[object]", call)
        yield from (partial.func, *partial.args, *partial.keywords.values())
    yield from filter(callable, _cells(function))
    own: object = getattr(call, "__self__", None)
    for owner in (call, own):
        if not isinstance(owner, type | FunctionType | ModuleType):
            attributes: Mapping[str, object] = getattr(owner, "__dict__", {})
            yield from filter(callable, attributes.values())


def _cells(function: object) -> Iterator[object]:
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            # An empty one raises.
            yield cell.cell_contents


def cooperates_with(sock: object) -> str | None:
    """The package whose greenlets a socket waits with: nothing else may block there either.

    Args:
        sock: The client's socket.

    Returns:
        ``gevent`` or ``eventlet``; None for a socket that blocks its thread.
    """
    package = type(sock).__module__.partition(".")[0]
    return package if package in _INNER_SOCKETS else None


def plain_socket(sock: Any) -> Any:
    """The plain socket below one that would wait for a greenlet's turn.

    Args:
        sock: The client's socket.
    """
    package = type(sock).__module__.partition(".")[0]
    # gevent's sockets, and all classes derived from them, have it under this name.
    return getattr(sock, _INNER_SOCKETS.get(package, "_sock"), sock)


def is_servers_own(call: object, server: Server) -> bool:
    """Whether a callable is the server's own, and not a middleware's that wraps it.

    Args:
        call: The callable that the application, or a middleware inside, received.
        server: The server, as it was recognised.
    """
    return _package(call) == server.name
