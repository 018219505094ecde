"""Floods in whole processes: what is left at the exit."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cleanclose.core.bounded import MOST_OF_A_TEXT
from cleanclose.core.tell.floods import FOLDED
from tests.harness.leavers import leave_at, request
from tests.harness.processes import run_python
from tests.harness.reporting import GTHREAD, UVICORN, counted
from tests.harness.stacks import Stack
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize(("stack", "size"), [(UVICORN, 20_000), (GTHREAD, 8_000)], ids=str)
def test_unsafe_requests_that_are_aborted_are_counted_and_not_repeated(
    serve: Serve, stack: Stack, size: int
) -> None:
    """Each is a warning, with an id which is as long as the server takes it."""
    server = serve(stack, env={"TEST_LOGS": "unconfigured"})
    before = counted(server)
    clients = [
        request(method, "/work", headers=(("X-Request-ID", f"\x9b{number}" + "x" * size),))
        for number in range(25)
        for method in UNSAFE
    ]

    def leave(head: bytes) -> None:
        leave_at(server.port, head, "rst")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(leave, clients))
    until(lambda: counted(server)["departures"] - before["departures"] >= len(clients))
    lines = [line for line in server.log_text().splitlines() if "response_undelivered" in line]
    assert 0 < len(lines) <= 20
    # Twice, because the line's text has it as well as its fields.
    assert max(map(len, lines)) < 2 * MOST_OF_A_TEXT + 2_000
    assert not [line for line in lines if "\x9b" in line or "\\x9b" in line or "\\u009b" in line]
    folded = counted(server)["folded_events"] - before["folded_events"]
    assert folded == len(clients) - len(lines)


def test_what_is_left_is_told_at_exit_and_not_by_a_child() -> None:
    code = """
        import logging, os, sys
        from cleanclose.core import *
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
        outlet = StructlogOutlet(flood=Flood(lines=1))
        event = ClientDeparted(
            facts=Facts(framework="asgi", server="uvicorn", method="GET"), age_ms=1.0,
            verdict=Verdict(side=Side.CLIENT, phase=Phase.HANDLER),
        )
        for _ in range(3):
            outlet(event)
        sys.stdout.flush()
        if hasattr(os, "fork") and os.fork() == 0:
            # In the child it is an event like the first.
            outlet(event)
            sys.exit()
        if hasattr(os, "wait"):
            os.wait()
    """
    run = run_python(code)
    names = [line.split("'")[1] for line in run.stdout.splitlines()]
    children = ["client_departed"] if hasattr(os, "fork") else []
    assert names == ["client_departed", *children, FOLDED], run.stdout
    assert "folded=2" in run.stdout
