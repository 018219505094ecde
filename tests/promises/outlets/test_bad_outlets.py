"""Outlets that raise, block or are missing, on real servers: the requests never hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from cleanclose.doctor.clients import Upload, strict
from tests.harness.asking import status_of
from tests.harness.leavers import leave_at, request
from tests.harness.reporting import GTHREAD, TORNADO, UVICORN, counted, crowd
from tests.harness.stacks import Stack
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve

STACKS = (UVICORN, GTHREAD, TORNADO)
MIB = 1024 * 1024


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_one_that_sleeps_behind_a_queue(serve: Serve, stack: Stack) -> None:
    server = serve(stack, env={"TEST_OUTLETS": "queued-sleeps,structlog"})
    before = counted(server)
    left = crowd(server, 5)
    statuses = [status_of(server.port, "/") for _ in range(20)]
    assert strict(Upload(port=server.port, path="/refuse", body_size=8 * MIB)).status == 413
    until(lambda: counted(server)["departures"] - before["departures"] >= left)
    assert statuses == [200] * 20
    after = counted(server)
    # One is with the outlet, three wait, and all others had no room.
    dropped = after["outlet_dropped_events"] - before["outlet_dropped_events"]
    assert dropped >= left - 4


@pytest.mark.negative_control
def test_the_control_one_that_sleeps_in_the_loop(serve: Serve) -> None:
    server = serve(UVICORN, env={"TEST_OUTLETS": "sleeps"})
    leave_at(server.port, request("POST", "/read", length=1000), "rst", body=b"some")
    with pytest.raises(httpx.TimeoutException):
        # Longer than any loop is busy; the outlet sleeps for much longer.
        httpx.get(f"{server.url}/", timeout=10)


def test_on_threads_one_that_sleeps_holds_its_own_request_only(serve: Serve) -> None:
    server = serve(GTHREAD, env={"TEST_OUTLETS": "sleeps"})
    leave_at(server.port, request("POST", "/read", length=1000), "rst", body=b"some")
    for _ in range(10):
        assert status_of(server.port, "/") == 200


@pytest.mark.parametrize(
    ("stack", "outlets"),
    [
        *((stack, "raises,structlog") for stack in STACKS),
        *((stack, "exits,structlog") for stack in STACKS),
        (UVICORN, ""),
    ],
    ids=lambda value: str(value) or "none",
)
def test_one_that_raises_and_none_at_all(serve: Serve, stack: Stack, outlets: str) -> None:
    # The one report of a broken outlet has a traceback.
    serve.allow_tracebacks()
    server = serve(stack, env={"TEST_OUTLETS": outlets})
    before = counted(server)
    left = crowd(server, 5)
    until(lambda: counted(server)["departures"] - before["departures"] >= left)
    assert strict(Upload(port=server.port, path="/refuse", body_size=8 * MIB)).status == 413
    until(lambda: counted(server)["early_responses"] > before["early_responses"])
    after = counted(server)
    raised = after["outlet_errors"] - before["outlet_errors"]
    assert raised == (left + 1 if outlets else 0)
    assert server.log_text().count("An outlet failed") == (1 if outlets else 0)
