"""The lines of servers, frameworks and asyncio, by logger, gathered from the servers' rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.servers import ROOMS

__all__ = ["LINES", "OWNERS"]

_FRAMEWORKS: Final[Mapping[str, str]] = {
    "blacksheep.server": "blacksheep",
    # And a logger for each mounted application.
    "cherrypy.error.*": "cherrypy",
    "django.request": "django",
    "django.security.csrf": "django",
    "django.server": "django",
    "falcon": "falcon",
    "litestar": "litestar",
    # Each of its modules has its own; what reads requests is in several.
    "mcp.server.*": "mcp",
    "radicale": "radicale",
}

OWNERS: Final[Mapping[str, str]] = {
    **_FRAMEWORKS,
    **{name: room.package for room in ROOMS for name in room.loggers},
    "asyncio": "asyncio",
}
"""Each logger, with the package whose own lines are examined; ``name.*`` includes its children.

Some of these loggers are used by applications as well. An application decides itself how to log a
departure in its own words.
"""

_ASYNCIO: Final = Lines(
    # Transports say these (asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES).
    writes_in_vain=frozenset({"socket.send() raised exception.", "SSL connection is closed"}),
    anywhere=True,
)


# CsrfViewMiddleware looks for the token in the body, ignores an UnreadablePostError, and then finds
# none.
_CSRF: Final = Lines(of_a_cut_body=frozenset({"Forbidden (CSRF token missing.)"}))


def _gathered() -> dict[str, Lines]:
    lines = {"asyncio": _ASYNCIO, "django.security.csrf": _CSRF}
    for room in ROOMS:
        for name, known in room.loggers.items():
            lines[name] = lines.get(name, Lines()) | known
    return lines


LINES: Final[Mapping[str, Lines]] = _gathered()
"""What we know about each logger's lines, besides the exceptions that they carry."""
