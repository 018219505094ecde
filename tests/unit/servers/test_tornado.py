"""What the shim asks tornado's room, without a server."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Generator
from typing import Any

import pytest
from tornado import http1connection, httputil, iostream

from cleanclose.core import Mechanism
from cleanclose.core.blame.closing import Closer
from cleanclose.servers.tornado import (
    came_out_of,
    can_be_watched,
    closer_of,
    error_of_closing,
    hear_words,
    refuses_head,
    sent_bytes,
    uncaught,
    unread_bytes,
)

WORD_100 = b"HTTP/1.1 100 (Continue)\r\n\r\n"
WORD_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"
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


def calling(module: str, name: str) -> Any:
    """A function of this name and module, which calls another one with its other arguments."""
    first, _, last = name.rpartition(".")
    scope: dict[str, Any] = {"__name__": module}
    code = f"class {first}:\n    @staticmethod\n    def {last}(call, *args): return call(*args)\n"
    exec(code, scope)
    return getattr(scope[first], last)


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
    by = calling("tornado.http1connection", name)(lambda: inspect.stack()[1].frame)
    assert closer_of(by, object()) == expected


class Written:
    """A stream that remembers what is written to it."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> str:
        self.data.append(data)
        return "written"

    def closed(self) -> bool:
        return self.is_closed


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("closes", [True, False])
def test_tornados_own_words_are_kept_from_a_response_and_an_applications_are_written(
    kept: bool, closes: bool
) -> None:
    stream = Written()
    heard: list[str] = []

    def malformed() -> None:
        heard.append("malformed")
        stream.is_closed = closes

    by_tornado = calling("tornado.http1connection", "HTTP1Connection._read_message_inner")

    async def write() -> None:
        end = hear_words(stream, is_kept=lambda: kept, malformed=malformed)
        # The same bytes, from an application, are its own.
        assert [stream.write(each) for each in (WORD_100, WORD_400)] == ["written"] * 2
        stream.data.clear()
        said = by_tornado(stream.write, WORD_100)
        assert (said == "written") if kept else said.done()
        said = by_tornado(stream.write, WORD_400)
        # Or it would close the connection before the response is out.
        assert said.done() if closes else said == "written"
        assert stream.data == [WORD_100] * kept + [b""] * (not closes)
        end()
        assert by_tornado(stream.write, WORD_400) == "written"

    asyncio.run(write())
    assert heard == ["malformed"]


def test_what_came_out_of_a_stream(stream: iostream.IOStream) -> None:
    kept = ConnectionResetError("reset")
    assert not came_out_of(kept, stream)
    stream.close((type(kept), kept, None))
    assert came_out_of(kept, stream)
    assert came_out_of(iostream.StreamClosedError(real_error=kept), stream)
    # The same, of another stream.
    assert not came_out_of(ConnectionResetError("reset"), stream)
    assert not came_out_of(iostream.StreamClosedError(), stream)
    assert not came_out_of(iostream.StreamClosedError(real_error=OSError()), stream)
    with pytest.raises(iostream.StreamClosedError) as raised:
        stream.write(b"late")
    assert came_out_of(raised.value, stream)


def test_an_error_that_tornado_does_not_handle_is_not_uncaught() -> None:
    assert uncaught(ValueError("handled by somebody else")) is None
    assert uncaught(None) is None
