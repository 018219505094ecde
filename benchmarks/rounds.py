"""Many short rounds, the variants by turns in each of them.

Two statistics, for two purposes:

- A ratio of whole costs is the **median of the rounds' own ratios**, or for very small costs the
  ratio of minima: within a round, a few
  milliseconds, the variants met the same machine, and a round that was disturbed is an outlier
  that the median does not see.
- The cost of one variant is its **minimum**: whatever disturbs a round makes it slower, never
  faster. An added cost is the difference of two minima, because in a single round that
  difference is smaller than the noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Costs", "take_turns"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What each variant cost in each round, in nanoseconds per request."""

    of: Mapping[str, Sequence[float]]

    def least(self, variant: str) -> float:
        """The cost of a variant: its least disturbed round."""
        return min(self.of[variant])

    def ratio(self, variant: str, to: str) -> float:
        """How many times the cost of ``to`` the variant costs, all in all."""
        pairs = zip(self.of[variant], self.of[to], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def least_ratio(self, variant: str, to: str) -> float:
        """The same for the least disturbed round of each.

        For costs of a microsecond: a machine that does something else adds to every round.
        """
        return self.least(variant) / self.least(to)

    def added_ratio(self, variant: str, to: str, *, over: str) -> float:
        """The same for what the two add to the cost of ``over``."""
        base = self.least(over)
        added = self.least(to) - base
        return (self.least(variant) - base) / added if added > 0 else float("inf")


def take_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> Costs:
    """Run every variant once per round; each round begins with another one.

    Args:
        variants: By name, what runs a batch of requests and returns the cost of one.
        rounds: How many rounds. One more is run before them and not counted.
    """
    names = list(variants)
    costs: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            cost = variants[name]()
            if number >= 0:
                costs[name].append(cost)
    return Costs(costs)
