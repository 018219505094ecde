"""How long a request's body is, by its headers (RFC 9112 section 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = [
    "ANNOUNCES_BODY",
    "BODILESS",
    "CHUNKED",
    "LAST_CHUNK",
    "NO_BODY",
    "TOO_LONG",
    "WITHOUT_UPLOAD",
    "asks_for_websocket",
    "awaited_length",
    "body_length",
    "ends_chunks",
    "is_multiplexed",
    "needs_length",
    "response_length",
    "wants_continue",
]

CHUNKED: Final = -1
"""A body of unknown length: only its own end tells."""

NO_BODY: Final = 0
"""No body, or a body that cannot be told apart from what follows it on the connection."""

BODILESS: Final = frozenset({"GET", "HEAD"})
"""Methods whose requests' bodies have no defined meaning (RFC 9110, sections 9.3.1 and 9.3.2).
Where each look counts, nobody looks for one."""

WITHOUT_UPLOAD: Final = frozenset({"HEAD", "CONNECT"})
"""Methods whose requests bring nothing that is left unread."""

ANNOUNCES_BODY: Final = frozenset({"Content-Length", "Transfer-Encoding"})
"""Without one of these headers a request in HTTP/1.1 ends with its head."""

TOO_LONG: Final = 20
"""A length has fewer digits than this."""


LAST_CHUNK: Final = b"0\r\n\r\n"
"""The end of a chunked body."""


def ends_chunks(end: bytes) -> bool:
    """Whether a chunked body that was passed on undecoded is whole.

    Args:
        end: Its last bytes, as many as `LAST_CHUNK` has or more. Trailers, which hardly anybody
            sends, are not recognised.
    """
    return end.endswith(LAST_CHUNK)


def body_length(
    *,
    method: str,
    http_version: str,
    content_length: str | None,
    transfer_encoding: str | None,
    upgrade: str | None,
    ends_at_upgrade: bool = False,
) -> int:
    """The length of a request's body, if that body is ours to discard.

    Left alone, as if there were no body: HEAD, CONNECT and requests for an upgrade, where what
    follows may be no body at all; and a length that cannot be trusted, because nobody knows where
    such a body ends, and reading on could take the next request for a part of it.

    HTTP/2 and 3 need no length: a body ends with its stream (RFC 9113 section 8.1). An upgrade to
    ``h2c`` alone changes nothing: the body comes in HTTP/1.1, all of it, before anything else can
    (RFC 7540 section 3.2). Java's HttpClient asks for it with each upload in plain text.

    Args:
        method: The request's method.
        http_version: ``1.0``, ``1.1``, ``2`` …
        content_length: The value of Content-Length; several lines joined with commas.
        transfer_encoding: The value of Transfer-Encoding; several lines joined with commas.
        upgrade: The value of Upgrade.
        ends_at_upgrade: Whether the server takes any request for an upgrade to end at its head.

    Returns:
        A number of bytes, `CHUNKED` or `NO_BODY`.
    """
    if method in WITHOUT_UPLOAD:
        return NO_BODY
    if is_multiplexed(http_version):
        length = None if content_length is None else _decimal(content_length.strip())
        return CHUNKED if length is None else length
    if not http_version.startswith("1"):
        return NO_BODY
    if upgrade is not None and (ends_at_upgrade or upgrade.strip().lower() != "h2c"):
        return NO_BODY
    if transfer_encoding is not None:
        last = transfer_encoding.rsplit(",", 1)[-1].strip().lower()
        return CHUNKED if last == "chunked" else NO_BODY
    if content_length is None:
        return NO_BODY
    return _agreed(content_length) or NO_BODY


def asks_for_websocket(upgrade: str) -> bool:
    """Whether a request wants its connection to become a websocket's (RFC 6455, section 4.1).

    Args:
        upgrade: The value of Upgrade, a list of protocols.
    """
    return any(each.strip().lower() == "websocket" for each in upgrade.split(","))


def is_multiplexed(http_version: str) -> bool:
    """Whether requests of this version share a connection: HTTP/2 and 3."""
    return http_version.startswith(("2", "3"))


def response_length(content_length: str | None) -> int | None:
    """The length that a response's head declares; None without a valid one."""
    return None if content_length is None else _decimal(content_length.strip())


def awaited_length(method: str, status: int, content_length: str | None) -> int | None:
    """How much of a response's body the client waits for, according to the head.

    Args:
        method: The request's method.
        status: The response's status.
        content_length: The value of the response's Content-Length.

    Returns:
        A number of bytes; None if only the response's own end tells (RFC 9112 section 6.3).
    """
    return 0 if method == "HEAD" or status in (204, 304) else response_length(content_length)


def _agreed(content_length: str) -> int | None:
    if "," not in content_length:
        return _decimal(content_length.strip())
    # RFC 9110 section 8.6: a list of identical values may be taken for one of them.
    values = {value.strip() for value in content_length.split(",")}
    return _decimal(values.pop()) if len(values) == 1 else None


def _decimal(value: str) -> int | None:
    # int() alone would accept "+5", "1_000" and digits of other scripts, which no server should,
    # and would raise for thousands of digits.
    return int(value) if len(value) < TOO_LONG and value.isascii() and value.isdigit() else None


def needs_length(status: str, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a response that is complete may get a Content-Length.

    Args:
        status: Its status line, or the code.
        headers: Its headers. 1xx, 204 and 304 have no content (RFC 9110, section 6.4.1), and a
            response with a Transfer-Encoding must have no length (RFC 9112, section 6.2).
    """
    framing = {"content-length", "transfer-encoding"}
    if status[:3] in ("204", "304") or status[:1] == "1":
        return False
    return framing.isdisjoint(name.lower() for name, _ in headers)


def wants_continue(expect: str | None) -> bool:
    """Whether the client announced that it waits for a 100 (RFC 9110 section 10.1.1)."""
    return expect is not None and expect.strip().lower() == "100-continue"
