"""httpd's input filters: a body that is longer or shorter than its Content-Length is whole."""

from __future__ import annotations

import gzip
import http.client
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.servers_wsgi import MOD_WSGI_ROWS
from tests.harness.stacks import Stack
from tests.harness.tap import PATH_VARIABLE, read_tap

if TYPE_CHECKING:
    from tests.harness.serving import Serve

pytestmark = pytest.mark.stacks

BODIES: Final = {
    # httpd lets no body grow to more than 200 times its length; a digit has four bits.
    "longer": random.Random(1).randbytes(200_000).hex().encode(),
    # Shrinks by the frame: noise is not compressed.
    "shorter": random.Random(1).randbytes(100_000),
}


@pytest.fixture(scope="module", params=MOD_WSGI_ROWS, ids=str)
def inflating(request: pytest.FixtureRequest, mod_wsgi_folder: Path) -> Stack:
    chosen: Stack = request.param
    include = mod_wsgi_folder.parent / "inflate.conf"
    include.write_text(
        "<IfModule !deflate_module>\n"
        "LoadModule deflate_module ${MOD_WSGI_MODULES_DIRECTORY}/mod_deflate.so\n"
        "</IfModule>\n"
        "SetInputFilter DEFLATE\n"
    )
    return replace(
        chosen,
        name=f"{chosen}-inflating",
        command=(*chosen.command, f"--include-file={include}"),
        env={"TEST_MOD_WSGI": str(mod_wsgi_folder), "TEST_APP": "noise_wsgi"},
    )


def _post(port: int, body: bytes, encoding: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Encoding": encoding, "Connection": "close"}
    connection.request("POST", "/read", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_body_that_a_filter_changes(serve: Serve, inflating: Stack, tmp_path: Path) -> None:
    tap = tmp_path / "tap"
    bare = serve(inflating, wrapped=False)
    server = serve(inflating, wrapped=True, env={PATH_VARIABLE: str(tap)})
    for name, body in BODIES.items():
        packed = gzip.compress(body)
        whole = (200, b"%d" % len(body))
        assert _post(bare.port, packed, "gzip") == whole, name
        assert _post(server.port, packed, "gzip") == whole, name
        assert _post(server.port, body, "identity") == whole, name
    assert read_tap(tap)[1] == []
