"""No part of a refused body becomes a request, on any gunicorn that people run.

On gunicorn 20 to 26 whoever reads on through ``wsgi.input`` behind a time-out loses the chunks'
framing: bytes inside a chunk were executed as the next request. The lingerer knows no framing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from cleanclose.doctor.wire import read_transcript
from tests.harness.apps import routes
from tests.harness.beside import folder_of_run
from tests.harness.gunicorns import INSTALLED, OLDER, of_version
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.waiting import LIMIT
from tests.harness.watching import Watch, smuggled

WORKERS: Final = ("gthread", "gevent")
CHUNK: Final = b"x" * 100
BAIT: Final = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 3
SCRIPTS: Final[tuple[tuple[bytes | float, ...], ...]] = (
    # All of it inside one declared chunk of 1 MiB. What ends in 0 CRLF CRLF looks like the body's
    # end to whoever has lost the count.
    (CHUNK, 0.35, CHUNK, 0.35, CHUNK, 0.35, CHUNK, 0.35, CHUNK + b"0\r\n\r\n", 0.6, BAIT),
    # Silence, and then a request where the reading broke off.
    (CHUNK, 1.0, BAIT),
    # A line that is cut within.
    (CHUNK + b"\r", 0.6, b"\n0\r\n", 0.6, b"\r\n" + BAIT),
)
REFUSALS: Final = (
    routes.REFUSE,
    # A list of 1 MiB, more than the buffers of a client that does not read take.
    routes.REFUSE_LARGE,
    # A generator's.
    routes.REFUSE_STREAMING,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where older versions are, for all processes of this run."""
    return folder_of_run(tmp_path_factory, "gunicorns")


def talk(port: int, path: str, script: tuple[bytes | float, ...]) -> bytes:
    """Send one chunked upload by its script, and return what came back."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        try:
            for piece in (head.encode(), *script):
                if isinstance(piece, bytes):
                    client.sendall(piece)
                else:
                    time.sleep(piece)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    return received


def check(serve: Serve, stack: Stack, port_of: Callable[[int], int]) -> None:
    """Every script with every way to refuse, all at once: one answer each, and no request more."""
    serve.allow_tracebacks()
    server = serve(stack)
    watch = Watch(server)
    cases = [(path, script) for path in REFUSALS for script in SCRIPTS]
    port = port_of(server.port)
    with ThreadPoolExecutor(len(cases)) as pool:
        asked = [pool.submit(talk, port, *case) for case in cases]
        answers = [each.result() for each in asked]
    for (path, script), answer in zip(cases, answers, strict=True):
        statuses = [r.status for r in read_transcript(answer, *["POST"] * 4).responses]
        wanted = 401 if path == routes.REFUSE_LARGE else 413
        assert statuses == [wanted], f"{path}, {script}: {statuses}"
    watch.check()


@pytest.mark.parametrize("version", ["23.0.0", INSTALLED])
def test_no_part_of_a_chunk_is_a_request(serve: Serve, folder: Path, version: str) -> None:
    check(serve, of_version(version, "raw_wsgi", "gthread", folder), lambda port: port)


@pytest.mark.full
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("version", [*OLDER, INSTALLED])
def test_no_part_of_a_chunk_is_a_request_anywhere(
    serve: Serve, folder: Path, version: str, worker: str
) -> None:
    check(serve, of_version(version, "raw_wsgi", worker, folder), lambda port: port)


@pytest.mark.full
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("version", [*OLDER, INSTALLED])
def test_nor_behind_an_nginx_that_passes_uploads_on(
    serve: Serve, folder: Path, version: str, worker: str
) -> None:
    stack = of_version(version, "raw_wsgi", worker, folder)
    nginx = serve.behind_nginx(serve(stack), buffering=False, upstream_http="1.1")
    check(serve, stack, lambda _: nginx.port)


@pytest.mark.full
@pytest.mark.negative_control
@pytest.mark.parametrize("version", OLDER)
def test_whoever_reads_on_behind_a_time_out_takes_it_for_one(
    serve: Serve, folder: Path, version: str
) -> None:
    server = serve(of_version(version, "hasty_wsgi", "gthread", folder), wrapped=False)
    before = smuggled(server)
    talk(server.port, routes.REFUSE, SCRIPTS[1])
    assert smuggled(server) > before
