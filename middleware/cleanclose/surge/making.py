"""Makes a shim's reporter in one line."""

from __future__ import annotations

from collections.abc import Sequence

from cleanclose.core.settings import Settings, SurgeThresholds
from cleanclose.core.tell.outlet import Outlet
from cleanclose.core.tell.reporter import Reporter
from cleanclose.surge.detector import Surge

__all__ = ["make_reporter"]


def make_reporter(outlets: Sequence[Outlet] | None, settings: Settings) -> Reporter:
    """A reporter with the levels of these settings, and with a detector of its own if they want it.

    Args:
        outlets: The outlets, called in this order. None: one `cleanclose.core.StructlogOutlet`.
        settings: What the user has set.

    Raises:
        TypeError: One of the outlets cannot be called, or would have to be awaited.
    """
    wanted = settings.surge
    thresholds = wanted if isinstance(wanted, SurgeThresholds) else None
    return Reporter(
        outlets, levels=settings.level_table(), surge=Surge(thresholds) if wanted else None
    )
