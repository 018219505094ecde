"""How loud an event is: a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from cleanclose.core.events import Cap, Event, UploadDrained

__all__ = ["level_of"]

_CUT: Final[Mapping[Cap, int]] = {
    # The operator's own limit turned a client away unheard: that is a consequence to know of.
    Cap.MAX_LINGERING: logging.WARNING,
}


def level_of(event: Event) -> int:
    """The level of an event, as one of logging's numbers.

    A client which left or was too slow harmed nobody: debug. A response that was probably lost
    for want of room is the operator's business: warning.
    """
    if isinstance(event, UploadDrained) and event.cap is not None:
        return _CUT.get(event.cap, logging.DEBUG)
    return logging.DEBUG
