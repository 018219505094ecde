"""ASGI's types, as this package writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "header"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[Any]]


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """A header's value, several lines joined with commas; None if there is none.

    Args:
        headers: The headers. Applications need not write their names in lower case.
        name: The name, in lower case.
    """
    values = [value.decode("latin-1") for each, value in headers if each.lower() == name]
    return ",".join(values) if values else None
