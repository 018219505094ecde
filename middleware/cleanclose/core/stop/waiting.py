"""How long work that has to end may keep others from learning that the client has left."""

from __future__ import annotations

from typing import Final

__all__ = ["LOOK_SECONDS", "hold_seconds"]

LOOK_SECONDS: Final = 0.04
"""Seconds between two looks for a departure that nothing reports."""

_HOLD_SECONDS: Final = 10.0
_CLEANING_UP: Final = 0.1


def hold_seconds(*, cleaning_up: bool) -> float:
    """For how many seconds the message about the departure waits until work has been stopped.

    Starlette cancels a stream as soon as it has that message, at every await: the clean-up of
    `cleanclose.stop.stop_work` would be cut short.

    Args:
        cleaning_up: Whether the task that gets the message is being cancelled itself. Its clean-up
            would wait for its own end; but it is not at its clean-up yet where the server's call
            has swallowed the cancellation.
    """
    return _CLEANING_UP if cleaning_up else _HOLD_SECONDS
