"""The refused uploads that are sent to every server, as one table."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

import pytest

from cleanclose.doctor.clients import Upload
from tests.harness.apps import routes
from tests.harness.stacks import Stack

__all__ = ["CORE", "FRAMING", "GUARD", "KIB", "MIB", "PATHS", "TRIES", "Scenario"]

KIB: Final = 1024
MIB: Final = 1024 * KIB

FRAMING: Final = (pytest.param(False, id="length"), pytest.param(True, id="chunked"))
"""Whether a body is chunked."""

TRIES: Final = int(os.environ.get("CLEANCLOSE_TRIES", "3"))
"""How often each scenario is tried. The bars of this project are stated for 100."""

GUARD: Final = 120 + 6 * TRIES
"""Seconds after which a test of ``TRIES`` tries counts as hanging."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An upload that the app refuses, and the response which has to arrive."""

    name: str
    upload: Upload
    status: int = 413
    body: bytes = routes.REFUSAL
    server_closes: bool = False
    """Whether the exchange is bound to end with the connection, which makes uvicorn lose."""

    def __str__(self) -> str:
        return self.name

    def to(self, port: int) -> Upload:
        """The upload for the server on this port."""
        return replace(self.upload, port=port)

    def lost_by(self, stack: Stack) -> bool:
        """Whether the bare server loses this response to a strict client."""
        if self.name in stack.spared or stack.loses == "never":
            return False
        return stack.loses == "always" or self.server_closes


def _scenario(
    name: str,
    path: str,
    size: int,
    *,
    status: int = 413,
    body: bytes = routes.REFUSAL,
    chunked: bool = False,
    close: bool = False,
    pause: float = 0.0,
) -> Scenario:
    return Scenario(
        name=name,
        status=status,
        body=body,
        server_closes=close,
        upload=Upload(
            port=0,
            path=path,
            body_size=size,
            chunked=chunked,
            connection_close=close,
            pause=pause,
            listen=0.1,
        ),
    )


CORE: Final = (
    _scenario("length-8", routes.REFUSE, 8 * MIB),
    _scenario("length-64", routes.REFUSE, 64 * MIB),
    _scenario("chunked-8", routes.REFUSE, 8 * MIB, chunked=True),
    _scenario("chunked-64", routes.REFUSE, 64 * MIB, chunked=True),
    _scenario("close-8", routes.REFUSE, 8 * MIB, close=True),
    _scenario("close-64", routes.REFUSE, 64 * MIB, close=True),
    _scenario("large-8", routes.REFUSE_LARGE, 8 * MIB, status=401, body=routes.LARGE),
    _scenario(
        "large-close-64", routes.REFUSE_LARGE, 64 * MIB, status=401, body=routes.LARGE, close=True
    ),
    _scenario("slow", routes.REFUSE, 3 * MIB, pause=0.015),
    _scenario("slow-close", routes.REFUSE, 3 * MIB, pause=0.015, close=True),
    _scenario("slow-chunked", routes.REFUSE, 3 * MIB, pause=0.015, chunked=True),
)
"""What the project promises on every server.

The slow ones take longer than a response is ever kept back (0.5 s), so that it goes out while
the body still comes. They lose by time, not by size: a bare server resets at once, and every
piece behind the first ones fails.
"""

PATHS: Final = (
    _scenario("after", routes.REFUSE_AFTER, 8 * MIB),
    _scenario("after-close", routes.REFUSE_AFTER, 8 * MIB, close=True),
    _scenario("streaming", routes.REFUSE_STREAMING, 8 * MIB, body=b"".join(routes.CHUNKS)),
    _scenario(
        "streaming-close",
        routes.REFUSE_STREAMING,
        8 * MIB,
        body=b"".join(routes.CHUNKS),
        close=True,
    ),
    _scenario("background", routes.REFUSE_BACKGROUND, 8 * MIB),
    _scenario("background-close", routes.REFUSE_BACKGROUND, 8 * MIB, close=True),
    _scenario("late-close", routes.REFUSE_LATE, 8 * MIB, close=True),
    _scenario("redirect-close", routes.REDIRECT, 8 * MIB, status=303, body=b"", close=True),
    _scenario("nothing-close", routes.NOTHING, 8 * MIB, status=204, body=b"", close=True),
    _scenario("sleep-close", routes.SLEEP, 8 * MIB, status=200, body=routes.OK_BODY, close=True),
)
"""Other ways of refusing, each of which takes another way through the code."""


STREAM_BEHIND_CADDY: Final = Upload(
    port=0,
    path=routes.REFUSE_STREAMING,
    body_size=8 * MIB,
    expect="impatient",
    headers=(("Via", "1.1 Caddy"),),
    listen=0.1,
)
"""Caddy passes `Expect` on and does not wait; a server may still answer it when somebody reads."""
