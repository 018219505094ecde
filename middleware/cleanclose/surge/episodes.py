"""Warnings that have been given: one episode is one warning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from cleanclose.core.events import Cause
from cleanclose.surge.departures import Departure, Finding, Fits

__all__ = ["LONGEST", "Episodes"]

LONGEST: Final = 3600.0
"""Seconds after which a window is looked at even if it is not full."""
_QUIET_WINDOWS: Final = 3
"""Windows without it end an episode."""
_OF_WINDOWS: Final = frozenset(
    {Cause.SAME_BYTES, Cause.SAME_AGE, Cause.IDLE_REUSE, Cause.ONE_CLIENT, Cause.ROUTE}
)
"""Causes that full windows are asked for."""


@dataclasses.dataclass(slots=True)
class _Episode:
    """A surge that has been told."""

    fits: Fits
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
    """The last episode of each cause.

    Args:
        cool_down: For how many seconds after its end the same cause is not told again.
    """

    __slots__ = ("_by_cause", "_cool_down")

    def __init__(self, cool_down: float) -> None:
        self._cool_down = cool_down
        self._by_cause: dict[Cause, _Episode] = {}

    def set_aside(self, departures: Sequence[Departure], now: float) -> Sequence[Departure]:
        """What is left of a full window without what has been told already.

        Args:
            departures: All of the window's.
            now: The time, in seconds.
        """
        rest = departures
        for cause, episode in self._by_cause.items():
            if cause in _OF_WINDOWS and not episode.over:
                before = len(rest)
                rest = [departure for departure in rest if not episode.fits(departure)]
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
            The finding, if it is to be told.
        """
        episode = self._by_cause.get(cause)
        if episode is not None and not episode.over:
            episode.go_on(finding is not None, now)
        if finding is None:
            return []
        if episode is not None and (not episode.over or now - episode.last_seen < self._cool_down):
            return []
        self._by_cause[cause] = _Episode(
            fits=finding.fits, least=finding.count / max(1, finding.of) / 4, last_seen=now
        )
        return [finding]
