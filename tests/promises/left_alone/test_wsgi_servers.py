"""WSGI servers: a normal exchange is byte for byte as without the middleware."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from cleanclose.doctor import Upload, body_digest, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import GUARD, KIB, MIB
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.watching import SLACK

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(GUARD)]
DATE: Final = re.compile(rb"\r\nDate: [^\r]*", re.IGNORECASE)


# What must not change.


NORMAL: Final = {
    "get": Upload(port=0, method="GET", path=routes.INDEX),
    "head": Upload(port=0, method="HEAD", path=routes.INDEX),
    "missing": Upload(port=0, method="GET", path="/none"),
    "get-204": Upload(port=0, method="GET", path=routes.NOTHING),
    "post": Upload(port=0, path=routes.INDEX, body_size=100),
    "accept": Upload(port=0, path=routes.ACCEPT, body_size=3 * MIB),
    "accept-close": Upload(port=0, path=routes.ACCEPT, body_size=MIB, connection_close=True),
    "accept-1.0": Upload(port=0, path=routes.ACCEPT, body_size=MIB, http_version="1.0"),
    "accept-chunked": Upload(port=0, path=routes.ACCEPT, body_size=3 * MIB, chunked=True),
    "accept-expect": Upload(
        port=0, path=routes.ACCEPT, body_size=MIB, expect="patient", expect_seconds=0.5
    ),
    "two": Upload(port=0, path=routes.ACCEPT, body_size=MIB, follow_up="after"),
}


@pytest.mark.parametrize("name", NORMAL)
def test_a_normal_exchange_is_byte_for_byte_as_bare(serve: Serve, stack: Stack, name: str) -> None:
    upload = replace(NORMAL[name], listen=0.1)
    if upload.chunked and not stack.chunked:
        pytest.skip(f"{stack} shows the application no chunked bodies")
    seen = [
        strict(replace(upload, port=serve(stack, wrapped=wrapped).port))
        for wrapped in (False, True)
    ]
    bare, wrapped = (DATE.sub(b"", outcome.raw) for outcome in seen)
    assert bare, str(seen[0])
    assert wrapped == bare
    assert seen[0].closed_by == seen[1].closed_by
    if name.startswith("accept"):
        assert seen[1].response is not None
        assert seen[1].response.body == routes.accepted_json(
            upload.body_size, body_digest(upload.body_size)
        )


def test_a_streaming_echo_is_as_bare(serve: Serve, stack: Stack, chunked: bool) -> None:
    """The application answers while it reads."""
    upload = Upload(
        port=0,
        path=routes.ECHO,
        body_size=256 * KIB,
        piece_size=32 * KIB,
        pause=0.02,
        chunked=chunked,
        keep_sending=True,
        timeout=SLACK,
    )
    seen = [
        reader(replace(upload, port=serve(stack, wrapped=wrapped).port))
        for wrapped in (False, True)
    ]
    bodies = [outcome.response.body if outcome.response else None for outcome in seen]
    assert bodies[1] == bodies[0], f"{seen[0]}\n{seen[1]}"
