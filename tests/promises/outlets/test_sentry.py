"""Sentry on real servers: nothing for clients that left, one event for each upstream's reset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.leavers import leave_at, request
from tests.harness.reporting import GTHREAD, TORNADO, UVICORN, crowd, departures, quietly_get
from tests.harness.stacks import Stack
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.processes import ServerProcess
    from tests.harness.serving import Serve

EACH = 67
"""Of three kinds: some 200 departures."""


class Sentry:
    """A server whose Sentry writes to a file."""

    def __init__(self, server: ServerProcess, path: Path) -> None:
        self.server = server
        self._path = path

    def events(self) -> list[Mapping[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


@pytest.fixture
def sentry(serve: Serve, tmp_path: Path) -> Any:
    # Upstream resets leave tracebacks in the servers' logs.
    serve.allow_tracebacks()

    def start(stack: Stack, *, wrapped: bool = True, **env: str) -> Sentry:
        path = tmp_path / "sentry"
        settings = {
            "TEST_SENTRY": str(path),
            "TEST_OUTLETS": "structlog,sentry",
            "TEST_LOGS": "",
            **env,
        }
        return Sentry(serve(stack, wrapped=wrapped, env=settings), path)

    return start


LOGGING_ONLY = {"TEST_SENTRY_INTEGRATIONS": "0"}
"""What Sentry sees then is what it makes of records, besides its plain middleware."""

STACKS = [
    pytest.param(UVICORN, {}, id="starlette"),
    pytest.param(UVICORN, {"TEST_SENTRY_ASGI": "1", **LOGGING_ONLY}, id="sentry-asgi"),
    pytest.param(GTHREAD, {}, id="flask"),
    pytest.param(GTHREAD, {"TEST_SENTRY_WSGI": "1", **LOGGING_ONLY}, id="sentry-wsgi"),
    pytest.param(TORNADO, {}, id="tornado"),
]


@pytest.mark.parametrize(("stack", "env"), STACKS)
def test_departures_make_none_and_resets_make_one_each(
    sentry: Any, stack: Stack, env: dict[str, str]
) -> None:
    here = sentry(stack, **env)
    before = departures(here.server)
    left = crowd(here.server, EACH if len(env) == 0 else 10)
    until(
        lambda: departures(here.server) - before >= left,
        lambda: (departures(here.server) - before, here.server.log_text()[-2000:]),
    )
    assert here.events() == []
    for _ in range(10):
        assert quietly_get(here.server, "/reset") == 500
        quietly_get(here.server, "/reset-later")
    until(lambda: len(here.events()) >= 20, here.events)
    # What comes behind has had its time when another request is answered.
    departures(here.server)
    events = here.events()
    assert len(events) == 20, events
    assert all("ConnectionResetError" in event["types"] for event in events), events
    # The user's own before_send has had them.
    assert all(event["tags"]["own"] == "yes" for event in events)


def test_what_the_server_would_hide_is_an_event(sentry: Any) -> None:
    here = sentry(GTHREAD, **LOGGING_ONLY)
    for _ in range(20):
        assert quietly_get(here.server, "/raw/reset") == 500
    until(lambda: len(here.events()) >= 20, here.events)
    departures(here.server)
    events = here.events()
    assert len(events) == 20, events
    assert all("ConnectionResetError" in event["types"] for event in events), events
    assert {event["mechanism"] for event in events} <= {"cleanclose", "logging"}


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [UVICORN, GTHREAD, TORNADO], ids=str)
def test_the_control_departures_make_events(sentry: Any, stack: Stack) -> None:
    here = sentry(stack, wrapped=False, TEST_SENTRY_BARE="1")
    # Without the middleware nobody can be asked whether the client has gone.
    kinds = 5
    crowd_of_uploads_and_downloads(here, kinds)
    until(lambda: len(here.events()) >= kinds, here.events)


def crowd_of_uploads_and_downloads(here: Sentry, each: int) -> None:
    for _ in range(each):
        leave_at(here.server.port, request("POST", "/read", length=1000), "rst", body=b"some")
        leave_at(here.server.port, request("GET", "/stream"), "rst", read=100_000)
