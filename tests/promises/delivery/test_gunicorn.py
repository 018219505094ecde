"""What only a real gunicorn shows: its socket, its parser, its workers' time-out."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from cleanclose.doctor.clients import Upload, strict
from cleanclose.doctor.wire import Transcript, read_transcript
from tests.harness.asking import get_json
from tests.harness.stacks import gunicorn
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.processes import ServerProcess
    from tests.harness.serving import Serve

MIB = 1024 * 1024
SYNC = gunicorn("gunicorn-sync-edges", "edges_wsgi", "--worker-class=sync", threads=False)
IMPATIENT = gunicorn(
    "gunicorn-sync-impatient", "edges_wsgi", "--worker-class=sync", "--timeout=4", threads=False
)
GTHREAD = gunicorn(
    "gunicorn-gthread-edges",
    "edges_wsgi",
    "--worker-class=gthread",
    "--threads=4",
    "--keep-alive=30",
    threads=True,
)
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def last_event(server: ServerProcess) -> dict[str, Any]:
    """The last event. A worker may report it after the client has seen the end."""

    def told() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = get_json(server.port, "/events")["events"]
        return events

    until(told, "no event was reported")
    return told()[-1]


def talk(server: ServerProcess, *pieces: bytes | float) -> Transcript:
    """Send pieces, with pauses in seconds between them; then read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(30)
        received = b""
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    client.sendall(piece)
                else:
                    time.sleep(piece)
            while data := client.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    return read_transcript(received, *["POST"] * 4)


@pytest.mark.parametrize("stack", [SYNC, GTHREAD], ids=str)
def test_a_slow_reader_gets_all_of_a_large_response(serve: Serve, stack: Any) -> None:
    """The drain must not leave its time-out on the socket that the response is written to."""
    server = serve(stack)
    body = b"x" * 100_000
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(30)
        client.sendall(
            b"POST /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        time.sleep(2.5)
        received = 0
        while data := client.recv(MIB):
            received += len(data)
    assert received > 30 * MIB


def test_a_connection_whose_framing_was_lost_is_not_used_again(serve: Serve) -> None:
    """A chunk that pauses for longer than we wait, and what it holds looks like requests."""
    server = serve(GTHREAD)
    bait = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 3
    transcript = talk(
        server,
        CHUNKED + b"%x\r\n" % (100 + len(bait)) + b"x" * 100,
        1.2,
        bait + b"\r\n0\r\n\r\n",
    )
    assert [response.status for response in transcript.responses] == [413]
    assert (transcript.responses[0].header("Connection") or "").lower() == "close"
    assert transcript.stray == b""


def test_a_keep_alive_connection_is_used_again(serve: Serve) -> None:
    """What has arrived with the head is read, and nothing is waited for."""
    server = serve(GTHREAD)
    length = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    chunks = CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
    for upload in (length, chunks):
        last = upload.replace(b"Host: x", b"Host: x\r\nConnection: close")
        transcript = talk(server, upload, 0.3, last)
        assert [response.status for response in transcript.responses] == [413, 413]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_an_error_behind_the_last_piece_does_not_change_the_response(
    serve: Serve, wrapped: bool
) -> None:
    serve.allow_tracebacks()
    server = serve(SYNC, wrapped=wrapped)
    seen = strict(Upload(port=server.port, path="/raises-late", body_size=1000))
    assert (seen.status, seen.transcript.stray) == (413, b"")
    assert "behind the last piece" in server.log_text()


def test_work_behind_the_last_piece_does_not_delay_the_response(serve: Serve) -> None:
    server = serve(SYNC)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(30)
        started = time.monotonic()
        client.sendall(b"POST /works-late HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
        client.recv(1000)
        answered = time.monotonic() - started
        while client.recv(1000):
            pass
        ended = time.monotonic() - started
    # The handler sleeps for 2 seconds behind its answer: compared, not timed.
    assert ended - answered > 1


def test_a_stalled_client_behind_an_opaque_input_is_let_go(serve: Serve) -> None:
    """Another middleware wraps wsgi.input: the socket is in reach all the same."""
    server = serve(GTHREAD, settings={"idle_seconds": 0.3, "hold_seconds": 0.1})
    transcript = talk(
        server, b"POST /opaque HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nstalled"
    )
    assert [response.status for response in transcript.responses] == [413]


def test_delivering_leaves_a_sync_worker_alive(serve: Serve) -> None:
    """A sync worker is killed when it is busy with one request for ``--timeout`` seconds."""
    server = serve(IMPATIENT)
    # 30 pieces with 0.2 s between them: 6 s in all, more than the worker's 4.
    seen = strict(Upload(port=server.port, body_size=30 * 65536, pause=0.2))
    assert seen.transcript.stray == b""
    event = last_event(server)
    assert (event["outcome"], event["bytes_in"]) == ("delivered", 30 * 65536)
    assert "WORKER TIMEOUT" not in server.log_text()


def test_a_slow_upload_that_moves_is_not_cut(serve: Serve) -> None:
    """4 KB a second is far above the floor, and far below a read of 64 KiB."""
    server = serve(GTHREAD, settings={"max_seconds": 20, "idle_seconds": 3})
    size = 7 * 4096
    seen = strict(Upload(port=server.port, body_size=size, piece_size=4096, pause=1.0))
    assert seen.status == 413
    event = last_event(server)
    assert (event["outcome"], event["bytes_in"], event["drained"]) == ("delivered", size, size)


def test_the_events_bytes_are_those_that_arrived(serve: Serve) -> None:
    server = serve(GTHREAD, settings={"idle_seconds": 0.3, "hold_seconds": 0.1, "min_rate": 0})
    seen = strict(Upload(port=server.port, body_size=8 * MIB, abort_after=5000, abort_how="stall"))
    assert seen.status == 413
    event = last_event(server)
    # Its kernel has the response.
    assert (event["outcome"], event["bytes_in"], event["unacked"]) == ("delivered", 5000, 0)
    assert json.dumps(event)
