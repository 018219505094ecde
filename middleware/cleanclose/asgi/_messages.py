"""ASGI's types and headers, as this package writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from cleanclose.core.deliver.framing import body_length, needs_length

__all__ = [
    "ASGIApp",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "can_be_read_again",
    "client_address",
    "fields",
    "request_length",
    "size_of",
    "with_close",
    "with_length",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[Any]]

_SEQUENCES: Final = (tuple, list)


def can_be_read_again(headers: Any) -> bool:
    """Whether headers survive being read, so that later readers lose nothing.

    ASGI allows iterables of iterables, which may be for a single iteration; servers give lists of
    pairs. The first pair speaks for all of them.

    Args:
        headers: The headers of a request or of a response.
    """
    return _is_sequence(headers) and (not headers or _is_sequence(headers[0]))


def client_address(scope: Scope) -> str | None:
    """The client's address; None if the server does not know it, or if it can be read only once.

    Args:
        scope: The request's scope.
    """
    client: Any = scope.get("client")
    return str(client[0]) if client and _is_sequence(client) else None


def _is_sequence(value: object) -> bool:
    kind: type = type(value)
    return kind in _SEQUENCES or issubclass(kind, Sequence)


def fields(message: Scope | Message) -> dict[str, str]:
    """The headers of a request or of a response, by their names in lower case.

    Those of several lines are joined with commas. Applications need not write the names in lower
    case.

    Args:
        message: The request's scope, or the response's start. If its headers can be read only
            once, there are none.
    """
    headers: Any = message.get("headers", ())
    found: dict[str, str] = {}
    for raw, value in headers if can_be_read_again(headers) else ():
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def request_length(scope: Scope, headers: Mapping[str, str], *, ends_at_upgrade: bool) -> int:
    """The length of the body that may be left unread.

    Args:
        scope: The request's scope.
        headers: Its `fields`.
        ends_at_upgrade: As of `cleanclose.core.server.Server`.

    Returns:
        `cleanclose.core.deliver.framing.NO_BODY` if there is none.
    """
    return body_length(
        method=scope["method"],
        http_version=scope["http_version"],
        content_length=headers.get("content-length"),
        transfer_encoding=headers.get("transfer-encoding"),
        upgrade=headers.get("upgrade"),
        ends_at_upgrade=ends_at_upgrade,
    )


def size_of(message: Message) -> int:
    """How many bytes of a body a message brings.

    Args:
        message: An ``http.request`` or an ``http.response.body``, or something without a body.
    """
    return len(message.get("body", b""))


def with_length(head: Message, pieces: Sequence[Message]) -> Message:
    """The head of a complete response, with its length.

    Without one the connection's end would be the response's, or a chunk's: some proxies make an
    error of an end that comes behind a response which they have passed on.

    Args:
        head: The head.
        pieces: All of its body.
    """
    names = ((name.decode("latin-1"), "") for name, _ in head["headers"])
    if not needs_length(str(head["status"]), names):
        return head
    size = sum(map(size_of, pieces))
    return {**head, "headers": [*head["headers"], (b"content-length", b"%d" % size)]}


def with_close(head: Message) -> Message:
    """The head of a response behind which the connection is closed.

    Args:
        head: The head.
    """
    headers = [pair for pair in head["headers"] if pair[0].lower() != b"connection"]
    return {**head, "headers": [*headers, (b"connection", b"close")]}
