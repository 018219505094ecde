"""The code that all hooks share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

__all__ = ["listen"]

AListener = TypeVar("AListener")


def listen(listeners: list[AListener], listener: AListener) -> Callable[[], None]:
    """Add a listener, if it is not there.

    Returns:
        A function that removes it, if it is there.
    """
    if listener not in listeners:
        listeners.append(listener)

    def stop() -> None:
        with contextlib.suppress(ValueError):
            listeners.remove(listener)

    return stop
