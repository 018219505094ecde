"""What servers, frameworks and asyncio say on which loggers: gathered from the servers' rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.servers import ROOMS

__all__ = ["LINES", "OWNERS"]

_FRAMEWORKS: Final[Mapping[str, str]] = {
    "django.request": "django",
    "django.server": "django",
    "falcon": "falcon",
    "litestar": "litestar",
}

OWNERS: Final[Mapping[str, str]] = {
    **_FRAMEWORKS,
    "asyncio": "asyncio",
    **{name: room.package for room in ROOMS for name in room.loggers},
}
"""Each logger, and the package whose own lines are looked at.

Some of these loggers are used by applications as well. What an application says about a
departure in its own words is its own to decide.
"""

LINES: Final[Mapping[str, Lines]] = {
    # Transports say these (asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES).
    "asyncio": Lines(
        writes_in_vain=frozenset({"socket.send() raised exception.", "SSL connection is closed"}),
        anywhere=True,
    ),
    **{name: lines for room in ROOMS for name, lines in room.loggers.items()},
}
"""What is known of each logger's lines besides the errors that they have."""
