"""The requests that are measured, and what the variants are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

__all__ = [
    "ANSWER",
    "BARE",
    "BODY",
    "FORWARDING",
    "METHODS",
    "WRAPPED",
    "Batch",
    "Method",
    "fields",
    "wire",
]

Method = Literal["GET", "POST"]
METHODS: Final[tuple[Method, ...]] = ("GET", "POST")

Batch = Callable[[int], Callable[[], None]]
"""Prepares so many requests, and returns what serves them: only that is measured."""

BARE: Final = "bare"
FORWARDING: Final = "forwarding"
WRAPPED: Final = "cleanclose"

# What a browser sends.
_HEADERS: Final = (
    ("host", "uploads.example"),
    ("connection", "keep-alive"),
    ("x-forwarded-for", "192.0.2.17"),
    ("x-forwarded-proto", "https"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
)
BODY: Final = b'{"name": "report.pdf", "size": 16777216, "digest": "sha-256"}'
ANSWER: Final = b'{"status": "ok"}'


def fields(method: Method) -> tuple[tuple[str, str], ...]:
    """The headers of a request, behind a proxy.

    Args:
        method: The method; a POST has those of its body, too.
    """
    if method == "GET":
        return _HEADERS
    return (
        *_HEADERS,
        ("content-type", "application/json"),
        ("content-length", str(len(BODY))),
    )


def wire(method: Method, path: str = "/files") -> bytes:
    """A whole request, as a client sends it.

    Args:
        method: The method.
        path: The path.
    """
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields(method))]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if method == "GET" else head + BODY
