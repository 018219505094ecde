"""The material for a question: a full window, what came before, and when to be sure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from cleanclose.surge.departures import Departure
from cleanclose.surge.memory import Memory, Window
from cleanclose.surge.statistics import binomial_tail, twice_the_odds, upper_share

__all__ = ["LEAST_SHARE", "Look"]

LEAST_SHARE: Final = 0.25
"""A smaller part of the departures is no surge."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One look at a full window.

    Args:
        rest: The window's departures that nothing explains yet.
        window: The window.
        memory: What came before.
        least: How many departures are looked at together at least.
        risk: The probability with which random departures may be called a surge.
    """

    rest: Sequence[Departure]
    window: Window
    memory: Memory
    least: int
    risk: float

    def is_new(self, count: int, usual: tuple[int, int] | None) -> bool:
        """Whether so many of the rest are more than usual.

        Args:
            count: How many.
            usual: What `Memory.usually` says of the same.
        """
        if usual is None:
            return True
        upper = twice_the_odds(upper_share(*usual))
        return binomial_tail(count, len(self.rest), upper) < self.risk
