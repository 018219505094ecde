"""The routes that every app of the tests has, and the switches that it obeys.

The environment decides what is served:

- ``CLEANCLOSE=1`` wraps the app, ``CLEANCLOSE=0`` leaves it bare.
- ``CLEANCLOSE_SETTINGS`` is a JSON object of settings for the wrapper.
- ``TEST_BASE_HTTP=1`` adds a ``BaseHTTPMiddleware`` to the Starlette app.
- ``TEST_SLOW_500`` makes the Starlette app answer an exception after so many seconds.
- ``TEST_MAX_BODY_SIZE`` is the limit of the Tornado server, in bytes.

=====================  ==========================================================================
``/``                  200 ``ok``; reads the body of a request that has one
``/refuse``            413 from the headers alone
``/refuse-large``      401 from the headers alone, with a response body of 1 MiB
``/refuse-after``      413 when the first ``READ_FIRST`` bytes have been read
``/refuse-streaming``  413 without Content-Length, in ``CHUNKS`` pieces with pauses
``/refuse-unsized``    the plain ASGI and WSGI apps only: 413 at once, without Content-Length
``/refuse-background`` 413 from the headers alone, then half a second of work before the app ends
``/refuse-late``       413 after a second in which nothing is read
``/redirect``          303 from the headers alone
``/nothing``           204 from the headers alone
``/error``             an exception before anything is read: the framework's 500
``/accept``            reads everything; JSON with ``bytes`` and ``sha256``
``/echo``              sends each piece of the body back while it still reads
``/sleep``             200 after a second; reads nothing
``/counters``          JSON of ``cleanclose.core.snapshot()``, null on a bare app
``/seen``              JSON of what the app itself has counted, see :class:`Seen`
``/forgive``           plain WSGI only: reads everything, and answers 400 if that fails
``/buffered``          Tornado only: the size of a body which the framework has gathered
``/not-modified``      Starlette only: 304 from the headers alone
``/events``            Starlette only: ``CHUNKS`` as server-sent events, with pauses
``/websocket``         Starlette only: a websocket that sends every message back
=====================  ==========================================================================

Anything else is a 404, from the headers alone where the framework allows it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from typing import TYPE_CHECKING, Final, cast

from cleanclose.doctor.clients import SMUGGLED_PATH

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

INDEX: Final = "/"
REFUSE: Final = "/refuse"
REFUSE_LARGE: Final = "/refuse-large"
REFUSE_AFTER: Final = "/refuse-after"
REFUSE_STREAMING: Final = "/refuse-streaming"
REFUSE_UNSIZED: Final = "/refuse-unsized"
REFUSE_BACKGROUND: Final = "/refuse-background"
REFUSE_LATE: Final = "/refuse-late"
REDIRECT: Final = "/redirect"
NOTHING: Final = "/nothing"
NOT_MODIFIED: Final = "/not-modified"
EVENTS: Final = "/events"
WEBSOCKET: Final = "/websocket"
ERROR: Final = "/error"
ACCEPT: Final = "/accept"
FORGIVE: Final = "/forgive"
ECHO: Final = "/echo"
SLEEP: Final = "/sleep"
COUNTERS: Final = "/counters"
SEEN: Final = "/seen"
BUFFERED: Final = "/buffered"

OK_BODY: Final = b"ok\n"
REFUSAL: Final = b"The upload is too large.\n"
LARGE: Final = b"This token is unknown, and here is at length why.\n".ljust(64, b".") * (16 * 1024)
READ_FIRST: Final = 256 * 1024
CHUNKS: Final = tuple(b"part %d of the refusal\n" % number for number in range(5))
CHUNK_PAUSE: Final = 0.2
"""Five pieces take 0.8 s: longer than a head is ever held back by default."""
WORK_SECONDS: Final = 0.5
LATE_SECONDS: Final = 1.0
PIECE: Final = 64 * 1024


@dataclasses.dataclass
class Seen:
    """What the app itself noticed. One per process."""

    requests: int = 0
    smuggled: int = 0
    """Requests for a path that only ever stands inside bodies."""
    background: int = 0
    """Pieces of background work that have been finished."""
    failures: int = 0
    """Exceptions that the app met while it read or answered."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def count(self, path: str) -> None:
        """A request for this path has reached the app."""
        if path == SEEN:
            return
        with self._lock:
            self.requests += 1
            if path.startswith(SMUGGLED_PATH):
                self.smuggled += 1

    def count_background(self) -> None:
        """A piece of background work is done."""
        with self._lock:
            self.background += 1

    def count_failure(self) -> None:
        """Reading or answering failed."""
        with self._lock:
            self.failures += 1

    def json(self) -> bytes:
        """The counts as a JSON object."""
        return json.dumps(dataclasses.asdict(self)).encode()


def wrapped() -> bool:
    """Whether the app is to be served with the middleware."""
    return os.environ.get("CLEANCLOSE") == "1"


def settings() -> SettingsOptions:
    """The settings for the middleware."""
    return cast("SettingsOptions", json.loads(os.environ.get("CLEANCLOSE_SETTINGS", "{}")))


def base_http() -> bool:
    """Whether the Starlette app gets a BaseHTTPMiddleware."""
    return os.environ.get("TEST_BASE_HTTP") == "1"


def max_body_size() -> int:
    """The limit of the Tornado server; without one, more than any test sends."""
    return int(os.environ.get("TEST_MAX_BODY_SIZE") or 1 << 40)


def counters_json() -> bytes:
    """The middleware's counters, or null where there is no middleware."""
    if not wrapped():
        return b"null"
    from cleanclose.core import snapshot

    return json.dumps(snapshot()).encode()


def accepted_json(size: int, digest: str) -> bytes:
    """What ``/accept`` answers."""
    return json.dumps({"bytes": size, "sha256": digest}).encode()
