"""ASGI's types and headers, as this package writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

from cleanclose.core.deliver.framing import NO_BODY, body_length, is_multiplexed
from cleanclose.servers import asgi_server

__all__ = [
    "ASGIApp",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "can_be_read_again",
    "client_address",
    "framing_headers",
    "header",
    "request_length",
]

_FRAMING: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"via"}
)

_SEQUENCES: Final = (tuple, list)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[Any]]


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


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """A header's value, several lines joined with commas; None if there is none.

    Args:
        headers: The headers. Applications need not write their names in lower case.
        name: The name, in lower case.
    """
    values = [value.decode("latin-1") for each, value in headers if each.lower() == name]
    return ",".join(values) if values else None


def request_length(scope: Scope, receive: Receive, send: Send) -> int:
    """The length of the body that may be left unread.

    Args:
        scope: The request's scope.
        receive: The server's ``receive``.
        send: The server's ``send``.

    Returns:
        `cleanclose.core.deliver.framing.NO_BODY` if there is none.
    """
    version = scope["http_version"]
    if not is_multiplexed(version):
        for name, _ in scope["headers"]:
            if name == b"content-length" or name == b"transfer-encoding":
                break
        else:
            return NO_BODY
    headers = framing_headers(scope["headers"])
    upgrade = headers.get(b"upgrade")
    return body_length(
        method=scope["method"],
        http_version=version,
        content_length=headers.get(b"content-length"),
        transfer_encoding=headers.get(b"transfer-encoding"),
        upgrade=upgrade,
        ends_at_upgrade=bool(upgrade) and asgi_server(receive, send).ends_at_upgrade,
    )


def framing_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """The headers that say how a request is framed, each with all of its values.

    Args:
        headers: The request's headers.
    """
    found: dict[bytes, str] = {}
    for name, value in headers:
        # Names come in lower case from servers; not always from applications.
        name = name.lower()
        if name in _FRAMING:
            text = value.decode("latin-1")
            found[name] = f"{found[name]},{text}" if name in found else text
    return found
