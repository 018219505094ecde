"""Frameworks and servers with words of their own for an upload that was cut off."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.applications import FOLDER
from tests.harness.asgi_noise import HOWS, Observed, module_stack, observed
from tests.harness.beside import folder_of_run, install_beside
from tests.harness.leavers import How, leave_at, request
from tests.harness.stacks import Stack, gunicorn

pytestmark = pytest.mark.stacks


class Row(NamedTuple):
    """A framework on a server, and the loggers of its bare noise."""

    stack: Stack
    loggers: tuple[str, ...]
    method: str = "POST"
    path: str = "/read"
    hows: tuple[How, ...] = HOWS
    beside: tuple[str, ...] = ()


MCP: Final = (
    "mcp==2.3.0",
    "mcp-types==2.3.0",
    "httpcore2==2.16.2",
    "httpx2==2.16.2",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "pyjwt==2.15.1",
    "python-multipart==0.0.34",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "sse-starlette==3.7.0",
    "truststore==0.10.5",
)
"""Beside the environment: where dnspython finds httpcore2, it loads trio, and eventlet, which
patches what dnspython loads, can no longer be imported."""


def _named(stack: Stack, framework: str, **env: str) -> Stack:
    env = {"TEST_FRAMEWORK": framework, **env}
    return dataclasses.replace(stack, name=f"{stack.name}-{framework}", env=env)


GTHREAD: Final = gunicorn("words", "noise_wsgi", "--threads=4", threads=True)
UVICORN: Final = module_stack("uvicorn-h11", "words_asgi")

ROWS: Final = {
    # The noise is there for a reset: an end is a short body, which it counts.
    "cherrypy": Row(_named(GTHREAD, "cherrypy"), ("cherrypy.error.",), hows=("rst",)),
    # It prints a reset's traceback on the root logger.
    "radicale": Row(
        _named(GTHREAD, "radicale", TEST_LOGGERS="root"),
        ("radicale", "root"),
        "PUT",
        "/somebody/calendar/one.ics",
    ),
    "blacksheep": Row(_named(UVICORN, "blacksheep"), ("blacksheep.server",)),
    # uvicorn's line of the ClientDisconnect that comes out of it.
    "lilya": Row(_named(UVICORN, "lilya"), ("uvicorn.error",)),
    "mcp": Row(_named(UVICORN, "mcp"), ("mcp.server.",), beside=MCP),
}
CHOICE: Final = [
    pytest.param(name, marks=[pytest.mark.full] if row.beside else []) for name, row in ROWS.items()
]
"""`make test` installs nothing."""


@pytest.fixture
def variables(
    framework: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What a row's server needs in its environment."""
    packages = ROWS[framework].beside
    found = {FOLDER: str(tmp_path)}
    if packages:
        site = folder_of_run(tmp_path_factory, framework)
        found["PYTHONPATH"] = str(install_beside(packages, site, seconds=100))
    return found


def cut_uploads(seen: Observed, row: Row) -> None:
    for how in row.hows:
        headers = (
            ("X-Request-ID", how),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        )
        head = request(row.method, row.path, length=1000, headers=headers)
        # The first one named is taken.
        head = head.replace(b"Host: test", b"Host: 127.0.0.1:%d" % seen.port)
        leave_at(seen.port, head, how, body=b'{"id": ')


@pytest.mark.parametrize("framework", CHOICE)
def test_nothing_is_said_of_an_upload_that_was_cut(
    framework: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    row = ROWS[framework]
    with observed(row.stack, tmp_path, wrapped=True, more=variables) as seen:
        started = len(seen.records_now())
        cut_uploads(seen, row)
        seen.until(lambda: seen.events_now().keys() >= set(row.hows), "untold")
    # Radicale has one more word for its 500, which nobody lowers.
    assert [each for each in seen.records[started:] if each["level"] < logging.CRITICAL] == []
    assert "Traceback" not in seen.server.log_text()
    for events in seen.events_by_request().values():
        assert [event["side"] for event in events] == ["client"]


@pytest.mark.negative_control
@pytest.mark.parametrize("framework", CHOICE)
def test_the_control_bare_something_is_said(
    framework: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    row = ROWS[framework]
    with observed(row.stack, tmp_path, wrapped=False, more=variables) as seen:
        started = len(seen.records_now())
        cut_uploads(seen, row)
        seen.until(lambda: len(seen.records_now()) >= started + len(row.hows), "no line")
    assert all(record["logger"].startswith(row.loggers) for record in seen.records[started:])


CHEROOT: Final = Stack(
    name="words-cheroot",
    interface="wsgi",
    command=(sys.executable, "-m", "tests.harness.apps.noise_wsgi", "cheroot", "{port}"),
    loses="always",
)
CUTS: Final = {"size": b"", "data": b"5\r\nabc", "end": b"3\r\nabc", "half-an-end": b"3\r\nabc\r"}
"""Where a chunked body ends: each is another ValueError of cheroot's."""


def cut_chunks(seen: Observed) -> None:
    for name, body in CUTS.items():
        headers = (("Transfer-Encoding", "chunked"), ("X-Request-ID", name))
        leave_at(seen.port, request("POST", "/read", headers=headers), "fin", body=body)


def test_cheroots_word_for_chunks_that_were_cut(tmp_path: Path) -> None:
    with observed(CHEROOT, tmp_path, wrapped=True) as seen:
        cut_chunks(seen)
        seen.until(lambda: seen.events_now().keys() >= set(CUTS), "untold")
    assert seen.records == []
    assert "Traceback" not in seen.server.log_text()
    for events in seen.events_by_request().values():
        assert [(each["side"], each["phase"]) for each in events] == [("client", "request_body")]


@pytest.mark.negative_control
def test_the_control_bare_cheroot_prints_a_traceback_of_each(tmp_path: Path) -> None:
    with observed(CHEROOT, tmp_path, wrapped=False) as seen:
        cut_chunks(seen)
        seen.until(
            lambda: seen.server.log_text().count("ValueError: Bad chunked") >= len(CUTS), "none"
        )
