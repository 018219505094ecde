"""A body that somebody around the middleware may want is not read for a failed application."""

from __future__ import annotations

import socket
import threading
from typing import Any
from wsgiref.simple_server import make_server

import pytest

from cleanclose.core import UploadDrained
from cleanclose.wsgi import CleanCloseMiddleware

BODY = b"hello"


class FailedError(Exception):
    """What the application raises."""


def fails_in_its_call(environ: Any, start_response: Any) -> Any:
    raise FailedError


def fails_in_its_body(environ: Any, start_response: Any) -> Any:
    yield from fails_in_its_call(environ, start_response)


def answer(app: Any) -> bytes:
    """What wsgiref sends to one client that sends a body."""
    with make_server("127.0.0.1", 0, app) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
            head = f"POST / HTTP/1.0\r\nContent-Length: {len(BODY)}\r\n\r\n"
            client.sendall(head.encode() + BODY)
            received = b""
            while data := client.recv(4096):
                received += data
        thread.join(20)
    return received


@pytest.mark.parametrize("fails", [fails_in_its_call, fails_in_its_body])
def test_whoever_may_have_another_application_to_try_finds_the_body(fails: Any) -> None:
    inner = CleanCloseMiddleware(fails)

    def tries(environ: Any, start_response: Any) -> Any:
        try:
            return list(inner(environ, start_response))
        except FailedError:
            body = environ["wsgi.input"].read(len(BODY))
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

    assert answer(tries).endswith(b"\r\n\r\n" + BODY)


@pytest.mark.parametrize("fails", [fails_in_its_call, fails_in_its_body])
def test_for_the_server_it_is_read(fails: Any, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Any] = []
    assert b" 500 " in answer(CleanCloseMiddleware(fails, outlets=[events.append]))
    (event,) = events
    assert isinstance(event, UploadDrained)
    assert event.drained == len(BODY)
    assert "FailedError" in capfd.readouterr().err
