"""Half of a body and an end of the sending: who notices answers as without us, nobody with success.

gunicorn hands such a body over as if it were whole.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.applications import FOLDER
from tests.harness.asgi_noise import observed
from tests.harness.leavers import connected, request, until_read
from tests.harness.stacks import gunicorn

pytestmark = pytest.mark.stacks

GTHREAD: Final = gunicorn("short-gthread", "noise_wsgi", "--threads=4", threads=True)


class Upload(NamedTuple):
    """What is sent half, and what a bare server says to it."""

    method: str
    path: str
    body: bytes
    bare: int


JSON: Final = b'{"name": "re'
XML: Final = b'<?xml version="1.0"?><propfind xmlns="DAV:"><pro'

CASES: Final = {
    "radicale": (
        Upload("PUT", "/somebody/calendar/one.ics", b"BEGIN:VCALENDAR\r\n", 400),
        Upload("PROPFIND", "/somebody/", XML, 400),
    ),
    "wsgidav": (
        Upload("PUT", "/half.txt", b"half of it", 201),
        Upload("PROPFIND", "/half.txt", XML, 400),
    ),
    "bottle": (
        Upload("POST", "/read", b"half of it", 200),
        Upload("POST", "/json", JSON, 400),
        Upload("POST", "/unlimited", b"half of it", 200),
        Upload("POST", "/compare", b"half of it", 400),
    ),
    "falcon": (
        Upload("POST", "/read", b"half of it", 200),
        Upload("POST", "/json", JSON, 400),
        Upload("POST", "/unlimited", b"half of it", 200),
        Upload("POST", "/compare", b"half of it", 400),
    ),
    "cherrypy": (Upload("POST", "/read", b"half of it", 200),),
}


def answer_to_half(port: int, upload: Upload, name: str) -> tuple[int, bytes]:
    """The answer's status and body."""
    headers = (
        ("Content-Type", "application/json" if upload.body is JSON else "text/plain"),
        ("Connection", "close"),
        ("X-Request-ID", name),
    )
    with connected(port) as client:
        client.sendall(request(upload.method, upload.path, length=1000, headers=headers))
        client.sendall(upload.body)
        until_read(client)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    # WsgiDAV's pages have the time.
    return int(head[9:12]), re.sub(rb"\d+:\d+:\d+\.\d+", b"", body)


@pytest.mark.parametrize("framework", CASES)
def test_half_a_body(framework: str, tmp_path: Path) -> None:
    more = {"TEST_FRAMEWORK": framework, FOLDER: str(tmp_path)}
    uploads = {f"{each.method} {each.path}": each for each in CASES[framework]}
    answers: dict[bool, dict[str, tuple[int, bytes]]] = {}
    for wrapped in (False, True):
        with observed(GTHREAD, tmp_path, wrapped=wrapped, more=more) as seen:
            # Radicale warns of its settings.
            started = len(seen.records_now())
            answers[wrapped] = {
                name: answer_to_half(seen.port, each, name) for name, each in uploads.items()
            }
    bare, ours = answers[False], answers[True]
    assert {name: status for name, (status, _) in bare.items()} == {
        name: each.bare for name, each in uploads.items()
    }
    assert ours == {
        name: bare[name] if each.bare >= 400 else (400, b"") for name, each in uploads.items()
    }
    assert seen.records[started:] == []
    assert "Traceback" not in seen.server.log_text()
    told = seen.events_by_request()
    assert told.keys() == uploads.keys()
    for events in told.values():
        assert [(event["event"], event["accepted"]) for event in events] == [
            ("truncated_upload", False)
        ]
