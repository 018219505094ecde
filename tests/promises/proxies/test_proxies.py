"""Behind HAProxy and Caddy: the app's answer, whole, and not a 502, a 503, a 504 or a reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from cleanclose.doctor import Outcome, Upload, reader, strict
from tests.harness.apps import routes
from tests.harness.proxies import CaddyProxy, HaproxyProxy, NginxProxy
from tests.harness.scenarios import GUARD, KIB, MIB, TRIES
from tests.harness.servers_asgi import ROWS as ASGI_ROWS
from tests.harness.servers_wsgi import ROWS as WSGI_ROWS
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import SERVERS, Stack, stack
from tests.harness.verdicts import assert_clean, repeat

pytestmark = pytest.mark.timeout(GUARD)

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

Proxy = HaproxyProxy | CaddyProxy | NginxProxy

PROXIES: Final[Mapping[str, Callable[[int], Proxy]]] = {
    "nginx": NginxProxy,
    "haproxy": HaproxyProxy,
    "haproxy-buffered": partial(HaproxyProxy, request_buffering=True),
    "haproxy-close": partial(HaproxyProxy, keep_alive=False),
    "caddy": CaddyProxy,
    "caddy-expects": partial(CaddyProxy, pass_expect=False),
}

CADDY: Final[SettingsOptions] = {"respond_after": 5.0}
"""As its page advises: it cuts a client that still sends once it has passed on an answer."""

THREE: Final = ("uvicorn-httptools", "gunicorn-gthread", "tornado")

FEW: Final = min(TRIES, 2)

OTHERS: Final = (*ASGI_ROWS, *WSGI_ROWS)

UPLOAD: Final = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, listen=0.02, timeout=30.0)


class Front:
    """Starts one proxy at a time."""

    def __init__(self, require_program: Callable[[str], str]) -> None:
        self._require_program = require_program
        self._running: list[Proxy] = []

    def __call__(self, name: str, upstream_port: int) -> Proxy:
        """A proxy in front of this port, until the test is over."""
        self._require_program(name.partition("-")[0])
        proxy = PROXIES[name](upstream_port)
        proxy.start()
        self._running.append(proxy)
        return proxy

    def close(self) -> None:
        """Stop it."""
        for proxy in self._running:
            proxy.stop()


@pytest.fixture
def front(require_program: Callable[[str], str]) -> Iterator[Front]:
    """Start a proxy, or skip where it is not installed."""
    starter = Front(require_program)
    yield starter
    starter.close()


def what_came(outcomes: list[Outcome], body: bytes) -> dict[object, int]:
    """How often each status came; an answer that is cut or another one counts by what it is."""
    found: list[object] = []
    for outcome in outcomes:
        response = outcome.response
        if response is None:
            found.append("reset" if outcome.reset_seen else "cut")
        else:
            found.append(response.status if response.body == body else (response.status, "other"))
    return {what: found.count(what) for what in dict.fromkeys(found)}


def cut_by_itself(proxy: Proxy) -> int:
    """How often Caddy has closed its own connection to the server with the answer half read.

    Go's Transport asks for more behind a request's last byte (transferWriter.writeBody), and its
    Server closes the request's body when an answer's head goes out. If the second comes first,
    the Transport gives up, although the server has read everything. (A server that resets is
    another message.)
    """
    return sum(
        "aborting with incomplete response" in line and "use of closed network connection" in line
        for line in proxy.error_log().splitlines()
    )


def tried(proxy: Proxy, upload: Upload) -> Outcome:
    """One try; another one, up to two times, where Caddy has lost against itself."""
    for _ in range(2):
        before = cut_by_itself(proxy)
        outcome = strict(upload)
        if cut_by_itself(proxy) == before:
            return outcome
    return strict(upload)


def check(
    serve: Serve,
    tally: Tally,
    front: Front,
    stack: Stack,
    proxy: str,
    upload: Upload,
    tries: int,
) -> None:
    """Every try brings the answer, whole, and nothing else."""
    large = upload.path == routes.REFUSE_LARGE
    status, body = (401, routes.LARGE) if large else (413, routes.REFUSAL)
    server = serve(stack, settings=CADDY if proxy == "caddy" else None)
    running = front(proxy, server.port)
    outcomes = [tried(running, replace(upload, port=running.port)) for _ in range(tries)]
    seen = what_came(outcomes, body)
    framing = "chunked" if upload.chunked else "length"
    tally(
        f"{stack} {proxy} {upload.path[1:]}-{upload.body_size // MIB}",
        "slow" if upload.pause else framing,
        wrapped=True,
        delivered=seen.get(status, 0),
        tries=tries,
    )
    assert seen == {status: tries}, running.error_log()[-2000:]
    assert_clean(outcomes)


@pytest.mark.parametrize(
    "upload",
    [
        pytest.param(UPLOAD, id="length"),
        pytest.param(replace(UPLOAD, chunked=True), id="chunked"),
        pytest.param(replace(UPLOAD, path=routes.REFUSE_LARGE), id="large"),
    ],
)
@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_the_refusal_is_passed_on(
    serve: Serve, tally: Tally, front: Front, stack: Stack, proxy: str, upload: Upload
) -> None:
    check(serve, tally, front, stack, proxy, upload, FEW)


@pytest.mark.parametrize("proxy", ["haproxy-buffered", "haproxy-close"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_other_settings_of_haproxy(
    serve: Serve, tally: Tally, front: Front, stack: Stack, proxy: str
) -> None:
    check(serve, tally, front, stack, proxy, UPLOAD, FEW)


@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_large_upload(serve: Serve, tally: Tally, front: Front, stack: Stack, proxy: str) -> None:
    check(serve, tally, front, stack, proxy, replace(UPLOAD, body_size=64 * MIB), 1)


@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
@pytest.mark.parametrize("name", THREE)
def test_a_slow_upload(serve: Serve, tally: Tally, front: Front, name: str, proxy: str) -> None:
    """Two seconds, which is longer than a response is kept back by default."""
    slow = replace(UPLOAD, piece_size=256 * KIB, pause=0.06)
    check(serve, tally, front, stack(name), proxy, slow, 1)


@pytest.mark.stacks
@pytest.mark.parametrize("stack", OTHERS, ids=str)
def test_other_servers(serve: Serve, tally: Tally, front: Front, stack: Stack) -> None:
    for proxy in ("nginx", "haproxy", "caddy"):
        check(serve, tally, front, stack, proxy, UPLOAD, 2)


@pytest.mark.stacks
# Where no connection can be taken over nothing is behind the cap.
@pytest.mark.parametrize("stack", [row for row in OTHERS if row.name != "granian-wsgi"], ids=str)
def test_other_servers_beyond_the_cap(
    serve: Serve, tally: Tally, front: Front, stack: Stack
) -> None:
    """The hold: unread, nginx stops sending and finds the response."""
    server = serve(stack, settings={"max_bytes": 256 * KIB})
    upload = replace(UPLOAD, port=front("nginx", server.port).port, body_size=64 * MIB)
    outcomes = repeat(strict, upload, FEW)
    seen = what_came(outcomes, routes.REFUSAL)
    tally(
        f"{stack} nginx 256 KiB of 64 MiB",
        "strict",
        wrapped=True,
        delivered=seen.get(413, 0),
        tries=FEW,
    )
    assert seen == {413: FEW}


@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
@pytest.mark.parametrize("name", THREE)
def test_beyond_the_cap_a_client_that_reads_gets_the_refusal(
    serve: Serve, tally: Tally, front: Front, name: str, proxy: str
) -> None:
    """They pass the end of the connection on; only nginx makes sure that its client reads."""
    server = serve(stack(name), settings={"max_bytes": 256 * KIB})
    upload = replace(UPLOAD, port=front(proxy, server.port).port, body_size=64 * MIB)
    outcomes = repeat(reader, upload, TRIES)
    seen = what_came(outcomes, routes.REFUSAL)
    tally(
        f"{name} {proxy} 256 KiB of 64 MiB",
        "reader",
        wrapped=True,
        delivered=seen.get(413, 0),
        tries=TRIES,
    )
    assert seen == {413: TRIES}


@pytest.mark.negative_control
@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread", "tornado"])
def test_without_the_middleware_the_refusal_is_lost(
    serve: Serve, tally: Tally, front: Front, name: str, proxy: str
) -> None:
    """A race between the proxy's writing and the server's reset: run until it is lost."""
    port = front(proxy, serve(stack(name), wrapped=False).port).port
    passed = tries = 0
    for tries in range(1, 41):
        passed += strict(replace(UPLOAD, port=port)).status == 413
        if passed < tries:
            break
    tally(f"{name} {proxy} refuse-8", "length", wrapped=False, delivered=passed, tries=tries)
    assert passed < tries


@pytest.mark.negative_control
def test_caddy_cuts_a_client_that_sends_on(serve: Serve, front: Front) -> None:
    """Why its page advises another ``respond_after``: with the default one the answer is lost."""
    port = front("caddy", serve(stack("uvicorn-httptools")).port).port
    outcome = strict(replace(UPLOAD, port=port, piece_size=256 * KIB, pause=0.06))
    assert outcome.response is None


EXPECTS: Final = replace(UPLOAD, expect="patient")


@pytest.mark.parametrize("name", ["uvicorn-h11", "uvicorn-httptools", "tornado"])
def test_behind_caddy_an_expect_is_better_not_handed_on(
    serve: Serve, front: Front, name: str
) -> None:
    """As its page advises."""
    port = front("caddy-expects", serve(stack(name)).port).port
    outcomes = repeat(strict, replace(EXPECTS, port=port), FEW)
    assert what_came(outcomes, routes.REFUSAL) == {413: FEW}
    assert_clean(outcomes)
    assert not any(outcome.reset_seen for outcome in outcomes)


@pytest.mark.negative_control
def test_caddy_cuts_a_client_whose_expect_it_has_answered_by_itself(
    serve: Serve, front: Front
) -> None:
    """It sends the 100 in the server's place, and the upload is under way when the answer comes."""
    port = front("caddy", serve(stack("uvicorn-h11")).port).port
    outcomes = repeat(strict, replace(EXPECTS, port=port), 4)
    assert any(outcome.reset_seen or outcome.response is None for outcome in outcomes)
