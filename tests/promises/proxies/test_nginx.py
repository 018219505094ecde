"""Behind nginx: the app's answer, and not nginx' own 502, in both buffering modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from cleanclose.doctor import Outcome, Upload, strict
from tests.harness.apps import routes
from tests.harness.scenarios import GUARD, KIB, MIB, TRIES
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import SERVERS, Stack, stack
from tests.harness.verdicts import assert_clean, repeat

pytestmark = pytest.mark.timeout(GUARD)

UPLOAD = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, listen=0.02)
BUFFERING = [pytest.param(True, id="buffered"), pytest.param(False, id="unbuffered")]
UPSTREAM = ["1.0", "1.1"]


def statuses(outcomes: list[Outcome]) -> dict[int | None, int]:
    """How often each status came."""
    found = [outcome.status for outcome in outcomes]
    return {status: found.count(status) for status in dict.fromkeys(found)}


@pytest.mark.parametrize("upstream_http", UPSTREAM)
@pytest.mark.parametrize("buffering", BUFFERING)
@pytest.mark.parametrize(
    ("path", "status", "size"),
    [
        pytest.param(routes.REFUSE, 413, MIB, id="1-MiB"),
        pytest.param(routes.REFUSE, 413, 8 * MIB, id="8-MiB"),
        pytest.param(routes.REFUSE_LARGE, 401, 8 * MIB, id="large"),
    ],
)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_nginx_passes_the_refusal_on(
    serve: Serve,
    tally: Tally,
    require_program: Callable[[str], str],
    stack: Stack,
    path: str,
    status: int,
    size: int,
    buffering: bool,
    upstream_http: Literal["1.0", "1.1"],
) -> None:
    require_program("nginx")
    nginx = serve.behind_nginx(serve(stack), buffering=buffering, upstream_http=upstream_http)
    upload = replace(UPLOAD, port=nginx.port, path=path, body_size=size)
    outcomes = repeat(strict, upload, TRIES)
    seen = statuses(outcomes)
    tally(
        f"{stack} nginx {'' if buffering else 'un'}buffered {path[1:]}-{size // MIB}",
        f"HTTP/{upstream_http}",
        wrapped=True,
        delivered=seen.get(status, 0),
        tries=TRIES,
    )
    assert seen == {status: TRIES}, nginx.error_log()[-2000:]
    assert_clean(outcomes)


@pytest.mark.parametrize("upstream_http", UPSTREAM)
@pytest.mark.parametrize("buffering", BUFFERING)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_nginx_passes_the_refusal_on_when_the_cap_is_far_below_the_body(
    serve: Serve,
    tally: Tally,
    require_program: Callable[[str], str],
    stack: Stack,
    buffering: bool,
    upstream_http: Literal["1.0", "1.1"],
) -> None:
    """The hold: unread, nginx stops sending and finds the response."""
    require_program("nginx")
    server = serve(stack, settings={"max_bytes": 256 * KIB})
    nginx = serve.behind_nginx(server, buffering=buffering, upstream_http=upstream_http)
    upload = replace(UPLOAD, port=nginx.port, body_size=64 * MIB)
    outcomes = repeat(strict, upload, TRIES)
    seen = statuses(outcomes)
    tally(
        f"{stack} nginx {'' if buffering else 'un'}buffered 256 KiB of 64 MiB",
        f"HTTP/{upstream_http}",
        wrapped=True,
        delivered=seen.get(413, 0),
        tries=TRIES,
    )
    assert seen == {413: TRIES}, nginx.error_log()[-2000:]
    assert_clean(outcomes)


@pytest.mark.negative_control
@pytest.mark.parametrize("buffering", BUFFERING)
@pytest.mark.parametrize(
    "stack", [stack("uvicorn-h11"), stack("uvicorn-httptools"), stack("tornado")], ids=str
)
def test_without_the_middleware_nginx_says_bad_gateway(
    serve: Serve,
    tally: Tally,
    require_program: Callable[[str], str],
    stack: Stack,
    buffering: bool,
) -> None:
    """A race between nginx' writing and the server's reset, so it is run until it is lost."""
    require_program("nginx")
    nginx = serve.behind_nginx(serve(stack, wrapped=False), buffering=buffering)
    passed = tries = 0
    for tries in range(1, 61):
        passed += strict(replace(UPLOAD, port=nginx.port)).status == 413
        if passed < tries:
            break
    tally(
        f"{stack} nginx {'' if buffering else 'un'}buffered refuse-8",
        "HTTP/1.0",
        wrapped=False,
        delivered=passed,
        tries=tries,
    )
    assert passed < tries
