"""Tornado's own limit: an upload over ``max_body_size`` gets a real 413 instead of a reset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cleanclose.doctor import Upload, curl, http_client, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import FRAMING, GUARD, KIB, MIB, TRIES
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import TORNADO
from tests.harness.verdicts import Client, assert_clean, repeat

pytestmark = pytest.mark.timeout(GUARD)

SMALL = {"TEST_MAX_BODY_SIZE": str(MIB)}
CLIENTS = [
    pytest.param(strict, id="strict"),
    pytest.param(http_client, id="http_client"),
    pytest.param(reader, id="reader"),
]
PATHS = [pytest.param(routes.BUFFERED, id="buffered"), pytest.param("/missing", id="missing")]

UPLOAD = Upload(port=0, body_size=8 * MIB, listen=0.1)


@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_upload_over_the_limit_gets_a_413(
    serve: Serve, tally: Tally, client: Client, path: str, chunked: bool, close: bool
) -> None:
    server = serve(TORNADO, env=SMALL)
    upload = replace(UPLOAD, port=server.port, path=path, chunked=chunked, connection_close=close)
    outcomes = repeat(client, upload, TRIES)
    # Of an unknown path either is true, and a handler cannot run before the body is there.
    wanted = (413,) if path == routes.BUFFERED else (404, 413)
    good = sum(outcome.status in wanted for outcome in outcomes)
    tally(
        f"tornado max_body_size {path[1:]}"
        f"{' chunked' if chunked else ''}{' close' if close else ''}",
        client.__name__,
        wrapped=True,
        delivered=good,
        tries=TRIES,
    )
    assert good == TRIES, "\n".join(map(str, outcomes))
    for outcome in outcomes:
        response = outcome.response
        assert response is not None
        assert response.body
        assert response.framing == "length"
    assert_clean(outcomes)


@pytest.mark.negative_control
@pytest.mark.parametrize("chunked", FRAMING)
def test_without_the_middleware_it_is_lost(serve: Serve, tally: Tally, chunked: bool) -> None:
    server = serve(TORNADO, wrapped=False, env=SMALL)
    outcome = strict(replace(UPLOAD, port=server.port, path=routes.BUFFERED, chunked=chunked))
    tally(
        f"tornado max_body_size buffered{' chunked' if chunked else ''}",
        "strict",
        wrapped=False,
        delivered=int(outcome.status == 413),
        tries=1,
    )
    assert outcome.status != 413, str(outcome)


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("path", [routes.REFUSE, routes.REFUSE_LARGE, routes.REFUSE_STREAMING])
def test_a_handler_that_refuses_before_the_limit_is_looked_at(
    serve: Serve, path: str, chunked: bool
) -> None:
    """Tornado compares the length after prepare(): its 400 must not follow the refusal."""
    server = serve(TORNADO, env=SMALL)
    outcome = strict(replace(UPLOAD, port=server.port, path=path, chunked=chunked))
    assert outcome.status in (401, 413), str(outcome)
    assert_clean([outcome])


@pytest.mark.parametrize("chunked", FRAMING)
def test_a_handler_that_lifts_the_limit_gets_its_body(serve: Serve, chunked: bool) -> None:
    server = serve(TORNADO, env=SMALL)
    outcome = strict(replace(UPLOAD, port=server.port, path=routes.ACCEPT, chunked=chunked))
    assert outcome.status == 200, str(outcome)
    assert outcome.response
    assert outcome.response.body.startswith(b'{"bytes": %d,' % (8 * MIB))
    assert_clean([outcome])


@pytest.mark.parametrize("chunked", FRAMING)
def test_an_upload_within_the_limit_is_buffered_as_ever(serve: Serve, chunked: bool) -> None:
    server = serve(TORNADO, env=SMALL)
    upload = replace(
        UPLOAD, port=server.port, path=routes.BUFFERED, body_size=512 * KIB, chunked=chunked
    )
    outcome = strict(replace(upload, follow_up="after"))
    assert outcome.response
    assert (outcome.status, outcome.response.body) == (200, b"%d\n" % (512 * KIB))
    assert outcome.second
    assert_clean([outcome])


def test_an_expectation_over_the_limit_is_answered_at_once(serve: Serve) -> None:
    server = serve(TORNADO, env=SMALL)
    outcome = strict(replace(UPLOAD, port=server.port, path=routes.BUFFERED, expect="patient"))
    assert outcome.status == 413, str(outcome)
    assert_clean([outcome])


def test_curl_shows_the_413(serve: Serve, require_program: Callable[[str], str]) -> None:
    require_program("curl")
    server = serve(TORNADO, env=SMALL)
    outcome = curl(replace(UPLOAD, port=server.port, path=routes.BUFFERED))
    assert outcome.status == 413, str(outcome)
