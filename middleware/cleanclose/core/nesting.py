"""A request that begins while its thread or task works for another exchange already."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from cleanclose.core.blame.watch import Watch

__all__ = ["Nesting", "nesting_of"]


class Nesting(enum.Enum):
    """What such a request is to the other exchange."""

    SAME = "its own request, which an inner middleware gets: one exchange, the outer one reports it"
    CALLED = "a call of the application's own, as a client's: the other exchange goes on behind it"
    NEXT = "the next one: the other is over, or the server has dropped its response silently"


def nesting_of(outer: Watch, request: Mapping[str, Any], *, from_server: bool) -> Nesting:
    """What a request is to the exchange that is being worked for.

    Args:
        outer: That exchange.
        request: The request, as the interface hands it on: a scope, an environ.
        from_server: Whether the server itself hands it on, which serves one at a time there.
    """
    if outer.ended:
        return Nesting.NEXT
    if outer.is_for(request):
        return Nesting.SAME
    return Nesting.NEXT if from_server else Nesting.CALLED
