"""Waiting for what a test needs to see, with one generous limit for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["LIMIT", "until"]

LIMIT: Final = 60.0
"""Seconds after which nothing comes any more, on the slowest machine."""

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25


def until(is_so: Callable[[], object], what: object = None, seconds: float = LIMIT) -> None:
    """Wait until something is so.

    Args:
        is_so: Whether it is.
        what: What to show if it never is; called, if it can be.
        seconds: How long at most.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not is_so():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(pause)
        # Looking is work too, on cores that what is waited for may need.
        pause = min(_LONGEST_PAUSE, pause * 1.3)
