"""Refusals that are streamed, or followed by work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from cleanclose.doctor import Upload, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import FRAMING, GUARD, MIB
from tests.harness.serving import Serve
from tests.harness.stacks import SERVERS, STACKS, Stack
from tests.harness.verdicts import assert_clean
from tests.harness.waiting import until
from tests.harness.watching import get_json

pytestmark = pytest.mark.timeout(GUARD)


@pytest.mark.parametrize("client", [strict, reader], ids=["strict", "reader"])
@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_a_streamed_refusal_arrives_in_all_its_pieces(
    serve: Serve, stack: Stack, chunked: bool, client: object
) -> None:
    server = serve(stack)
    send = strict if client is strict else reader
    outcome = send(
        Upload(port=server.port, path=routes.REFUSE_STREAMING, body_size=8 * MIB, chunked=chunked)
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert (response.status, response.body) == (413, b"".join(routes.CHUNKS))
    assert_clean([outcome])


@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_work_behind_the_response_is_done(serve: Serve, stack: Stack, close: bool) -> None:
    """The app's task outlives its response; lingering neither ends it nor waits for ever."""
    server = serve(stack)

    def finished() -> int:
        seen = cast("Mapping[str, int]", get_json(server, routes.SEEN))
        return seen["background"]

    before = finished()
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.REFUSE_BACKGROUND,
            body_size=8 * MIB,
            connection_close=close,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert_clean([outcome])
    until(lambda: finished() == before + 1, "the background work was never finished")


@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_an_http_1_0_upload_is_refused(serve: Serve, stack: Stack) -> None:
    server = serve(stack)
    upload = Upload(port=server.port, path=routes.REFUSE, body_size=8 * MIB, http_version="1.0")
    for outcome in (strict(upload), strict(replace(upload, path=routes.REFUSE_LARGE))):
        assert outcome.status in (401, 413), str(outcome)
        assert outcome.closed_by == "fin", str(outcome)
        assert_clean([outcome])
