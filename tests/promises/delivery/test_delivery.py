"""Refused uploads: the client gets the whole response, on every server, in every try.

Each test has its negative control: the same upload to the same server without the middleware,
which has to lose the response. Where it could not, success would prove nothing.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from cleanclose.doctor import curl, http_client, reader, strict
from cleanclose.testing.uploads import head_of
from tests.harness.apps import routes
from tests.harness.scenarios import CORE, GUARD, KIB, MIB, PATHS, TRIES, Scenario
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import FRAMEWORKS, SERVERS, STACKS, Stack
from tests.harness.verdicts import Client, arrived, assert_delivered, repeat
from tests.harness.waiting import LIMIT

pytestmark = pytest.mark.timeout(GUARD)

FEW = min(TRIES, 5)
"""The tries of what is no bar of the project."""
UNTIL_LOST = max(FEW, 3)
"""The tries of a negative control, of which the first loss is the last one."""

GIVES_UP = [pytest.param(strict, id="strict"), pytest.param(http_client, id="http_client")]


def check_delivery(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario, client: Client, tries: int
) -> None:
    """Every try delivers the whole response, and nothing else comes."""
    server = serve(stack)
    outcomes = repeat(client, scenario.to(server.port), tries)
    tally(
        f"{stack} {scenario}",
        client.__name__,
        wrapped=True,
        delivered=sum(arrived(outcome, scenario) for outcome in outcomes),
        tries=tries,
    )
    assert_delivered(outcomes, scenario)


@pytest.mark.parametrize("client", GIVES_UP)
@pytest.mark.parametrize("scenario", CORE, ids=str)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_refusal_arrives(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario, client: Client
) -> None:
    check_delivery(serve, tally, stack, scenario, client, TRIES)


@pytest.mark.parametrize("scenario", PATHS, ids=str)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_other_refusals_arrive(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario
) -> None:
    check_delivery(serve, tally, stack, scenario, strict, min(TRIES, 2))


@pytest.mark.parametrize("client", GIVES_UP)
@pytest.mark.parametrize(
    "scenario", [scenario for scenario in CORE if scenario.name.endswith("-8")], ids=str
)
@pytest.mark.parametrize("stack", FRAMEWORKS, ids=str)
def test_refusal_of_a_framework_arrives(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario, client: Client
) -> None:
    check_delivery(serve, tally, stack, scenario, client, FEW)


@pytest.mark.negative_control
@pytest.mark.parametrize(
    ("stack", "scenario"),
    [
        pytest.param(stack, scenario, id=f"{stack}-{scenario}")
        for stack in STACKS
        for scenario in (*CORE, *PATHS)
        if scenario.lost_by(stack)
    ],
)
def test_without_the_middleware_the_refusal_is_lost(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario
) -> None:
    server = serve(stack, wrapped=False)
    delivered = tries = 0
    # One loss is the proof, and more than one only costs time.
    for tries in range(1, UNTIL_LOST + 1):
        delivered += arrived(strict(scenario.to(server.port)), scenario)
        if delivered < tries:
            break
    tally(f"{stack} {scenario}", "strict", wrapped=False, delivered=delivered, tries=tries)
    assert delivered < tries


@pytest.mark.parametrize(
    "scenario", [scenario for scenario in CORE if not scenario.name.endswith("-64")], ids=str
)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_refusal_arrives_at_a_client_that_reads_while_it_sends(
    serve: Serve, tally: Tally, stack: Stack, scenario: Scenario
) -> None:
    check_delivery(serve, tally, stack, scenario, reader, min(TRIES, 2))


@pytest.mark.parametrize("scenario", CORE, ids=str)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_refusal_arrives_at_curl(
    serve: Serve,
    tally: Tally,
    require_program: Callable[[str], str],
    stack: Stack,
    scenario: Scenario,
) -> None:
    require_program("curl")
    check_delivery(serve, tally, stack, scenario, curl, min(TRIES, 2))


@pytest.mark.negative_control
def test_the_negative_controls_see_the_loss_of_a_large_response(serve: Serve) -> None:
    """A client that reads is not enough: the reset takes back what it has not read yet."""
    stack = SERVERS[-1]
    scenario = next(scenario for scenario in CORE if scenario.name == "large-8")
    server = serve(stack, wrapped=False)
    received = 0
    with socket.socket() as client:
        # What is in the client's own kernel survives a reset: most waits in the server's.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head_of(scenario.to(server.port)) + bytes(MIB))
        reset = select.poll()
        reset.register(client, 0)
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(4 * KIB):
                received += len(piece)
                if received > len(routes.LARGE) - 128 * KIB:
                    # The server has written everything: the rest is read when it has closed.
                    reset.poll(100)
    assert 0 < received < len(routes.LARGE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stack", [stack for stack in SERVERS if stack.interface != "wsgi"], ids=str
)
def test_an_upload_that_moves_keeps_its_time(serve: Serve, stack: Stack) -> None:
    """Eight seconds of body are healthy. On WSGI, where they hold a worker, 5 s are the cap."""
    server = serve(stack)
    scenario = CORE[0]
    upload = replace(scenario.to(server.port), body_size=4 * MIB, pause=0.12)
    outcome = strict(upload)
    assert outcome.seconds > 7
    assert_delivered([outcome], scenario)
