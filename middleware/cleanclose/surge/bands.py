"""Questions about a narrow band: the same byte count, the same age, the same idle time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cleanclose.core.events import Cause
from cleanclose.surge.departures import SLOWEST, Departure, Finding, Fits
from cleanclose.surge.look import LEAST_SHARE, Look
from cleanclose.surge.statistics import binomial_tail

__all__ = ["same_age", "same_bytes", "same_idle"]

_LATEST: Final = 7200.0
_KNOWN: Final = (
    5,
    10,
    15,
    20,
    29,
    30,
    45,
    60,
    75,
    90,
    100,
    120,
    180,
    230,
    240,
    300,
    350,
    600,
    3600,
)
"""Time-outs in use, in seconds."""
_AGE_HINTS: Final = {
    5: "the default of many clients",
    15: "Envoy's route timeout",
    29: "the limit of AWS API Gateway",
    30: "Heroku's router; Google Cloud's backend service; the default of many clients",
    60: "nginx proxy_read_timeout; idle timeout of an AWS application load balancer",
    75: "nginx keepalive_timeout",
    100: "Cloudflare",
    230: "Azure App Service",
    240: "Azure Load Balancer",
    350: "AWS network load balancer",
}
_IDLE_HINTS: Final = {
    5: "keep-alive of uvicorn, Node.js and Apache",
    60: "idle timeout of an AWS application load balancer; nginx upstream keepalive_timeout",
    75: "nginx keepalive_timeout",
    90: "Go's IdleConnTimeout",
    240: "Azure Load Balancer",
    350: "AWS network load balancer",
}
_PAGE: Final = 4096
_PIECE: Final = 65536
"""The size in which servers and applications read: byte counts are often multiples of it."""


def same_bytes(look: Look) -> Finding | None:
    """Too many bodies that were cut off after the same number of bytes."""
    rest = look.rest
    values = Counter(departure.bytes_in for departure in rest if departure.bytes_in)
    if not values:
        return None
    value, count = values.most_common(1)[0]
    near = sum(number for other, number in values.items() if value / 1.5 <= other <= value * 1.5)
    cells = value * (1.5 - 1 / 1.5) / _PIECE if value % _PAGE == 0 else 32.0
    chance = min(0.5, 2 / max(cells, 1.0))
    if cells < 2 or not _is_dense(look, count, near, chance, len(values)):
        return None

    def fits(departure: Departure) -> bool:
        return departure.bytes_in == value

    usual = look.memory.usually(fits)
    if not look.is_new(count, usual):
        return None
    return Finding(
        cause=Cause.SAME_BYTES,
        count=count,
        of=len(rest),
        usual=None if usual is None else usual[0] / usual[1],
        fits=fits,
        about=value,
        bytes_each=value,
        hint="a limit for bodies in front of this process; or, of a few packets, an MTU that "
        "some link on the way does not take",
    )


def same_age(look: Look) -> Finding | None:
    """Too many requests whose clients left at the same age."""
    rest = look.rest
    precise = [departure.age for departure in rest if departure.is_precise]
    found = _densest(look, precise)
    if found is None:
        every = [departure.age for departure in rest]
        found = _densest(look, every)
        if found is None or _known(found[0]) is None:
            return None
    middle, count = found
    fits = _band(_age, middle)
    usual = look.memory.usually(fits)
    if not look.is_new(count, usual):
        return None
    known = _known(middle)
    return Finding(
        cause=Cause.SAME_AGE,
        count=count,
        of=len(rest),
        usual=None if usual is None else usual[0] / usual[1],
        fits=fits,
        near=2 * _width(middle),
        seconds_each=middle if known is None else float(known),
        hint=_hint("a time-out in front of this process", _AGE_HINTS, known),
    )


def same_idle(look: Look) -> Finding | None:
    """Too many connections that were left at once after the same idle time."""
    rest = look.rest
    found = _densest(look, [departure.idle for departure in rest])
    if found is None:
        return None
    middle, count = found
    fits = _band(_idle, middle)
    usual = look.memory.usually(fits)
    # The connections of pages that ask every five seconds are always idle for that long.
    if usual is None or not look.is_new(count, usual):
        return None
    known = _known(middle)
    return Finding(
        cause=Cause.IDLE_REUSE,
        count=count,
        of=len(rest),
        usual=usual[0] / usual[1],
        fits=fits,
        near=2 * _width(middle),
        seconds_each=middle if known is None else float(known),
        hint=_hint(
            "somebody forgets idle connections that another one still uses", _IDLE_HINTS, known
        ),
    )


def _is_dense(look: Look, count: int, near: int, chance: float, bands: int) -> bool:
    return (
        count >= LEAST_SHARE * len(look.rest)
        and binomial_tail(count, near, chance) * bands < look.risk
    )


def _densest(look: Look, values: Iterable[float]) -> tuple[float, int] | None:
    """The narrow band with the most values, if there are too many in it.

    Returns:
        Its middle, and how many.
    """
    ordered = sorted(value for value in values if SLOWEST <= value <= _LATEST)
    best, most, first = 0.0, 0, 0
    for last, value in enumerate(ordered):
        while value > ordered[first] + _width(ordered[first]):
            first += 1
        if last - first + 1 > most:
            best, most = ordered[(first + last) // 2], last - first + 1
    if not most:
        return None
    near = sum(best / 1.5 <= value <= best * 1.5 for value in ordered)
    chance = min(0.5, 3 * math.log1p(_width(best) / best) / math.log(2.25))
    if not _is_dense(look, most, near, chance, len(ordered)):
        return None
    return best, most


def _age(departure: Departure) -> float:
    return departure.age


def _idle(departure: Departure) -> float:
    return departure.idle


def _width(value: float) -> float:
    """How far apart equal times may be: a fiftieth, and at least the delay of a busy machine."""
    return max(0.1, value / 50)


def _band(of: Callable[[Departure], float], middle: float) -> Fits:
    """Whether a departure's time is the same as this one, with room for stragglers."""
    room = 2 * _width(middle)

    def fits(departure: Departure) -> bool:
        return abs(of(departure) - middle) <= room

    return fits


def _known(seconds: float) -> int | None:
    return next((known for known in _KNOWN if abs(seconds - known) <= _width(known)), None)


def _hint(text: str, hints: Mapping[int, str], known: int | None) -> str:
    example = None if known is None else hints.get(known)
    return text if example is None else f"{text}; {known} s: {example}"
