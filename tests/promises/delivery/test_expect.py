"""``Expect: 100-continue``: no 100 behind a final response, and none is waited for in vain."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from cleanclose.doctor import Upload, body_digest, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import FRAMING, GUARD, MIB, STREAM_BEHIND_CADDY, TRIES
from tests.harness.serving import Serve
from tests.harness.stacks import SERVERS, STACKS, Stack
from tests.harness.verdicts import Client, assert_clean, repeat

pytestmark = pytest.mark.timeout(GUARD)

CLIENTS = [pytest.param(strict, id="strict"), pytest.param(reader, id="reader")]

UPLOAD = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, expect_seconds=5.0, listen=0.1)


@pytest.mark.parametrize("manner", ["patient", "impatient"])
@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_a_refusal_is_the_last_thing_on_the_wire(
    serve: Serve,
    stack: Stack,
    client: Client,
    chunked: bool,
    manner: Literal["patient", "impatient"],
) -> None:
    server = serve(stack)
    upload = replace(UPLOAD, port=server.port, chunked=chunked, expect=manner)
    outcomes = repeat(client, upload, TRIES)
    told = "\n".join(map(str, outcomes))
    assert [outcome.status for outcome in outcomes] == [413] * TRIES, told
    assert_clean(outcomes)
    for outcome in outcomes:
        assert len(outcome.transcript.responses) == 1, told
        continued = [response.status for response in outcome.transcript.informational]
        assert continued in ([], [100]), told
        if manner == "patient" and not continued:
            assert outcome.bytes_sent == 0, "the answer came first, so the body was not sent"
            # The body may still follow, as far as the server knows: this connection has no
            # defined place for a next request.
            response = outcome.response
            assert response is not None
            assert not response.keeps_alive, told


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_a_patient_client_does_not_wait(serve: Serve, stack: Stack, chunked: bool) -> None:
    """Nobody sends before the other has spoken: whoever waits here waits for ever."""
    server = serve(stack)
    upload = replace(UPLOAD, port=server.port, chunked=chunked, expect="patient")
    outcome = strict(replace(upload, expect_seconds=30.0))
    assert outcome.status == 413
    assert outcome.seconds < 15, str(outcome)


@pytest.mark.parametrize(
    "path", [routes.REFUSE_LARGE, routes.REFUSE_AFTER, routes.REFUSE_STREAMING]
)
@pytest.mark.parametrize("manner", ["patient", "impatient"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_other_refusals_of_an_expectation(
    serve: Serve, stack: Stack, path: str, manner: Literal["patient", "impatient"]
) -> None:
    server = serve(stack)
    outcome = strict(replace(UPLOAD, port=server.port, path=path, expect=manner))
    assert outcome.status in (401, 413), str(outcome)
    assert_clean([outcome])
    if path == routes.REFUSE_AFTER and manner == "patient":
        assert [response.status for response in outcome.transcript.informational] == [100]


@pytest.mark.parametrize("manner", ["patient", "impatient"])
@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_an_accepted_expectation_is_continued_once(
    serve: Serve, stack: Stack, chunked: bool, manner: Literal["patient", "impatient"]
) -> None:
    server = serve(stack)
    outcome = strict(
        replace(UPLOAD, port=server.port, path=routes.ACCEPT, chunked=chunked, expect=manner)
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert response.status == 200
    assert response.body == routes.accepted_json(8 * MIB, body_digest(8 * MIB))
    assert_clean([outcome])
    if manner == "patient":
        assert [response.status for response in outcome.transcript.informational] == [100]


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_nothing_is_written_into_a_stream_behind_caddy(
    serve: Serve, stack: Stack, chunked: bool
) -> None:
    server = serve(stack)
    outcome = strict(replace(STREAM_BEHIND_CADDY, port=server.port, chunked=chunked))
    assert_clean([outcome])
    response = outcome.response
    assert response is not None, str(outcome)
    assert (response.status, response.body) == (413, b"".join(routes.CHUNKS)), str(outcome)
