"""A server has another name for what we use: requests go as bare, and one line says so.

Each attribute of the table is hidden from our code, in a real server's own process. Tornado's
have `tests.promises.left_alone.test_tornado_renamed`.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from collections.abc import Generator, Iterator
from typing import Final

import pytest

from cleanclose.core.private import GONE, Private
from cleanclose.servers import PRIVATE
from tests.harness.hiding import HIDE
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess, run_python
from tests.harness.stacks import gunicorn
from tests.harness.waiting import until

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(60)]

_PYTHON: Final = (sys.executable, "-m")
_ASGI_APP: Final = "tests.harness.apps.hiding_asgi:app"
_BIND: Final = "--bind=127.0.0.1:{port}"
_KIB: Final = 1024


def _wsgi(server: str) -> tuple[str, ...]:
    return (*_PYTHON, "tests.harness.apps.serve_wsgi", server, "{port}")


def _uvicorn(parser: str) -> tuple[str, ...]:
    return (*_PYTHON, "uvicorn", f"--http={parser}", "--port={port}", _ASGI_APP)


def _hypercorn(loop: str) -> tuple[str, ...]:
    return (*_PYTHON, "hypercorn", f"--worker-class={loop}", _BIND, _ASGI_APP)


_GUNICORN: Final = gunicorn("gone", "hiding_wsgi", "--threads=4", threads=True).command
_GUNICORN_ASGI: Final = (
    *(*_PYTHON, "gunicorn", "--worker-class=asgi", "--no-control-socket"),
    *(_BIND, "--graceful-timeout=1", _ASGI_APP),
)

COMMANDS: Final = {
    "uvicorn.protocols.http.h11_impl": _uvicorn("h11"),
    "uvicorn.protocols.http.httptools_impl": _uvicorn("httptools"),
    "hypercorn.trio": _hypercorn("trio"),
    "hypercorn": _hypercorn("asyncio"),
    "gunicorn.asgi": _GUNICORN_ASGI,
    "gunicorn": _GUNICORN,
    "werkzeug": _wsgi("werkzeug"),
    "cheroot": _wsgi("cheroot"),
    "gevent": _wsgi("gevent"),
    "eventlet": _wsgi("eventlet"),
    "socket": _wsgi("wsgiref"),
    "anyio": _uvicorn("h11"),
    "asyncio.queues": _hypercorn("asyncio"),
}
"""By the beginning of the owner's name: the first that fits."""

ELSEWHERE: Final = ("asyncio.streams", "tornado.", "cheroot.server.KnownLengthRFile.remaining")
"""Tornado's have a file of their own. The others are asked for only on the way to an error, which
no request here takes."""
ROWS: Final = [row for row in PRIVATE if not f"{row.owner}.{row.attribute}".startswith(ELSEWHERE)]
NEVER_CHUNKED: Final = frozenset({"socket"})
"""Bodies without a length never reach an application there."""


def command(row: Private) -> tuple[str, ...]:
    return next(found for begin, found in COMMANDS.items() if row.owner.startswith(begin))


def once_for_each_server() -> Iterator[object]:
    """The rows; each takes a server of its own, so that `make test` has one row of each command."""
    seen: set[tuple[str, ...]] = set()
    for row in ROWS:
        marks = [pytest.mark.full] if command(row) in seen else []
        seen.add(command(row))
        yield pytest.param(row, marks=marks, id=f"{row.owner}.{row.attribute}")


@contextlib.contextmanager
def served(row: Private) -> Generator[ServerProcess]:
    """A server in which this one is hidden from us."""
    environment = {
        "CLEANCLOSE": "1",
        "TEST_APP": "hiding_wsgi",
        HIDE: f"{row.owner}:{row.attribute}",
    }
    with ServerProcess(command(row), env=environment, cwd=ROOT, ready_path="/") as server:
        yield server


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send what there is of a request, and read the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(request)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, response.read()


def post(path: str, body: bytes, *, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    data = b"%x\r\n%b\r\n" % (len(body), body) if length is None else body
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + data


def check_requests(port: int, *, chunked: bool) -> None:
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(port, get) == (200, b"ok\n")
    assert exchange(port, post("/read", b"x" * 10, length=10)) == (200, b"10\n")
    refused = post("/refuse", b"x" * _KIB, length=1024 * _KIB)
    assert exchange(port, refused) == (413, b"413\n")
    if chunked:
        whole = post("/read", b"x" * 10, length=None) + b"0\r\n\r\n"
        assert exchange(port, whole) == (200, b"10\n")
        assert exchange(port, post("/refuse", b"x" * _KIB, length=None)) == (413, b"413\n")
    assert exchange(port, get) == (200, b"ok\n")


@pytest.mark.parametrize("row", list(once_for_each_server()))
def test_requests_are_served_and_one_line_says_what_is_gone(row: Private) -> None:
    with served(row) as server:
        chunked = not row.owner.startswith(tuple(NEVER_CHUNKED))
        check_requests(server.port, chunked=chunked)
        check_requests(server.port, chunked=chunked)
        if row.owner.startswith("anyio"):
            leave_a_stream(server.port)
        if row.attribute == "remaining":
            whole = post("/read-all", b"x" * 10, length=10)
            assert exchange(server.port, whole) == (200, b"10\n")
        if row.attribute == "_eof":
            leave_a_websocket(server.port)
        if row.attribute in ("headers", "outheaders"):
            # What comes of it is the server's own affair.
            with contextlib.suppress(http.client.HTTPException, OSError):
                exchange(server.port, b"GET /raise HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: GONE in server.log_text(), server.log_text)
        server.stop()
        (line,) = [line for line in server.log_text().splitlines() if GONE in line]
        assert f"owner='{row.owner}'" in line
        assert f"attribute='{row.attribute}'" in line


def test_who_is_asked_is_there() -> None:
    """A class that has another name now would be without its line.

    In a process of their own: eventlet.wsgi leaves others with an ``http.server`` of its own.
    """
    run_python(
        """
        import importlib
        from cleanclose.servers import PRIVATE

        for owner in sorted({row.owner for row in PRIVATE}):
            try:
                importlib.import_module(owner)
            except ImportError:
                module, _, name = owner.rpartition(".")
                assert isinstance(getattr(importlib.import_module(module), name), type), owner
        """,
        "-W",
        "ignore",
    )


def leave_a_stream(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while b"tick" not in received:
            received += sock.recv(_KIB)


def test_a_raw_asyncio_servers_word_stays_loud_where_its_streams_show_nothing() -> None:
    done = run_python(
        """
        import asyncio, logging, socket
        from tests.harness.hiding import hide
        hide("asyncio.streams.StreamReader", "_transport")
        from cleanclose.quiet import install_quiet_asyncio

        async def main():
            logging.basicConfig()
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            handle = loop.default_exception_handler
            loop.set_exception_handler(lambda loop, context: (handle(context), over.set()))
            install_quiet_asyncio(loop)

            async def serve(reader, writer):
                await reader.readexactly(10)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            for _ in range(2):
                over.clear()
                socket.create_connection(server.sockets[0].getsockname()).close()
                await over.wait()

        asyncio.run(main())
        """
    )
    assert done.stderr.count("Unhandled exception in client_connected_cb") == 2
    assert done.stderr.count(GONE) == 1
    assert "asyncio.streams.StreamReader" in done.stderr


def leave_a_websocket(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(
            b"GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert sock.recv(_KIB).startswith(b"HTTP/1.1 101 ")
