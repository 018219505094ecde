"""What the shim asks tornado's room, without a server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from typing import Any

import pytest
from tornado import http1connection, httputil, iostream

from cleanclose.core import Mechanism
from cleanclose.core.blame.closing import Closer
from cleanclose.servers.tornado import (
    can_be_watched,
    closer_of,
    error_of_closing,
    own_word,
    refuses_head,
    sent_bytes,
    uncaught,
    unread_bytes,
)

REQUEST = httputil.RequestStartLine("POST", "/", "HTTP/1.1")


@pytest.fixture
def stream() -> Generator[iostream.IOStream]:
    ours, theirs = socket.socketpair()
    loop = asyncio.new_event_loop()

    async def make() -> iostream.IOStream:
        return iostream.IOStream(ours)

    made = loop.run_until_complete(make())
    yield made
    made.close()
    theirs.close()
    loop.close()


def headers(**fields: str) -> httputil.HTTPHeaders:
    return httputil.HTTPHeaders({name.replace("_", "-"): each for name, each in fields.items()})


@pytest.mark.parametrize(
    ("reason", "fields", "chunk", "refused"),
    [
        ("OK", {"Content_Length": "5"}, b"hello", False),
        ("OK", {"Content_Length": "5"}, None, False),
        ("OK", {}, b"hello", False),
        ("OK", {"Content_Length": "4"}, b"hello", True),
        ("OK", {"Content_Length": "five"}, None, True),
        ("OK\r\nX: y", {}, None, True),
    ],
)
def test_a_head_is_refused_as_tornado_refuses_it(
    stream: iostream.IOStream,
    reason: str,
    fields: dict[str, str],
    chunk: bytes | None,
    refused: bool,
) -> None:
    found = headers(**fields)
    assert refuses_head(reason, found, chunk) is refused

    async def write() -> None:
        connection: Any = http1connection.HTTP1Connection(stream, False)
        connection._request_start_line, connection._request_headers = REQUEST, headers()
        connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", 200, reason), found, chunk)

    loop: Any = stream.io_loop
    if refused:
        with pytest.raises((ValueError, httputil.HTTPOutputError)):
            loop.asyncio_loop.run_until_complete(write())
    else:
        loop.asyncio_loop.run_until_complete(write())


def test_tornados_own_connection_can_be_watched_and_a_stand_in_cannot(
    stream: iostream.IOStream,
) -> None:
    class Derived(http1connection.HTTP1Connection):
        """Somebody's own."""

    class StandIn:
        stream = None

    async def made(kind: Any) -> Any:
        return kind(stream, False)

    loop: Any = stream.io_loop
    for kind in (http1connection.HTTP1Connection, Derived):
        assert can_be_watched(loop.asyncio_loop.run_until_complete(made(kind)))
    assert not can_be_watched(StandIn())


def test_what_a_stream_has_taken_and_given(stream: iostream.IOStream) -> None:
    assert sent_bytes(stream) == 0
    assert unread_bytes(stream) == 0
    assert sent_bytes(object()) is None


def test_the_error_of_a_closing_is_what_tornado_takes_for_it() -> None:
    error = ValueError("why")
    assert error_of_closing(error) is error
    assert error_of_closing((ValueError, error, None)) is error
    assert not isinstance(error_of_closing(False), BaseException)
    try:
        raise error
    except ValueError:
        assert error_of_closing(True) is error


def test_who_closes_a_stream_without_a_frame_is_not_known() -> None:
    assert closer_of(None, object()) == (Closer.UNSEEN, None)


def frame_of(module: str, name: str) -> Any:
    """A frame that runs a function of this name and module."""
    first, _, last = name.rpartition(".")
    code = f"class {first}:\n    @staticmethod\n    def {last}(): return sys._getframe()\n"
    scope: dict[str, Any] = {"__name__": module}
    exec("import sys\n" + code, scope)
    return getattr(scope[first], last)()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HTTP1ServerConnection.close", (Closer.SERVER, Mechanism.ABORTED)),
        ("HTTP1Connection._read_message_inner", (Closer.SERVER, Mechanism.TIMEOUT)),
        ("HTTP1Connection._read_message", (Closer.SERVER, Mechanism.TIMEOUT)),
        ("HTTP1Connection.close", (Closer.APPLICATION, None)),
    ],
)
def test_who_closes_a_stream_is_known_by_the_frame(
    name: str, expected: tuple[Closer, Mechanism | None]
) -> None:
    assert closer_of(frame_of("tornado.http1connection", name), object()) == expected


def test_what_an_application_writes_is_no_word_of_tornados() -> None:
    def write(data: bytes) -> object:
        return own_word(data)

    assert write(b"HTTP/1.1 400 Bad Request\r\n\r\n") is None
    assert write(b"HTTP/1.1 100 (Continue)\r\n\r\n") is None


def test_an_error_that_tornado_does_not_handle_is_not_uncaught() -> None:
    assert uncaught(ValueError("handled by somebody else")) is None
    assert uncaught(None) is None
