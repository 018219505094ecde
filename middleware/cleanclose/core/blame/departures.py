"""Who hears of a departure when it is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cleanclose.core.listening import listen

__all__ = ["DEPARTURE_LISTENERS", "on_departure"]

DEPARTURE_LISTENERS: Final[list[Callable[[], None]]] = []
"""Called whenever a witness sees a peer leave, before anybody logs a word about it. What they raise
is counted, as for outlets."""


def on_departure(listener: Callable[[], None]) -> Callable[[], None]:
    """Hear of departures at the moment when a witness sees them.

    The event comes later, when the exchange is over. Now `current` is the exchange, in the thread
    and the context of whoever was told, and nobody has logged a word about it.

    Args:
        listener: Called without arguments. What it raises is counted, and ignored. If it listens
            already, it is not called twice.

    Returns:
        A function that ends this; it may be called more than once.
    """
    return listen(DEPARTURE_LISTENERS, listener)
