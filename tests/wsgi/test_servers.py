"""The table of what a server hides, next to what the installed servers say of themselves."""

from __future__ import annotations

import errno
import importlib
import ssl
from typing import Any
from wsgiref.handlers import SimpleHandler

import pytest

from cleanclose.core import UNKNOWN, Server, is_servers_own, wsgi_server


def of(package: str) -> Server:
    def start_response() -> None:
        """As the server's own."""

    start_response.__module__ = f"{package}.somewhere"
    return wsgi_server({}, start_response)


def hidden(server: Server, error: OSError) -> bool:
    assert server.hides is not None
    return server.hides(error)


GUNICORN = wsgi_server({"gunicorn.socket": None})
WERKZEUG = wsgi_server({"werkzeug.socket": None})


def test_a_server_is_known_by_its_environ_or_its_start_response() -> None:
    assert [GUNICORN.name, WERKZEUG.name, of("waitress").name] == [
        "gunicorn",
        "werkzeug",
        "waitress",
    ]
    assert of("elsewhere") is UNKNOWN
    assert UNKNOWN.hides is None
    handler = SimpleHandler(None, None, None, {})  # type: ignore[arg-type]
    assert wsgi_server({}, handler.start_response).name == "wsgiref"
    assert is_servers_own(handler.start_response, of("wsgiref"))
    # A middleware in front of gunicorn: its environ, and somebody else's callable.
    assert not is_servers_own(lambda: None, GUNICORN)


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN])
def test_gunicorn(code: int) -> None:
    assert hidden(GUNICORN, OSError(code, "an upstream's"))
    assert hidden(GUNICORN, ssl.SSLError(1, "an upstream's certificate"))
    assert not hidden(GUNICORN, OSError(errno.ECONNREFUSED, "reported, without a 500"))
    assert not hidden(GUNICORN, ConnectionResetError("without a number: the same"))
    assert not GUNICORN.answers


def test_werkzeug() -> None:
    serving = importlib.import_module("werkzeug.serving")
    # Its older releases write the tuple out where they catch it.
    dropped: tuple[Any, ...] = getattr(
        serving, "connection_dropped_errors", (ConnectionError, TimeoutError)
    )
    for cls in dropped:
        assert hidden(WERKZEUG, cls("an upstream's"))
    assert hidden(WERKZEUG, TimeoutError("an upstream's"))
    assert not hidden(WERKZEUG, FileNotFoundError("a file"))


def test_wsgiref() -> None:
    server = of("wsgiref")
    for cls in (ConnectionAbortedError, BrokenPipeError, ConnectionResetError):
        assert hidden(server, cls("an upstream's"))
    assert not hidden(server, ConnectionRefusedError("an upstream's"))


@pytest.mark.stacks
def test_gevent() -> None:
    pywsgi = importlib.import_module("gevent.pywsgi")
    server = of("gevent")
    for code in pywsgi.WSGIHandler.ignored_socket_errors:
        assert hidden(server, OSError(code, "an upstream's"))
    assert not hidden(server, OSError(errno.ECONNREFUSED, "an upstream's"))


@pytest.mark.stacks
def test_cheroot() -> None:
    errors = importlib.import_module("cheroot.errors")
    server = of("cheroot")
    for first in errors.socket_errors_to_ignore:
        assert hidden(server, OSError(first, "an upstream's")), first
    # What it answers with a 408.
    assert hidden(server, TimeoutError("timed out"))
    assert not hidden(server, FileNotFoundError(errno.ENOENT, "a file"))


def test_waitress() -> None:
    assert not hidden(of("waitress"), ConnectionResetError(errno.ECONNRESET, "an upstream's"))
