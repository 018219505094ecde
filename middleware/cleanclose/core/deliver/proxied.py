"""Whether a proxy stands between the client and the server, judged by the headers that it adds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cleanclose.core.deliver.framing import wants_continue

__all__ = ["PROXY_FIELDS", "awaits_continue", "is_proxied", "names_caddy"]

PROXY_FIELDS: Final = frozenset(
    {
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
    }
)
"""Names of the header fields, in lower case, that a proxy adds to a request (RFC 9110, section
7.6.3; RFC 7239; and the ones in common use before it). A client that sends one itself only waits
longer for its own answer."""


def names_caddy(via: str | None) -> bool:
    """Whether a ``Via`` field names Caddy.

    Caddy answers a client's ``Expect`` itself and still passes the field on, so the field does not
    mean that anybody waits.

    Args:
        via: The field's value, several lines joined with commas; None if there is none.
    """
    # Each entry is a protocol and a name (RFC 9110, section 7.6.3): `1.1 Caddy`, `2.0 Caddy`.
    entries = via.lower().split(",") if via else ()
    return any("caddy" in entry.split()[1:2] for entry in entries)


def is_proxied(names: Iterable[str]) -> bool:
    """Whether a request shows a proxy.

    Args:
        names: The names of its header fields, in any case.
    """
    return not PROXY_FIELDS.isdisjoint(name.lower() for name in names)


def awaits_continue(expect: str | None, via: str | None) -> bool:
    """Whether whoever sends a request's body waits for a 100 before it does.

    Args:
        expect: The value of ``Expect``; None if there is none.
        via: The value of ``Via``, several lines joined with commas; None if there is none.
    """
    return wants_continue(expect) and not names_caddy(via)
