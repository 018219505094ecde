"""ASGI servers: bodies that are read, streams and websockets are as without the middleware."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cleanclose.doctor import Outcome, Upload, body_digest, reader, strict
from tests.harness.apps import routes
from tests.harness.asgi_noise import open_websocket, say_goodbye
from tests.harness.scenarios import FRAMING, GUARD, MIB
from tests.harness.servers_asgi import (
    HYPERCORN_TRIO,
    OTHERS,
    ROWS,
)
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.verdicts import assert_clean
from tests.harness.watching import SLACK

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(GUARD)]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", routes.NOT_MODIFIED), ("HEAD", routes.REFUSE_LARGE)]
)
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_requests_without_a_body(serve: Serve, row: Stack, method: str, path: str) -> None:
    uploads = [
        Upload(port=serve(row, wrapped=wrapped).port, method=method, path=path, listen=0.02)
        for wrapped in (False, True)
    ]
    bare, wrapped = (strict(replace(upload, connection_close=True)) for upload in uploads)
    assert_clean([wrapped])
    assert undated(bare) == undated(wrapped)


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_bodies_that_are_read(serve: Serve, row: Stack, chunked: bool) -> None:
    """Byte for byte as without the middleware, request and response."""
    outcomes: dict[str, list[Outcome]] = {routes.ACCEPT: [], routes.ECHO: []}
    for wrapped in (False, True):
        server = serve(row, wrapped=wrapped)
        for path, found in outcomes.items():
            found.append(
                reader(
                    Upload(
                        port=server.port,
                        path=path,
                        body_size=4 * MIB,
                        chunked=chunked,
                        connection_close=True,
                        keep_sending=True,
                    )
                )
            )
    for bare, ours in outcomes.values():
        assert_clean([bare, ours])
        assert heads(bare) == heads(ours)
        assert bare.response is not None
        assert ours.response is not None
        assert bare.response.body == ours.response.body
    echoed = outcomes[routes.ECHO][1].response
    assert echoed is not None
    assert hashlib.sha256(echoed.body).hexdigest() == body_digest(4 * MIB)


@pytest.mark.parametrize("row", [row for row in ROWS if row is not HYPERCORN_TRIO], ids=str)
def test_server_sent_events(serve: Serve, row: Stack) -> None:
    """The same bytes, and each event when it is made."""
    bare, wrapped = (
        strict(
            Upload(
                port=serve(row, wrapped=wrapped).port,
                method="GET",
                path=routes.EVENTS,
                connection_close=True,
            )
        )
        for wrapped in (False, True)
    )
    assert_clean([wrapped])
    assert undated(bare) == undated(wrapped)
    with socket.create_connection(("127.0.0.1", serve(row).port), timeout=SLACK) as sock:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: sse\r\n\r\n" % routes.EVENTS.encode())
        came = b""
        while routes.CHUNKS[0] not in came:
            came += sock.recv(65536)
        assert routes.CHUNKS[-1] not in came


@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_websockets(serve: Serve, row: Stack) -> None:
    """A text frame comes back as it went, and so does a goodbye."""
    frames: list[bytes] = []
    for wrapped in (False, True):
        server = serve(row, wrapped=wrapped)
        with open_websocket(server.port, routes.WEBSOCKET, "websocket") as sock:
            # RFC 6455, section 5.7: a masked "Hello".
            sock.sendall(bytes.fromhex("818537fa213d7f9f4d5158"))
            frames.append(sock.recv(7))
        say_goodbye(server.port, routes.WEBSOCKET, "goodbye", 1000)
    assert frames == [b"\x81\x05Hello"] * 2


def undated(outcome: Outcome) -> list[bytes]:
    """What came, line by line, but for the time that it was."""
    return [line for line in outcome.raw.splitlines() if not line.lower().startswith(b"date:")]


def heads(outcome: Outcome) -> list[tuple[str, str]]:
    """The response's headers, but for the time."""
    response = outcome.response
    assert response is not None, str(outcome)
    return [pair for pair in response.headers if pair[0].lower() != "date"]
