"""HTTP/2 on either side of a proxy: a stream that ends early is another matter than a connection.

Behind the proxy, servers reset the stream of an early answer, and clients that write first lose it.
In front of it, curl (7.88) takes the reset of a stream that it is still sending on for an error,
answer or not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from cleanclose.doctor import Outcome, Upload, reader, strict
from tests.harness.apps import routes
from tests.harness.proxies import (
    ApacheProxy,
    CaddyProxy,
    EnvoyProxy,
    H2oProxy,
    HaproxyProxy,
    LighttpdProxy,
    NginxProxy,
    Proxy,
    TraefikProxy,
)
from tests.harness.scenarios import GUARD, MIB
from tests.harness.servers_asgi import GRANIAN, HYPERCORN, HYPERCORN_TRIO, raw
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import Stack, stack
from tests.harness.verdicts import assert_clean
from tests.harness.watching import smuggled

pytestmark = [pytest.mark.timeout(GUARD), pytest.mark.stacks]

UPSTREAM: Final[Mapping[str, Callable[[int], Proxy]]] = {
    "caddy": partial(CaddyProxy, http_2=True),
    "traefik": partial(TraefikProxy, http_2=True),
    "envoy": partial(EnvoyProxy, http_2=True),
}
"""Those that speak it to a server without TLS."""

_UNBUFFERED: Final = partial(
    NginxProxy, request_buffering=False, upstream_http="1.1", forwarded=True, http_2=True
)
CLIENT: Final[Mapping[str, Callable[[int], Proxy]]] = {
    "nginx": partial(NginxProxy, http_2=True),
    "nginx-forwarded": _UNBUFFERED,
    "haproxy-forwarded": partial(HaproxyProxy, forwarded=True),
    "caddy": CaddyProxy,
    "traefik": TraefikProxy,
    "envoy": EnvoyProxy,
    "apache": ApacheProxy,
    "lighttpd": LighttpdProxy,
    "lighttpd-streaming": partial(LighttpdProxy, request_buffering=False),
    "h2o": H2oProxy,
}
"""Those that speak it to a client; nginx without buffering and HAProxy say that they are there."""

UPLOAD: Final = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, listen=0.02)
SLOW: Final = replace(UPLOAD, piece_size=UPLOAD.body_size // 32, pause=2 / 31)


def whole(outcome: Outcome) -> bool:
    """Whether the client has the refusal."""
    response = outcome.response
    return response is not None and (response.status, response.body) == (413, routes.REFUSAL)


@pytest.mark.parametrize("upload", [UPLOAD, SLOW], ids=["0", "2"])
@pytest.mark.parametrize("proxy", UPSTREAM)
@pytest.mark.parametrize("row", [raw(HYPERCORN), raw(HYPERCORN_TRIO), raw(GRANIAN)], ids=str)
def test_a_server_that_is_asked_over_http_2(
    serve: Serve, tally: Tally, row: Stack, proxy: str, upload: Upload
) -> None:
    server = serve(row)
    port = serve.behind(server, f"{proxy}-h2c", UPSTREAM[proxy]).port
    outcomes = [
        client(replace(upload, port=port, chunked=chunked))
        for client in (strict, reader)
        for chunked in (False, True)
    ]
    delivered = sum(map(whole, outcomes))
    tally(
        f"{row} {proxy} h2c",
        "2 s" if upload.pause else "0 s",
        wrapped=True,
        delivered=delivered,
        tries=len(outcomes),
    )
    assert delivered == len(outcomes), [str(outcome) for outcome in outcomes]
    assert_clean(outcomes)
    assert not smuggled(server)


@pytest.mark.negative_control
@pytest.mark.parametrize("proxy", UPSTREAM)
@pytest.mark.parametrize("row", [raw(HYPERCORN), raw(GRANIAN)], ids=str)
def test_without_the_middleware_it_is_lost(
    serve: Serve, tally: Tally, row: Stack, proxy: str
) -> None:
    port = serve.behind(serve(row, wrapped=False), f"{proxy}-h2c", UPSTREAM[proxy]).port
    outcomes = [strict(replace(SLOW, port=port, chunked=True)) for _ in range(2)]
    delivered = sum(map(whole, outcomes))
    tally(f"{row} {proxy} h2c", "2 s", wrapped=False, delivered=delivered, tries=2)
    assert not delivered, [str(outcome) for outcome in outcomes]


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of 8 MiB, which takes no space."""
    path = tmp_path_factory.mktemp("http-2") / "body"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    yield path
    path.unlink()


def curl(program: str, url: str, body: Path, *, rate: str) -> tuple[int, bytes, str]:
    """The exit code of curl, what came, and the protocol and status, of an upload over HTTP/2."""
    done = subprocess.run(
        [
            *(program, "--silent", "--http2-prior-knowledge", "--max-time", "60"),
            *("--header", "Expect:", "--limit-rate", rate, "--upload-file", str(body)),
            *("--write-out", "%{stderr}%{http_version} %{http_code}", url),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("rate", ["0", "4M"])
@pytest.mark.parametrize("proxy", CLIENT)
@pytest.mark.parametrize(
    ("row", "path"),
    [
        pytest.param(stack("uvicorn-httptools"), routes.REFUSE, id="uvicorn"),
        pytest.param(stack("uvicorn-httptools"), routes.REFUSE_UNSIZED, id="uvicorn-unsized"),
        pytest.param(stack("gunicorn-gthread"), routes.REFUSE, id="gthread"),
        pytest.param(stack("gunicorn-gthread"), routes.REFUSE_UNSIZED, id="gthread-unsized"),
        pytest.param(stack("tornado"), routes.REFUSE, id="tornado"),
    ],
)
def test_a_client_that_asks_over_http_2(
    serve: Serve,
    require_program: Callable[[str], str],
    body: Path,
    row: Stack,
    path: str,
    proxy: str,
    rate: str,
) -> None:
    """Whole, and without an error, whether the application gives its length or not."""
    program = require_program("curl")
    running = serve.behind(serve(row), f"{proxy}-h2", CLIENT[proxy])
    for _ in range(3):
        told = curl(program, running.url + path, body, rate=rate)
        assert told == (0, routes.REFUSAL, "2 413")


@pytest.mark.negative_control
@pytest.mark.parametrize("proxy", ["nginx-forwarded", "caddy", "traefik", "envoy"])
def test_without_the_middleware_its_stream_is_reset(
    serve: Serve, require_program: Callable[[str], str], body: Path, proxy: str
) -> None:
    """A race between the server's reset and the answer: run until it is lost."""
    program = require_program("curl")
    running = serve.behind(serve(stack("tornado"), wrapped=False), f"{proxy}-h2", CLIENT[proxy])
    for _ in range(40):
        if curl(program, running.url + routes.REFUSE, body, rate="4M")[0] != 0:
            return
    pytest.fail("it was never reset")
