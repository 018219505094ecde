"""Lines about events on real servers, and what a process imports for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.harness.leavers import leave_at, request
from tests.harness.processes import run_python
from tests.harness.reporting import GTHREAD, TORNADO, UVICORN, counted
from tests.harness.stacks import Stack
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve


@pytest.mark.parametrize(
    ("stack", "setup"),
    [(UVICORN, "json"), (UVICORN, "async"), (GTHREAD, "async"), (TORNADO, "bridged")],
    ids=str,
)
def test_on_real_servers(serve: Serve, stack: Stack, setup: str) -> None:
    server = serve(stack, env={"TEST_LOGS": setup})
    size = server.log_size()
    before = counted(server)["departures"]
    leave_at(server.port, request("GET", "/stream"), "rst", read=100_000)
    until(lambda: counted(server)["departures"] > before)
    until(lambda: "client_departed" in server.log_text()[size:])
    said = [line for line in server.log_text()[size:].splitlines() if "client_departed" in line]
    (line,) = map(json.loads, said)
    assert {"event", "level", "framework", "server", "method", "side", "phase"} <= set(line)
    assert line["level"] == "debug"


def test_nothing_is_imported_unless_asked_for() -> None:
    code = (
        "import sys, cleanclose.integrations.ids, cleanclose.integrations.stdlib\n"
        "from cleanclose.core import StructlogOutlet\n"
        "StructlogOutlet()\n"
        "print([m for m in ('asgi_correlation_id', 'opentelemetry', 'sentry_sdk')"
        " if m in sys.modules])"
    )
    run = run_python(code)
    assert run.stdout.strip() == "[]"
