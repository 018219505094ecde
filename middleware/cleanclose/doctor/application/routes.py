"""The paths that `cleanclose.doctor.application.served` adds to an application.

Whether a server loses an early answer, takes a cut upload for a whole one or hides an upstream's
failure shows only on a route that answers early, reads its body, or fails. Few applications have
all of them, so the doctor adds its own, in the application's process, on the user's server.
It passes everything else on to the application untouched.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Final

__all__ = [
    "CASE_HEADER",
    "COUNTERS",
    "LARGE",
    "OK",
    "PIECE",
    "PIECES",
    "PREFIX",
    "READ",
    "READY",
    "REFUSAL",
    "REFUSE",
    "REFUSE_LARGE",
    "SLOW",
    "SLOW_SECONDS",
    "STREAM",
    "UPSTREAM",
    "counters_json",
    "fail_like_an_upstream",
]

PREFIX: Final = "/.cleanclose-doctor"
READY: Final = f"{PREFIX}/ready"
"""Answers 200 at once: the server is up."""
REFUSE: Final = f"{PREFIX}/refuse"
"""Answers 413 from the headers alone, and leaves the body unread."""
REFUSE_LARGE: Final = f"{PREFIX}/refuse-large"
"""The same with a 401 and an answer of 1 MiB."""
READ: Final = f"{PREFIX}/read"
"""Reads its body and answers 200."""
SLOW: Final = f"{PREFIX}/slow"
"""Works for `SLOW_SECONDS`, then answers 200."""
STREAM: Final = f"{PREFIX}/stream"
"""Answers piece by piece, with more than socket buffers hold."""
UPSTREAM: Final = f"{PREFIX}/upstream"
"""Fails because an upstream of the application resets its connection."""
COUNTERS: Final = f"{PREFIX}/counters"
"""The middleware's counters, as JSON."""

CASE_HEADER: Final = "X-Cleanclose-Doctor"
"""The header that names the case of a request."""

REFUSAL: Final = b"This upload is refused.\n"
LARGE: Final = b"This upload is refused, at length." * 30841
"""1 MiB and a few bytes."""
OK: Final = b"ok\n"
PIECE: Final = b"-" * 65536
PIECES: Final = 256
SLOW_SECONDS: Final = 0.4


def fail_like_an_upstream() -> None:
    """Read from a connection of our own whose other end resets it.

    Raises:
        ConnectionResetError: Always; a real one, from the kernel.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), 5.0) as ours,
    ):
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        ours.recv(1)
    raise AssertionError("a closed connection with SO_LINGER 0 was not reset")


def counters_json() -> bytes:
    """Get this process's counters."""
    from cleanclose.core import snapshot

    return json.dumps(snapshot()).encode()
