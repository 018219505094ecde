"""Chunked bodies, whose end nobody knows: what stands in them delays no answer and changes none."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping
from typing import Final, cast

import pytest

from cleanclose.doctor.clients import SMUGGLED_PATH
from cleanclose.doctor.wire import read_transcript
from tests.harness import servers_asgi, servers_wsgi
from tests.harness.apps import routes
from tests.harness.asking import get_json
from tests.harness.scenarios import MIB
from tests.harness.servers_asgi import GUNICORN, HYPERCORN, HYPERCORN_TRIO, UVICORN, UVICORN_H11
from tests.harness.serving import Serve
from tests.harness.stacks import SERVERS, Stack
from tests.harness.waiting import LIMIT, until
from tests.harness.watching import Watch

# The lowest versions have no hypercorn.
pytestmark = pytest.mark.stacks

ROWS: Final = tuple(
    servers_asgi.raw(row) for row in (UVICORN, UVICORN_H11, HYPERCORN, HYPERCORN_TRIO, GUNICORN)
)
BLOCKING: Final = tuple(row for row in SERVERS if row.interface != "asgi")
OTHERS: Final = tuple(row for row in servers_wsgi.ROWS if row.chunked)
SMUGGLED: Final = SMUGGLED_PATH.encode()
PROXIED: Final = b"X-Forwarded-For: 192.0.2.7\r\n"


def head(path: str, more: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n"
        % (path.encode(), more)
    )  # fmt: skip


def rest(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except (ConnectionResetError, BrokenPipeError):
        pass
    return received


@pytest.mark.parametrize("path", [routes.REFUSE, routes.REFUSE_BACKGROUND])
@pytest.mark.parametrize("stack", ROWS, ids=str)
def test_a_bad_chunk_behind_the_answer_makes_no_second_one(
    serve: Serve, stack: Stack, path: str
) -> None:
    """Nor while the application goes on behind its answer."""
    if stack.name.startswith("asgi-hypercorn-trio"):
        # `TCPServer._close` sends the end for a bad chunk without `send_lock`: a last piece of
        # the answer at the same moment is trio's `BusyResourceError`, bare as well.
        serve.allow_tracebacks()
    server = serve(stack)
    watch = Watch(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(head(path) + b"5\r\nhello\r\n")
        received = client.recv(65536)
        while not received.endswith(routes.REFUSAL):
            received += client.recv(65536)
        client.sendall(b"zzz\r\nno chunk\r\n")
        received += rest(client)
    transcript = read_transcript(received, "POST", "POST")
    assert [each.status for each in transcript.responses] == [413], received
    assert transcript.responses[0].body == routes.REFUSAL
    assert transcript.stray == b""
    watch.check()


@pytest.mark.parametrize("proxied", [b"", PROXIED], ids=["direct", "proxied"])
@pytest.mark.parametrize("stack", [*ROWS, *BLOCKING], ids=str)
def test_extensions_without_end_hold_no_answer_back(
    serve: Serve, stack: Stack, proxied: bytes
) -> None:
    """4 KB of framing for each byte, for as long as the client likes."""
    # A chunk that the lingerer has cut may look like anything to what the server reads itself.
    serve.allow_tracebacks()
    server = serve(stack)
    watch = Watch(server)
    piece = (b"1;" + b"x" * 4000 + b"\r\nA\r\n") * 16
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(head(routes.REFUSE, proxied))
        client.setblocking(False)
        left = b""
        while not select.select([client], [], [], 0)[0]:
            left = left or piece
            if select.select([], [client], [], LIMIT)[1]:
                size = client.send(left)
                sent, left = sent + size, left[size:]
            # What is under way in two sockets' buffers, and what a busy machine adds.
            assert sent < 128 * MIB, "the answer waits for what has no end"
        received = client.recv(12)
    assert received == b"HTTP/1.1 413"
    watch.check()


@pytest.mark.parametrize("stack", [*ROWS, *BLOCKING, *OTHERS], ids=str)
def test_what_comes_behind_a_bad_chunk_is_no_request(serve: Serve, stack: Stack) -> None:
    """The application's reading has met the server's error: nobody knows where the body ends."""
    # The application lets the server's own error pass.
    serve.allow_tracebacks()
    server = serve(stack)
    before = smuggled(server.port)
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(head(routes.ACCEPT) + b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % SMUGGLED)
        client.shutdown(socket.SHUT_WR)
        received = rest(client)
    assert received.count(b"HTTP/1.1 ") <= 1, received
    assert smuggled(server.port) == before


NO_CHUNKS: Final = {"character": b"z", "line": b"zzz\r\n"}
"""What a server has read when it finds that it is no chunk: a request behind it begins there."""


def forgiven(serve: Serve, stack: Stack, bad: str, *, wrapped: bool) -> tuple[bytes, int]:
    """What a client gets whose bad chunk an application answers for, and the requests run of it."""
    serve.allow_tracebacks()
    server = serve(stack, wrapped=wrapped)
    before = smuggled(server.port)
    request = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % SMUGGLED
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(head(routes.FORGIVE) + NO_CHUNKS[bad] + request)
        client.shutdown(socket.SHUT_WR)
        received = rest(client)
    return received, smuggled(server.port) - before


@pytest.mark.parametrize("bad", NO_CHUNKS)
@pytest.mark.parametrize("stack", OTHERS, ids=str)
def test_an_application_that_answers_for_a_bad_chunk_lets_no_request_follow(
    serve: Serve, stack: Stack, bad: str
) -> None:
    """It has caught the server's error: only the middleware still knows of it."""
    received, more = forgiven(serve, stack, bad, wrapped=True)
    assert received.count(b"HTTP/1.1 ") <= 1, received
    assert more == 0


@pytest.mark.negative_control
def test_without_the_middleware_gevent_runs_what_is_left_of_the_body(serve: Serve) -> None:
    received, more = forgiven(serve, servers_wsgi.row("gevent"), "character", wrapped=False)
    assert b" 400 " in received
    assert more == 1


def smuggled(port: int) -> int:
    return int(get_json(port, routes.SEEN)["smuggled"])


def early(port: int) -> int:
    counts = cast("Mapping[str, int]", get_json(port, routes.COUNTERS))
    name = "cleanclose_early_responses_total"
    return sum(count for each, count in counts.items() if each.startswith(name))


@pytest.mark.parametrize("stack", ROWS, ids=str)
def test_who_neither_sends_nor_reads_holds_no_place(serve: Serve, stack: Stack) -> None:
    """A stalled upload, a receive window of a few KiB, and a response far above that."""
    server = serve(stack, settings={"max_seconds": 1.0, "idle_seconds": 1.0, "max_lingering": 1})
    before = early(server.port)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            % (routes.REFUSE_LARGE.encode(), 64 * MIB)
            + b"x" * 1000
        )  # fmt: skip
        # The client is still there.
        until(lambda: early(server.port) == before + 1, server.log_text)
        assert client.recv(12) == b"HTTP/1.1 401"
