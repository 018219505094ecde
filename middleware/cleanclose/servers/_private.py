"""One table of every third-party attribute that we use and that nobody promises.

The servers' attributes are in their rooms. If one is gone, the exchange goes as it would without
us, as far as the table says, and one line reports it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cleanclose.core.private import Private
from cleanclose.servers._rooms import ROOMS

__all__ = ["PRIVATE", "TABLE"]

_OTHERS: Final = (
    Private(
        "socket.SocketIO",
        "_sock",
        "On Werkzeug, wsgiref, cheroot and gevent the client's socket is out of reach: early "
        "responses go as without the middleware, or are drained first.",
    ),
    Private(
        "asyncio.queues.Queue",
        "_queue",
        "On hypercorn and daphne a departure is seen only when the application asks for a message.",
    ),
    *(
        Private(
            f"asyncio.streams.{stream}",
            "_transport",
            "Exceptions that an asyncio server's callback raises for its client stay loud.",
        )
        for stream in ("StreamReader", "StreamWriter")
    ),
    Private(
        "anyio._backends._asyncio",
        "_task_states",
        "Stopped work is cancelled at once, even where anyio shields it.",
    ),
    Private(
        "anyio._backends._asyncio.TaskGroup",
        "_tasks",
        "A task of Starlette's own is cancelled instead of the application's.",
    ),
    Private(
        "anyio._backends._asyncio.CancelScope",
        "_parent_scope",
        "Stopped work may be cancelled where an outer anyio scope shields it.",
    ),
)

PRIVATE: Final = (*(row for room in ROOMS for row in room.private), *_OTHERS)
"""All of them."""

TABLE: Final[Mapping[tuple[str, str], Private]] = {
    (row.owner, row.attribute): row for row in PRIVATE
}
"""By the class that has it, and its name."""
