"""WSGI: nothing can be cancelled, but work can ask, and responses that are made end."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.harness import servers_wsgi
from tests.harness.leavers import How, connected, leave, request
from tests.harness.stacks import SERVERS, Stack
from tests.harness.stopping import HOWS
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

SOON: Final = 15.0
"""Seconds: half of what the work would take by itself."""
ROWS: Final = tuple(
    replace(
        row,
        name=f"stopping-{row.name}",
        command=tuple(each.replace("raw_wsgi", "stopping_wsgi") for each in row.command),
        env={**row.env, "TEST_APP": "stopping_wsgi"},
    )
    for row in (
        *(row for row in SERVERS if row.interface == "wsgi"),
        *map(
            servers_wsgi.row,
            ("gunicorn-gevent", "cheroot", "gevent", "gevent-patched", "werkzeug", "wsgiref"),
        ),
    )
)
"""The servers whose socket is in reach."""


def ended(notes: Path, name: str, what: str = "ended") -> float | None:
    if notes.exists():
        for line in notes.read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["what"] == what and entry["id"] == name:
                at: float = entry["at"]
                return at
    return None


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("path", ["/poll", "/whole"])
@pytest.mark.parametrize("how", HOWS)
def test_work_ends(row: Stack, path: str, how: How, tmp_path: Path) -> None:
    tap, notes, name = tmp_path / "tap", tmp_path / "notes", uuid.uuid4().hex
    env = {PATH_VARIABLE: str(tap), "TEST_NOTES": str(notes)}
    with row.process(wrapped=True, env=env) as server:
        with connected(server.port) as sock:
            sock.sendall(request("GET", path, headers=(("X-Request-ID", name),)))
            until(lambda: ended(notes, name, "begun") is not None)
            left = time.monotonic()
            leave(sock, how)
        until(lambda: ended(notes, name) is not None)
        at = ended(notes, name)
        assert at is not None
        assert at - left < SOON
        until(lambda: len(read_tap(tap)[1]) == 1)
    records, (event,) = read_tap(tap)
    assert event["event"] == "client_departed"
    # wsgiref sends the empty pieces too, and so sees it by itself.
    if (path, row.name) != ("/whole", "stopping-wsgiref"):
        assert event["stopped"] is True
    assert [record for record in records if record["level"] >= 30] == []


@pytest.mark.negative_control
@pytest.mark.parametrize("row", ROWS[:1], ids=str)
def test_without_the_middleware_it_goes_on(row: Stack, tmp_path: Path) -> None:
    notes, name = tmp_path / "notes", uuid.uuid4().hex
    with row.process(wrapped=False, env={"TEST_NOTES": str(notes)}) as server:
        with connected(server.port) as sock:
            sock.sendall(request("GET", "/whole", headers=(("X-Request-ID", name),)))
            until(lambda: ended(notes, name, "begun") is not None)
            left = time.monotonic()
            leave(sock, "rst")
        until(lambda: time.monotonic() > left + 1)
        assert ended(notes, name) is None


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_who_stays_gets_all_of_it(row: Stack, tmp_path: Path) -> None:
    with row.process(wrapped=True, env={"TEST_NOTES": str(tmp_path / "notes")}) as server:
        for _ in range(20):
            with connected(server.port) as sock:
                sock.sendall(request("GET", "/finite", headers=(("Connection", "close"),)))
                received = 0
                while data := sock.recv(65536):
                    received += data.count(b"x")
            assert received == 200_000
