"""A response passed through from an upstream that breaks off when the client has gone already."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from tests.harness.asgi_noise import HOWS, module_stack, observed
from tests.harness.leavers import How, connected, leave, request
from tests.harness.proxying import URL
from tests.harness.quitter import CUT_CHUNKED
from tests.harness.stacks import Stack, gunicorn
from tests.harness.waiting import LIMIT

pytestmark = pytest.mark.stacks

GTHREAD: Final = gunicorn("passing-gthread", "passing_wsgi", "--threads=4", threads=True)
UVICORN: Final = module_stack("uvicorn-h11", "passing_asgi")


@contextlib.contextmanager
def slow_upstream(go: threading.Event) -> Generator[str]:
    """An upstream that says half of its response, and resets the connection when it may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            sock.settimeout(LIMIT)
            sock.recv(65536)
            sock.sendall(CUT_CHUNKED)
            go.wait(LIMIT)
            leave(sock, "rst")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            go.set()
            thread.join()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("stack", "path"),
    [(GTHREAD, "/pass/requests"), (GTHREAD, "/pass/httpx"), (UVICORN, "/pass")],
    ids=str,
)
def test_an_upstreams_reset_stays_an_error_when_the_client_has_gone(
    stack: Stack, path: str, how: How, tmp_path: Path
) -> None:
    go = threading.Event()
    with (
        slow_upstream(go) as url,
        observed(stack, tmp_path, wrapped=True, more={URL: url}) as seen,
    ):
        head = request("GET", path, headers=(("X-Request-ID", how),))
        with connected(seen.port) as client:
            client.sendall(head)
            got = b""
            # Nothing is on its way to it any more: what broke can only be the upstream.
            while b"half" not in got:
                piece = client.recv(65536)
                assert piece, got
                got += piece
            leave(client, how)
        go.set()
        seen.until(
            lambda: any(
                event["event"] == "upstream_reset" for event in seen.events_now().get(how, ())
            ),
            "no upstream_reset",
        )
    (reset,) = (event for event in seen.events if event["event"] == "upstream_reset")
    assert reset["side"] == "upstream"
    assert reset["library"] in ("requests", "httpx")
