"""A small refused upload is drained, and leaves a connection which serves the next request."""

from __future__ import annotations

import http.client
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from cleanclose.doctor import Outcome, Upload, body_pieces, http_client, reader, strict
from tests.harness.apps import routes
from tests.harness.asking import post_and_get
from tests.harness.scenarios import GUARD, KIB, MIB, TRIES
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import STACKS, Stack, stack
from tests.harness.verdicts import Client, assert_clean, repeat
from tests.harness.waiting import LIMIT

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

pytestmark = pytest.mark.timeout(GUARD)

KEEPING = [each for each in STACKS if each.keeps_alive]
# A worker waits for no direct client: what becomes of a body that is on its way is a race.
WORKERS = [each for each in KEEPING if each.interface == "wsgi"]
WAITING = [each for each in KEEPING if each not in WORKERS]

UPLOAD = Upload(port=0, path=routes.REFUSE, body_size=128 * KIB, follow_up="after", listen=0.05)


PATIENT: Final[SettingsOptions] = {"respond_after": 30.0, "max_seconds": 60.0}
"""By default half a second has to be enough for the rest, which a busy machine makes longer."""


def served_twice(outcome: Outcome) -> bool:
    """The refusal and the next answer are both there, on a connection that stays open."""
    first, second = outcome.response, outcome.second
    return (
        first is not None
        and (first.status, first.body) == (413, routes.REFUSAL)
        and second is not None
        and (second.status, second.body) == (200, routes.OK_BODY)
        and outcome.closed_by is None
    )


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    "client",
    [strict, http_client, pytest.param(reader, id="reader")],
    ids=["strict", "http_client", "reader"],
)
@pytest.mark.parametrize("stack", WAITING, ids=str)
def test_the_next_request_is_served(
    serve: Serve, tally: Tally, stack: Stack, client: Client, chunked: bool
) -> None:
    server = serve(stack, settings=PATIENT)
    # A client that stops sending when it has its answer has no whole body to follow up on.
    upload = replace(UPLOAD, port=server.port, chunked=chunked, keep_sending=True)
    outcomes = repeat(client, upload, TRIES)
    good = sum(map(served_twice, outcomes))
    tally(
        f"{stack} next request{' (chunked)' if chunked else ''}",
        client.__name__,
        wrapped=True,
        delivered=good,
        tries=TRIES,
    )
    assert good == TRIES, "\n".join(map(str, outcomes))
    assert_clean(outcomes)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("stack", WORKERS, ids=str)
def test_a_worker_serves_it_behind_a_body_that_has_come(
    serve: Serve, stack: Stack, chunked: bool
) -> None:
    transcript = post_and_get(serve(stack).port, routes.REFUSE, chunked=chunked)
    assert [each.status for each in transcript.responses] == [413, 200]
    assert transcript.clean


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [stack("tornado"), stack("gunicorn-gthread")], ids=str)
def test_without_the_middleware_the_connection_is_gone(
    serve: Serve, tally: Tally, stack: Stack
) -> None:
    server = serve(stack, wrapped=False)
    outcome = strict(replace(UPLOAD, port=server.port))
    tally(
        f"{stack} next request",
        "strict",
        wrapped=False,
        delivered=int(served_twice(outcome)),
        tries=1,
    )
    assert not served_twice(outcome)


@pytest.mark.parametrize("stack", WAITING, ids=str)
def test_many_requests_take_turns_on_one_connection(serve: Serve, stack: Stack) -> None:
    """Refused and accepted uploads of changing sizes, and GETs between them."""
    server = serve(stack, settings=PATIENT)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    connection.connect()
    opened = connection.sock
    for turn in range(8):
        size = (turn * 29 + 1) * KIB
        for path, status in (
            (routes.REFUSE, 413),
            (routes.ACCEPT, 200),
            (routes.REFUSE_LARGE, 401),
        ):
            headers = {} if turn % 2 else {"Content-Length": str(size)}
            connection.request(
                "POST",
                path,
                body=(bytes(piece) for piece in body_pieces(size)),
                headers=headers,
                encode_chunked=bool(turn % 2),
            )
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert connection.sock is opened, f"the connection was closed after {path}"
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, routes.OK_BODY)
    connection.close()


@pytest.mark.parametrize("stack", KEEPING, ids=str)
def test_an_upload_over_the_cap_ends_the_connection_in_good_order(
    serve: Serve, stack: Stack
) -> None:
    """What has not been read must not stand in front of the next request."""
    server = serve(stack, settings={"max_bytes": 256 * KIB, "hold_seconds": 0.3})
    outcome = reader(
        Upload(port=server.port, path=routes.REFUSE, body_size=8 * MIB, keep_sending=True)
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert (response.status, response.body) == (413, routes.REFUSAL)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.transcript.clean, str(outcome)
