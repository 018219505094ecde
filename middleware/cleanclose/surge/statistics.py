"""The intervals and tails that every question rests on: pure functions of counts."""

from __future__ import annotations

import math

__all__ = [
    "binomial_tail",
    "log_odds",
    "poisson_tail",
    "twice_the_odds",
    "upper_count",
    "upper_share",
]


def log_odds(count: float, of: float) -> tuple[float, float]:
    """The logarithm of the odds, and the square of its error.

    Args:
        count: How many.
        of: Of how many. One half is added on either side, so that none and all have odds too.
    """
    yes, no = count + 0.5, of - count + 0.5
    return math.log(yes / no), 1 / yes + 1 / no


def upper_share(count: float, of: float, z: float = 4.0) -> float:
    """The upper end of Wilson's interval for a share (Wilson, 1927).

    Args:
        count: How many.
        of: Of how many; above 0.
        z: How wide the interval is, in standard deviations. Default 4.
    """
    share, part = count / of, z * z / of
    middle = share + part / 2
    return min(
        1.0, (middle + z * math.sqrt(share * (1 - share) / of + part / (4 * of))) / (1 + part)
    )


def upper_count(count: float, z: float = 3.0) -> float:
    """The upper end of the score interval of a Poisson mean.

    Args:
        count: How many were seen.
        z: How wide the interval is, in standard deviations. Default 3.
    """
    return count + z * z / 2 + z * math.sqrt(count + z * z / 4)


def twice_the_odds(share: float) -> float:
    """The share whose odds are twice those of this one."""
    return 2 * share / (1 + share)


def binomial_tail(count: int, of: int, chance: float) -> float:
    """The probability of ``count`` or more successes, of so many; 1 for not more than the mean.

    Args:
        count: How many.
        of: Of how many.
        chance: The probability of each.
    """
    # Below the mean it is next to 1, and the first term too small for a float.
    if count <= of * chance:
        return 1.0
    if count > of or chance <= 0:
        return 0.0
    log_term = (
        math.lgamma(of + 1)
        - math.lgamma(count + 1)
        - math.lgamma(of - count + 1)
        + count * math.log(chance)
        + (of - count) * math.log1p(-chance)
    )
    term = total = math.exp(log_term)
    odds = chance / (1 - chance)
    for number in range(count, of):
        term *= (of - number) / (number + 1) * odds
        total += term
    return min(1.0, total)


def poisson_tail(count: int, mean: float) -> float:
    """The probability of ``count`` or more, of so many on average; 1 for not more than these.

    Args:
        count: How many.
        mean: How many there are on average; infinite if that is not known.
    """
    if count <= mean or math.isinf(mean):
        return 1.0
    if mean <= 0:
        return 0.0
    term = total = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    # Each term is less than mean / count times the one before.
    number = count
    while term > total * 1e-12:
        number += 1
        term *= mean / number
        total += term
    return min(1.0, total)
