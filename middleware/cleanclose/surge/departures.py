"""The data kept of a departure, and what a question may find in many of them."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

from cleanclose.core.events import Cause, ClientDeparted, Facts, Phase, Witness

__all__ = [
    "SLOWEST",
    "Departure",
    "Finding",
    "Fits",
    "departure_of",
    "is_same",
    "network_of",
    "nothing",
    "route_of",
]

SLOWEST: Final = 1.0
"""Seconds below which equal ages, or idle times, are nobody's time-out."""
_PRECISE: Final = frozenset({Witness.RECEIVE, Witness.STREAM, Witness.INPUT})
"""Witnesses that are there at the very moment, if the moment is known at all."""


class Departure(NamedTuple):
    """What is kept of one departure."""

    network: str
    route: str
    age: float
    """Seconds until it left, or until that was seen."""
    is_precise: bool
    """Whether it is the first."""
    bytes_in: int
    """Of a body that was cut off; 0 for none."""
    idle: float
    """Seconds that the connection had been idle, if it left at once; -1 if that is not known."""


Fits = Callable[[Departure], bool]
"""Whether a departure belongs to what has been found."""


@dataclasses.dataclass(slots=True)
class Finding:
    """What one question has found."""

    cause: Cause
    count: int
    of: int
    usual: float | None
    fits: Fits
    about: Hashable = None
    """What identifies the finding: a network, a route. None if the cause has only one thing to
    find, or if `near` identifies it."""
    near: float = 0.0
    """How far from each other two findings of the same cause may be, at ``seconds_each``."""
    since: float | None = None
    """Since when departures were looked at; None for the window's beginning."""
    seconds: float = 0.0
    route: str | None = None
    network: str | None = None
    seconds_each: float | None = None
    bytes_each: int | None = None
    hint: str | None = None


def is_same(one: Finding, other: Finding) -> bool:
    """Whether two findings of one cause have found the same thing."""
    if one.seconds_each is not None and other.seconds_each is not None:
        return abs(one.seconds_each - other.seconds_each) <= max(one.near, other.near)
    return one.about == other.about


def nothing(departure: Departure) -> bool:
    """Fits a finding that is not about what departures have in common."""
    return False


def network_of(client: str | None) -> str:
    """The network that a client's address belongs to: its /24, or for IPv6 its /64.

    Args:
        client: The address. What is none (a UNIX socket's path) is a network of its own.

    Returns:
        The network; empty if there is no address.
    """
    if not client:
        return ""
    # By hand where that is safe, which is nearly always: this runs for every departure.
    first, _, rest = client.rpartition(".")
    if first and ":" not in client and rest.isdecimal() and first.count(".") == 2:
        return f"{first[:60]}.0/24"
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64]
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return network_of(str(mapped))
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def route_of(facts: Facts) -> str:
    """The route of a request, bounded in length; empty if there is none."""
    return "" if facts.route is None else facts.route[:200]


def departure_of(event: ClientDeparted) -> Departure:
    """What is kept of this departure."""
    facts, verdict = event.facts, event.verdict
    age = event.age_ms / 1000
    is_known = event.wasted_seconds is not None
    if event.wasted_seconds is not None:
        age -= event.wasted_seconds
    is_precise = is_known and verdict.witnesses[:1] != () and verdict.witnesses[0] in _PRECISE
    is_cut_off = verdict.phase is Phase.REQUEST_BODY and event.bytes_in != event.expected_in
    at_once = event.idle_seconds is not None and age <= SLOWEST
    return Departure(
        network=network_of(facts.client),
        route=route_of(facts),
        age=age,
        is_precise=is_precise,
        bytes_in=event.bytes_in if is_cut_off else 0,
        idle=event.idle_seconds if at_once and event.idle_seconds is not None else -1.0,
    )
