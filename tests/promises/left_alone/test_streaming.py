"""What the middleware must not touch: bodies that are read, answers that are streamed."""

from __future__ import annotations

import hashlib

import pytest

from cleanclose.doctor import Upload, body_digest, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import FRAMING, GUARD, KIB, MIB, TRIES
from tests.harness.serving import Serve
from tests.harness.stacks import STACKS, Stack
from tests.harness.verdicts import assert_clean, repeat

pytestmark = pytest.mark.timeout(GUARD)
FEW = min(TRIES, 3)
# BaseHTTPMiddleware listens for a disconnect while the response streams, and loses the pieces
# of the body that it gets: nothing can echo behind it, with or without us.
ECHOING = [candidate for candidate in STACKS if candidate.name != "starlette-base-http"]


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_an_upload_that_is_read_arrives_whole(serve: Serve, stack: Stack, chunked: bool) -> None:
    server = serve(stack)
    upload = Upload(port=server.port, path=routes.ACCEPT, body_size=16 * MIB, chunked=chunked)
    outcomes = repeat(strict, upload, FEW)
    expected = routes.accepted_json(16 * MIB, body_digest(16 * MIB))
    for outcome in outcomes:
        assert outcome.response is not None, str(outcome)
        assert outcome.response.body == expected
    assert_clean(outcomes)


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", ECHOING, ids=str)
def test_an_echo_sends_while_it_reads(serve: Serve, stack: Stack, chunked: bool) -> None:
    """The response begins long before the body ends; not a byte of either may be missed."""
    server = serve(stack)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.ECHO,
            body_size=8 * MIB,
            chunked=chunked,
            keep_sending=True,
        )
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert hashlib.sha256(response.body).hexdigest() == body_digest(8 * MIB)
    assert_clean([outcome])


@pytest.mark.parametrize("stack", ECHOING, ids=str)
def test_a_slow_echo_is_not_taken_for_an_early_response(serve: Serve, stack: Stack) -> None:
    """The body still comes when every cap on holding back a head has passed."""
    server = serve(stack)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.ECHO,
            body_size=MIB,
            piece_size=64 * KIB,
            pause=0.08,
            keep_sending=True,
        )
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert hashlib.sha256(response.body).hexdigest() == body_digest(MIB)
    assert_clean([outcome])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_requests_without_a_body_pass(serve: Serve, stack: Stack, method: str) -> None:
    server = serve(stack)
    outcomes = [
        strict(Upload(port=server.port, method=method, path=path, follow_up=follow_up))
        for path in (routes.INDEX, routes.REFUSE, routes.REFUSE_LARGE)
        for follow_up in (None, "after")
    ]
    assert [outcome.status for outcome in outcomes] == [200, 200, 413, 413, 401, 401]
    assert_clean(outcomes)
    if method == "HEAD":
        assert all(outcome.response and not outcome.response.body for outcome in outcomes)
    if stack.keeps_alive:
        # Tornado ends the connection behind an answer from prepare(), so only the first one.
        assert outcomes[1].second, str(outcomes[1])


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_an_error_of_the_app_stays_an_error(serve: Serve, stack: Stack) -> None:
    """The exception reaches the framework or the server as it does without the middleware."""
    serve.allow_tracebacks()
    server = serve(stack)
    outcome = reader(Upload(port=server.port, path=routes.ERROR, body_size=MIB))
    assert outcome.status == 500, str(outcome)
    assert outcome.transcript.stray == b""
    assert "the app failed, as this route promises" in server.log_text()
