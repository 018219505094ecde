"""Questions about a share: a client or a route with more departures than its requests explain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from cleanclose.core.events import Cause
from cleanclose.surge.departures import Departure, Finding
from cleanclose.surge.look import LEAST_SHARE, Look
from cleanclose.surge.memory import ENOUGH, Mix, Tally, network_key, route_key
from cleanclose.surge.statistics import binomial_tail, log_odds

__all__ = ["one_client", "one_route"]

_UNLIKE: Final = 0.36
"""How unlike each other clients, or routes, are: the variance of the logarithm of how much more
often than on average they are left. (One in a thousand is left 6 times as often.)"""
_ENDED_AS_USUAL: Final = 5
"""Requests on a route, of the samples, before which nothing is said about it."""
_PLAINLY: Final = 3.0
"""Standard deviations beyond which a route is of another kind. With fewer, two windows of a fault
would make it one."""


def one_client(look: Look) -> Finding | None:
    """One client, or one network, that leaves more often than its requests explain."""
    found = _too_many(look, network_key, Mix.of_networks)
    if found is None:
        return None
    network, count, of, usual, since = found

    def fits(departure: Departure) -> bool:
        return departure.network == network

    return Finding(
        cause=Cause.ONE_CLIENT,
        count=count,
        of=of,
        usual=usual,
        fits=fits,
        since=since,
        about=network,
        network=network,
        hint="one client, or one network, and nobody else",
    )


def one_route(look: Look) -> Finding | None:
    """One route that is left more often than its requests explain."""
    found = _too_many(look, route_key, Mix.of_routes)
    if found is None:
        return None
    route, count, of, usual, since = found
    asked = [look.memory.requests, look.window.requests]
    if look.memory.last is not None:
        asked.append(look.memory.last.requests)
    if sum(mix.routes.of(route) for mix in asked) < _ENDED_AS_USUAL:
        return None

    def fits(departure: Departure) -> bool:
        return departure.route == route

    return Finding(
        cause=Cause.ROUTE,
        count=count,
        of=of,
        usual=usual,
        fits=fits,
        since=since,
        about=route,
        route=route,
        hint="it has become slow, or fails in a way that makes clients give up",
    )


def _too_many(
    look: Look, key_of: Callable[[Departure], str], tally_of: Callable[[Mix], Tally]
) -> tuple[str, int, int, float, float] | None:
    """The key with more departures than its requests explain.

    The search covers the window, and then this window and the last one together: little is known
    about most keys, and such keys need more departures.

    Returns:
        The key, how many have it, of how many, the share that was to be expected, and
        since when they were looked at.
    """
    since, last = look.window.started, look.memory.last
    keys = [key for departure in look.rest if (key := key_of(departure))]
    requests = tally_of(look.window.requests)
    found = _too_many_of(look, keys, requests, tally_of)
    if found is None and last is not None:
        both = Tally()
        for part in (requests, tally_of(last.requests)):
            both.merge(part.counts, part.total, 1.0)
        keys += [key for departure in last.departures if (key := key_of(departure))]
        found = _too_many_of(look, keys, both, tally_of)
        since = last.started
    return None if found is None else (*found, since)


def _too_many_of(
    look: Look, keys: Sequence[str], requests: Tally, tally_of: Callable[[Mix], Tally]
) -> tuple[str, int, int, float] | None:
    usual, usual_requests = tally_of(look.memory.left), tally_of(look.memory.requests)
    of = len(keys)
    known = min(usual.total, requests.total, usual_requests.total)
    if of < look.least // 2 or known < ENOUGH - 0.5:
        return None
    counts = Counter(keys)
    key, count = counts.most_common(1)[0]
    if count < 2 * LEAST_SHARE * of:
        return None
    asked, asked_error = log_odds(requests.of(key), requests.total)
    # How much more often than others it was left before, shrunk to "as often" ...
    left, before = usual.of(key), usual_requests.of(key)
    ratio = math.log((left + 1) / (usual.total * before / usual_requests.total + 1))
    error = 1 / (left + 1) + 1 / (before + 1)
    weight = _UNLIKE / (_UNLIKE + error)
    expected, spread = asked + weight * ratio, asked_error + weight * error
    is_route = tally_of is Mix.of_routes
    if is_route and ratio > _PLAINLY * math.sqrt(_UNLIKE + error):
        # ... unless it is a route of another kind: all of an event stream's clients leave it.
        left_odds, left_error = log_odds(left, usual.total)
        before_odds, before_error = log_odds(before, usual_requests.total)
        expected = asked + left_odds - before_odds
        spread = asked_error + left_error + before_error
    spread = 3 * math.sqrt(spread + 0.35**2)
    upper = 1 / (1 + math.exp(-min(expected + spread, 700.0)))
    if binomial_tail(count, of, upper) * len(counts) >= look.risk:
        return None
    return key, count, of, 1 / (1 + math.exp(-expected))
