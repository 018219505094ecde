"""A file that the server sends for the application costs no more than without the middleware."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.asking import get
from tests.harness.leavers import leave_at, request
from tests.harness.processes import peak_rss_bytes, reset_peak_rss, rss_bytes
from tests.harness.stacks import Stack
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve

pytestmark = pytest.mark.stacks

MIB: Final = 1024 * 1024

UWSGI: Final = Stack(
    name="uwsgi-files",
    interface="wsgi",
    command=(
        sys.executable,
        "-c",
        "import pyuwsgi; pyuwsgi.run()",
        "--module=tests.harness.apps.noise_wsgi:app",
        "--enable-threads",
        "--threads=2",
        "--need-app",
        "--die-on-term",
        "--disable-logging",
        "--http-socket=127.0.0.1:{port}",
    ),
    loses="always",
    keeps_alive=False,
    chunked=False,
)
"""Its wsgi.file_wrapper is a function, which gives the file back that it gets."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of memory")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_a_file_without_line_ends_is_not_held_whole(
    serve: Serve, wrapped: bool, method: str
) -> None:
    # What uWSGI prints of a client that left.
    serve.allow_tracebacks()
    server = serve(UWSGI, wrapped=wrapped)
    get(server.port)
    reset_peak_rss(server.pid)
    before = rss_bytes(server.pid)
    if method == "GET":
        status, body = get(server.port, "/file")
        assert (status, len(body)) == (200, 64 * MIB)
    else:
        # A body that is not read has the response delivered.
        leave_at(server.port, request("POST", "/file", length=5), "fin", body=b"a", read=60 * MIB)
    assert peak_rss_bytes(server.pid) - before < 16 * MIB


def test_who_leaves_in_the_middle_of_it_is_seen(serve: Serve, tmp_path: Path) -> None:
    tap = tmp_path / "tap"
    server = serve(UWSGI, wrapped=True, env={PATH_VARIABLE: str(tap)})
    leave_at(server.port, request("GET", "/file"), "rst", read=100_000)
    until(lambda: bool(read_tap(tap)[1]), "no event")
    [event] = read_tap(tap)[1]
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")
    assert 0 < event["bytes_out"] < 64 * MIB
