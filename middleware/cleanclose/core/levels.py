"""How loud an event is: a table, with the rows that a user has replaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from cleanclose.core.events import (
    Cap,
    ClientDeparted,
    Event,
    Mechanism,
    Phase,
    Side,
    TruncatedUpload,
    UploadDrained,
    Verdict,
)

__all__ = ["DEFAULT", "GRADED", "Levels", "row_of", "row_of_departure"]

DEFAULT: Final[Mapping[str, int]] = {
    # A client that left or was too slow harmed nobody.
    "upload_drained": logging.DEBUG,
    "client_departed": logging.DEBUG,
    "client_departed.midway": logging.DEBUG,
    "truncated_upload": logging.DEBUG,
    # Consequences that somebody should know about.
    "upload_drained.max_lingering": logging.WARNING,
    "client_departed.server": logging.WARNING,
    "client_departed.overdue": logging.WARNING,
    "response_undelivered": logging.WARNING,
    "truncated_upload.accepted": logging.WARNING,
    "departure_surge": logging.WARNING,
    # Not the client's.
    "upstream_reset": logging.ERROR,
}
"""The level of each row.

``upload_drained.max_lingering``: the operator's own limit turned a client away unheard.
``client_departed.midway``: work was lost; the client left in the middle of its upload, of the
handler or of the response. ``client_departed.server``: this process cut the client, because it
is stopping; one whose upload was too slow for the server's own limit is ``client_departed.midway``.
``client_departed.overdue``: work was stopped, and its clean-up took longer than it
may. ``truncated_upload.accepted``: the application took a short body for the whole.
"""

GRADED: Final[Mapping[str, int]] = {
    "client_departed.midway": logging.INFO,
    "truncated_upload": logging.INFO,
}
"""The row that ``graded_levels=True`` changes."""

_MIDWAY: Final = frozenset(
    {Phase.REQUEST_BODY, Phase.HANDLER, Phase.RESPONSE_START, Phase.RESPONSE_BODY}
)


class Levels:
    """The table of levels, with a user's own rows.

    Args:
        graded: Whether a departure that cost work is info instead of debug.
        rows: The user's own rows, by the names in `DEFAULT`: one of logging's numbers each.

    Raises:
        ValueError: A row is not in the table, or its level is not a level.
    """

    def __init__(self, *, graded: bool = False, rows: Mapping[str, int] | None = None) -> None:
        table = {**DEFAULT, **(GRADED if graded else {})}
        for name, level in (rows or {}).items():
            if name not in table:
                known = ", ".join(DEFAULT)
                raise ValueError(f"levels has a row {name!r}; its rows are {known}")
            table[name] = _checked(name, level)
        self._table = table

    def of(self, event: Event) -> int:
        """The level of an event, as one of logging's numbers."""
        return self._table[row_of(event)]

    def of_row(self, row: str) -> int:
        """The level of a row of `DEFAULT`."""
        return self._table[row]


def _checked(name: str, level: object) -> int:
    if isinstance(level, bool) or not isinstance(level, int) or level < 0:
        raise ValueError(
            f"levels[{name!r}] must be one of logging's numbers, 0 or more, not {level!r}"
        )
    return level


def row_of(event: Event) -> str:
    """The row of the table that an event belongs to."""
    name = event.name
    match event:
        case UploadDrained(cap=Cap.MAX_LINGERING):
            return f"{name}.max_lingering"
        case TruncatedUpload(accepted=True):
            return f"{name}.accepted"
        case ClientDeparted(overdue=True) if name == ClientDeparted.name:
            return f"{name}.overdue"
        case ClientDeparted() if name == ClientDeparted.name:
            return row_of_departure(event.verdict)
        case _:
            return name


def row_of_departure(verdict: Verdict) -> str:
    """The row of the table for a departure that did no more harm than its verdict says."""
    name = ClientDeparted.name
    # A server's own limit on an upload's time (Tornado's body_timeout) refuses slow clients, as it
    # should. A warning for each would let clients cause warnings.
    slow = verdict.phase is Phase.REQUEST_BODY and verdict.mechanism is Mechanism.TIMEOUT
    if verdict.side is Side.SERVER and not slow:
        return f"{name}.server"
    return f"{name}.midway" if verdict.phase in _MIDWAY else name
