"""This process's own part: lost early responses, and departures that it has caused."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from cleanclose.core.events import Cause
from cleanclose.surge.departures import Finding, nothing
from cleanclose.surge.look import LEAST_SHARE
from cleanclose.surge.memory import ENOUGH
from cleanclose.surge.statistics import (
    binomial_tail,
    poisson_tail,
    twice_the_odds,
    upper_count,
    upper_share,
)

__all__ = ["Cuts", "Responses", "Start"]

_STOP_SECONDS: Final = 5.0
_START_SECONDS: Final = 10.0
_START_KNOWN: Final = 30.0
"""Seconds after which there is something to compare the first ones with."""
_BURST: Final = 10
"""Fewer at once are no burst, however quiet it has been."""
_RECENT: Final = 64
_MINUTES: Final = 60
"""Minutes with such departures that are remembered."""


class Responses:
    """Early responses since the last look, and before."""

    __slots__ = ("failed", "last", "of", "started", "usual")

    def __init__(self, now: float, before: Responses | None = None, *, learn: bool = True) -> None:
        self.started: float = now
        self.failed: int = 0
        self.of: int = 0
        self.usual: tuple[float, float] = (0.0, 0.0)
        self.last: tuple[int, int] = (0, 0)
        if before is not None:
            # One window late, as with departures.
            failed, of = (kept * 0.9 for kept in before.usual)
            self.usual = (failed + before.last[0], of + before.last[1])
            self.last = (before.failed, before.of) if learn else (0, 0)

    def too_many(self, risk: float) -> Finding | None:
        """Whether more of them were lost than before."""
        failed, of = self.usual
        if of < ENOUGH or self.failed < LEAST_SHARE * self.of:
            return None
        upper = twice_the_odds(upper_share(failed, of))
        if binomial_tail(self.failed, self.of, upper) >= risk:
            return None
        return Finding(
            cause=Cause.UNDELIVERED,
            count=self.failed,
            of=self.of,
            usual=failed / of,
            fits=nothing,
            hint="a proxy in front of this process, or the clients, stop before they have the "
            "response",
        )


class Cuts:
    """Departures which this process has caused."""

    __slots__ = ("minutes", "recent")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.minutes: deque[list[float]] = deque(maxlen=_MINUTES)
        """The minute, and how many."""

    def too_many(self, now: float, started: float, risk: float) -> Finding | None:
        """Another one: whether it is one of a burst.

        Args:
            now: The time, in seconds.
            started: Since when events are seen, on the same clock.
            risk: The probability with which random departures may be called a surge.
        """
        count, usual = self._seen(now, started)
        if count < _BURST or poisson_tail(count, usual) * _RECENT >= risk:
            return None
        return Finding(
            cause=Cause.DEPLOY,
            count=count,
            of=count,
            usual=None,
            fits=nothing,
            seconds=_STOP_SECONDS,
            hint="this process has cut them: it is being stopped, or a time limit around the "
            "application ran out for all of them at once",
        )

    def _seen(self, now: float, started: float) -> tuple[int, float]:
        """Another one.

        Returns:
            How many there were within `_STOP_SECONDS`, and how many there might have been by
            what is usual.
        """
        minute = now // 60
        if not self.minutes or self.minutes[-1][0] != minute:
            self.minutes.append([minute, 0])
        self.minutes[-1][1] += 1
        self.recent.append(now)
        count = sum(now - time <= _STOP_SECONDS for time in self.recent)
        known = min(now - started, self._known(minute)) - _STOP_SECONDS
        if known <= 0:
            return count, math.inf
        before = max(0.0, sum(number for _, number in self.minutes) - count)
        return count, 2 * upper_count(before) / known * _STOP_SECONDS

    def _known(self, minute: float) -> float:
        """Seconds that the minutes stand for: without end as long as none was thrown away."""
        if len(self.minutes) < _MINUTES:
            return math.inf
        return (minute - self.minutes[0][0]) * 60


class Start:
    """The first seconds of this process, as against those that follow."""

    __slots__ = ("_early", "_is_over", "_later")

    def __init__(self) -> None:
        self._early = 0
        self._later = 0
        self._is_over = False

    def too_many(self, age: float, risk: float) -> Finding | None:
        """Another departure: whether there were too many at first.

        Args:
            age: Seconds since events are seen.
            risk: The probability with which random departures may be called a surge.
        """
        if self._is_over:
            return None
        if age < _START_SECONDS:
            self._early += 1
            return None
        self._later += 1
        if age < _START_KNOWN:
            return None
        self._is_over = True
        rate = upper_count(self._later) / (age - _START_SECONDS)
        if poisson_tail(self._early, 2 * rate * _START_SECONDS) >= risk:
            return None
        return Finding(
            cause=Cause.DEPLOY,
            count=self._early,
            of=self._early + self._later,
            usual=None,
            fits=nothing,
            seconds=age,
            hint="in the first seconds of this process",
        )
