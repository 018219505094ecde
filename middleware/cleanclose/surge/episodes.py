"""Warnings that have been given: one episode is one warning.

An episode belongs to the finding, not to its cause: clients that keep one alive on purpose (by
leaving after 30 seconds) must not hide another one (clients that a proxy cuts after 60).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from cleanclose.core.events import Cause
from cleanclose.surge.departures import Departure, Finding, is_same

__all__ = ["LONGEST", "Episodes"]

LONGEST: Final = 3600.0
"""Seconds after which a window is looked at even if it is not full."""
_QUIET_WINDOWS: Final = 3
"""Windows without it end an episode."""
_OF_WINDOWS: Final = frozenset(
    {Cause.SAME_BYTES, Cause.SAME_AGE, Cause.IDLE_REUSE, Cause.ONE_CLIENT, Cause.ROUTE}
)
"""Causes that full windows are asked for."""
_MOST: Final = 16
"""How many episodes of one cause are remembered. Beyond that, the one that has not been seen for
longest is forgotten, and reported again if it comes back."""


@dataclasses.dataclass(slots=True)
class _Episode:
    """A surge that has been reported."""

    finding: Finding
    least: float
    """The share of a window from which on it is still there."""
    last_seen: float
    quiet: int = 0
    over: bool = False

    def go_on(self, is_there: bool, now: float) -> None:
        if is_there and now - self.last_seen <= 2 * LONGEST:
            self.last_seen, self.quiet = now, 0
            return
        self.quiet += 1
        self.over = self.quiet >= _QUIET_WINDOWS or now - self.last_seen > LONGEST


class Episodes:
    """The last episodes of each cause.

    Args:
        cool_down: For how many seconds after its end the same thing is not reported again.
    """

    __slots__ = ("_cool_down", "_of_cause")

    def __init__(self, cool_down: float) -> None:
        self._cool_down = cool_down
        self._of_cause: dict[Cause, list[_Episode]] = {}

    def set_aside(self, departures: Sequence[Departure], now: float) -> Sequence[Departure]:
        """The departures of a full window that no earlier warning explains.

        Args:
            departures: All of the window's.
            now: The time, in seconds.
        """
        rest = departures
        for cause, episodes in self._of_cause.items():
            for episode in episodes if cause in _OF_WINDOWS else ():
                if not episode.over:
                    before = len(rest)
                    fits = episode.finding.fits
                    rest = [departure for departure in rest if not fits(departure)]
                    share = (before - len(rest)) / max(1, len(departures))
                    episode.go_on(share >= episode.least, now)
        return rest

    def tell(self, cause: Cause, finding: Finding | None, now: float) -> list[Finding]:
        """A question has been put.

        Args:
            cause: The cause that was asked for.
            finding: What was found; None for nothing.
            now: The time, in seconds.

        Returns:
            The finding, if a warning is due.
        """
        episodes = self._of_cause.setdefault(cause, [])
        if cause not in _OF_WINDOWS:
            for episode in episodes:
                if not episode.over:
                    episode.go_on(finding is not None, now)
        if finding is None:
            return []
        known = next((each for each in episodes if is_same(each.finding, finding)), None)
        if known is not None:
            if cause in _OF_WINDOWS and not known.over:
                known.go_on(True, now)
            if not known.over or now - known.last_seen < self._cool_down:
                return []
            episodes.remove(known)
        if len(episodes) >= _MOST:
            episodes.remove(min(episodes, key=lambda each: each.last_seen))
        least = finding.count / max(1, finding.of) / 4
        episodes.append(_Episode(finding=finding, least=least, last_seen=now))
        return [finding]
