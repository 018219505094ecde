"""The table of what a server hides, next to what the installed servers say of themselves."""

from __future__ import annotations

import errno
import importlib
import operator
import socket
import ssl
from types import SimpleNamespace
from typing import Any
from wsgiref.handlers import SimpleHandler

import pytest

from cleanclose.core.server import UNKNOWN, Server
from cleanclose.servers import cooperates_with, is_servers_own, wsgi_server


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


def test_servers_that_leave_a_key_in_the_environ() -> None:
    assert wsgi_server({"uwsgi.version": b"2.0"}).name == "uwsgi"
    assert wsgi_server({"mod_wsgi.version": (6, 1)}).name == "mod_wsgi"


@pytest.mark.stacks
@pytest.mark.parametrize(
    ("module", "path", "name"),
    [
        ("granian.wsgi", "Response", "granian"),
        ("gevent.pywsgi", "WSGIHandler.start_response", "gevent"),
        ("cheroot.wsgi", "Gateway.start_response", "cheroot"),
        ("waitress.task", "WSGITask.execute", "waitress"),
    ],
)
def test_what_the_installed_servers_give(module: str, path: str, name: str) -> None:
    given = operator.attrgetter(path)(importlib.import_module(module))
    assert wsgi_server({}, given() if isinstance(given, type) else given).name == name


def test_how_servers_are_told_to_close() -> None:
    class Handler:
        """gevent's, as far as it goes."""

        close_connection = False
        headers_sent = False

        def __init__(self) -> None:
            self.response_headers = [(b"Connection", b"keep-alive"), (b"X-Kept", b"1")]

    close = of("gevent").close
    assert close is not None
    # gevent's Input.
    handler, body = Handler(), SimpleNamespace(_chunked_input_error=False)
    close(handler, body)
    assert handler.close_connection
    assert handler.response_headers == [(b"X-Kept", b"1"), (b"Connection", b"close")]
    assert vars(body) == {"_chunked_input_error": True}
    # Its head is out: only the connection is left to be ended.
    handler = Handler()
    handler.headers_sent = True
    close(handler, body)
    assert handler.close_connection
    assert (b"Connection", b"close") not in handler.response_headers
    # Behind a middleware which hides them there is nobody to be told.
    for server in (GUNICORN, of("cheroot")):
        assert server.close is not None
        server.close(None, None)


def test_whose_greenlets_a_socket_waits_for() -> None:
    with socket.socket() as sock:
        assert cooperates_with(sock) is None
    assert cooperates_with(None) is None


@pytest.mark.stacks
def test_gevents_sockets_cooperate() -> None:
    with importlib.import_module("gevent.socket").socket() as sock:
        assert cooperates_with(sock) == "gevent"
