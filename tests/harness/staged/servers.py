"""Python servers under clients that leave, and before an upstream that resets: what they log."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tests.harness.leavers import connected, leave, request, until_read
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.quitter import quitter

__all__ = ["SERVERS", "Lines", "staged_on"]


_APPS: Final = "tests.harness.staged.apps"
_PYTHON: Final = (sys.executable, "-m")
_UVICORN: Final = (*_PYTHON, "uvicorn", "--host=127.0.0.1", "--port={port}")
_GUNICORN: Final = (
    *(*_PYTHON, "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1", "--no-control-socket"),
    *("--log-level=debug", "--access-logfile=-"),
)
_GRANIAN: Final = (*_PYTHON, "granian", "--host=127.0.0.1", "--port={port}", "--access-log")


class Lines(NamedTuple):
    """What was written about one staged connection.

    Args:
        format: The format of the log.
        source: The server or proxy.
        case: What was done.
        part: ``seen`` or ``held-out``.
        truth: Whose it was, by what was done: ``client`` or ``upstream``.
        text: The log.
    """

    format: str
    source: str
    case: str
    part: str
    truth: str
    text: str


SERVERS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "uvicorn": ("uvicorn", (*_UVICORN, f"{_APPS}:starlette_app")),
    "uvicorn-h11": ("uvicorn", (*_UVICORN, "--http=h11", f"{_APPS}:starlette_app")),
    "gunicorn-sync": ("gunicorn", (*_GUNICORN, f"{_APPS}:plain")),
    "gunicorn-gthread": ("gunicorn", (*_GUNICORN, "--threads=4", f"{_APPS}:flask_app")),
    "gunicorn-asgi": ("gunicorn", (*_GUNICORN, "--worker-class=asgi", f"{_APPS}:starlette_app")),
    "gunicorn-django": ("django", (*_GUNICORN, "--threads=4", f"{_APPS}:django_app")),
    "hypercorn": (
        "hypercorn",
        (*_PYTHON, "hypercorn", "--bind=127.0.0.1:{port}", f"{_APPS}:make_starlette()"),
    ),
    "granian": ("granian", (*_GRANIAN, "--interface=asgi", f"{_APPS}:starlette_app")),
    "granian-wsgi": ("granian", (*_GRANIAN, "--interface=wsgi", f"{_APPS}:flask_app")),
    "tornado": ("tornado", (*_PYTHON, _APPS, "tornado", "{port}")),
    "django": ("django", (*_PYTHON, _APPS, "django", "{port}")),
    "json": ("json", (*_GUNICORN, "--threads=4", f"{_APPS}:make_json_flask()")),
    "events": ("cleanclose", (*_UVICORN, "--factory", f"{_APPS}:make_wrapped")),
    "events-json": (
        "cleanclose",
        ("env", "STAGED_JSON=1", *_UVICORN, "--factory", f"{_APPS}:make_wrapped"),
    ),
    "werkzeug": ("werkzeug", (*_PYTHON, _APPS, "werkzeug", "{port}")),
    "waitress": ("waitress", (*_PYTHON, _APPS, "waitress", "{port}")),
}
"""By name: the format of its log, and its command."""

_LEAVES: Final[Mapping[str, Sequence[str]]] = {
    "seen": ("upload", "upload-fin", "stream"),
    "held-out": ("upload-chunked", "stream-fin"),
}
_UPSTREAMS: Final[Mapping[str, Sequence[str]]] = {
    "seen": ("http-client", "httpx", "redis", "requests", "socket"),
    "held-out": ("aiohttp", "smtplib", "urllib", "websockets"),
}


def staged_on(name: str, part: str) -> Iterator[Lines]:
    """All cases on a server, each with what the server logged about it.

    Args:
        name: One of `SERVERS`.
        part: ``seen`` for the cases that the rules were written with, ``held-out`` for others.
    """
    form, command = SERVERS[name]
    with quitter() as upstream:
        server = ServerProcess(
            command, env={"UPSTREAM": upstream.url}, cwd=ROOT, ready_path="/", name=name
        )
        for case in _LEAVES[part]:
            with server:
                before = set(server.log_text().splitlines())
                _leave(server.port, case)
                _served_after(server)
            yield Lines(form, name, case, part, "client", _new(server.log_text(), before))
        for library in (*_UPSTREAMS[part], *(["tornado"] if name == "tornado" else [])):
            with server:
                before = set(server.log_text().splitlines())
                with connected(server.port) as sock:
                    sock.sendall(request("GET", f"/up/{library}"))
                    _until_answered(sock)
                _served_after(server)
            text = _new(server.log_text(), before)
            yield Lines(form, name, f"up-{library}", part, "upstream", text)


def _new(text: str, before: set[str]) -> str:
    return "\n".join(line for line in text.splitlines() if line not in before)


def _leave(port: int, case: str) -> None:
    with connected(port) as sock:
        if case.startswith("stream"):
            sock.sendall(request("GET", "/stream"))
            sock.recv(65536)
        else:
            chunked = (("Transfer-Encoding", "chunked"),)
            sock.sendall(
                request("POST", "/read", headers=chunked) + b"5\r\nhello\r\n"
                if case == "upload-chunked"
                else request("POST", "/read", length=1000) + b"hello"
            )
            until_read(sock)
        leave(sock, "fin" if case.endswith("fin") else "rst")


def _until_answered(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.recv(65536)


def _served_after(server: ServerProcess) -> None:
    """Wait until the server has said all that it will: it answers, and its log stands still."""
    with connected(server.port) as sock, contextlib.suppress(OSError):
        sock.sendall(request("GET", "/"))
        _until_answered(sock)
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        if server.log_size() != seen:
            seen, since = server.log_size(), time.monotonic()
        time.sleep(0.02)
