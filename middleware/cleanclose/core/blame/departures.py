"""The listeners that hear of a departure at the moment when a witness sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cleanclose.core.counters import count_outlet_error
from cleanclose.core.listening import listen
from cleanclose.core.outside import contained

__all__ = ["DEPARTURE_LISTENERS", "announce", "on_departure"]

DEPARTURE_LISTENERS: Final[list[Callable[[], None]]] = []
"""Called whenever a witness sees a peer leave, before anything is logged about it. What they raise
is counted, as for outlets."""


def on_departure(listener: Callable[[], None]) -> Callable[[], None]:
    """Call a listener at the moment when a witness sees a departure.

    The event comes later, when the exchange is over. At this moment `current` is the exchange, the
    listener runs in the thread and the context of the witness, and nothing has been logged yet.

    Args:
        listener: Called without arguments. What it raises is counted and ignored. Registering it
            twice has no effect.

    Returns:
        A function that ends this; it may be called more than once.
    """
    return listen(DEPARTURE_LISTENERS, listener)


def announce() -> None:
    """A witness has seen a departure. Never raises on a listener's account."""
    for listener in DEPARTURE_LISTENERS:
        with contained(lambda _: count_outlet_error()):
            listener()
