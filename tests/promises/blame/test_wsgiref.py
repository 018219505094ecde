"""Whose fault, on the standard library's server: resets of clients, and of upstreams around us."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from cleanclose.core import (
    ClientDeparted,
    Event,
    Mechanism,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedBodyError,
    UpstreamReset,
    client_gone,
)
from cleanclose.core.blame.judge import marked
from tests.harness.leavers import connected, leave, leave_at, request
from tests.harness.waiting import until
from tests.harness.wsgi_apps import GET, HEADERS, environ_of, ok, serving, start, wrap

_LINGER_0 = struct.pack("ii", 1, 0)


def reset_upstream() -> None:
    with upstream_that_resets() as upstream:
        upstream.recv(1)


def upstream_that_resets() -> socket.socket:
    """A connection of the application's own, which its other end has reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        served.close()
        return client


def ask(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    answer = b""
    with connected(port) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    return answer


# What is not the client's.


def test_an_outer_middlewares_own_upstream_is_not_the_clients() -> None:
    """It closes our response because of an error of its own, which is the live one then."""
    events: list[Event] = []
    seen: list[BaseException] = []

    def endless(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS[:1])
        while True:
            yield b"piece"

    inner = wrap(endless, events)

    def outer(environ: Any, start_response: Any) -> Iterator[bytes]:
        result: Any = inner(environ, start_response)
        try:
            for piece in result:
                yield piece
                reset_upstream()
        except ConnectionResetError as error:
            try:
                raise
            finally:
                result.close()
                seen.append(error)

    with serving(outer) as port:
        assert b"piece" in ask(port, request("GET", "/"))
    assert len(seen) == 1
    assert marked(seen[0]) is None
    assert events == []


def test_what_an_outer_middleware_does_in_wsgi_input_is_not_the_clients() -> None:
    events: list[Event] = []

    class Tee:
        def read(self, size: int) -> bytes:
            reset_upstream()
            return b""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(4)
        return ok(environ, start_response)

    inner = wrap(app, events)

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"] = Tee()
        return inner(environ, start_response)

    with serving(outer) as port:
        assert b" 500 " in ask(port, request("POST", "/", length=4) + b"body")
    [event] = [event for event in events if isinstance(event, UpstreamReset)]
    assert (event.verdict.side, event.restored) == (Side.UPSTREAM, True)
    assert event.exception is not None
    assert marked(event.exception) is None
    assert not [event for event in events if isinstance(event, ClientDeparted)]


def test_a_file_that_is_an_upstreams_is_not_the_clients() -> None:
    """The server reads it by itself: nothing but the server and the standard library is seen."""
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS[:1])
        with upstream_that_resets() as upstream:
            stream = upstream.makefile("rb")
        result: Iterable[bytes] = environ["wsgi.file_wrapper"](stream)
        return result

    with serving(wrap(app, events)) as port:
        ask(port, request("GET", "/"))
    [event] = events
    assert isinstance(event, UpstreamReset)
    assert (event.verdict.side, event.restored) == (Side.UPSTREAM, True)


def test_an_upstreams_reset_behind_the_clients_departure_is_told() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        with pytest.raises(TruncatedBodyError):
            environ["wsgi.input"].read(101)
        reset_upstream()
        return ok(environ, start_response)

    with serving(wrap(app, events)) as port:
        ask(port, request("POST", "/", length=100) + b"body", half_close=True)
    assert [event.name for event in events] == ["upstream_reset", "truncated_upload"]


def test_on_a_server_that_we_do_not_know_a_reset_is_told_and_raised() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        reset_upstream()
        return []

    with pytest.raises(ConnectionResetError):
        wrap(app, events)(environ_of(**GET), start)
    [event] = events
    assert isinstance(event, UpstreamReset)
    # Who knows: so the outlet shows the traceback.
    assert event.restored

    def missing(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise FileNotFoundError("a file of the application's own")

    with pytest.raises(FileNotFoundError):
        wrap(missing, events)(environ_of(**GET), start)
    assert len(events) == 1


def test_an_unsafe_request_that_was_carried_out_in_vain() -> None:
    events: list[Event] = []
    left = threading.Event()
    entered = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        entered.set()
        left.wait(10)
        return ok(environ, start_response)

    with serving(wrap(app, events)) as port:
        with connected(port) as client:
            client.sendall(request("POST", "/"))
            entered.wait(10)
        left.set()
    [event] = events
    assert isinstance(event, ResponseUndelivered)
    assert (event.verdict.phase, event.verdict.mechanism) == (Phase.HANDLER, Mechanism.EOF)
    assert event.status == 200


@pytest.mark.parametrize(
    ("length", "names"), [(None, ["client_departed"]), (6, ["client_departed"]), (5, [])]
)
def test_who_leaves_with_the_last_byte_has_not_departed(
    length: int | None, names: list[str]
) -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        declared = [] if length is None else [("Content-Length", str(length))]
        start_response("200 OK", [("Content-Type", "text/plain"), *declared])

        def pieces() -> Iterator[bytes]:
            yield b"hello"
            until(client_gone)

        return pieces()

    with serving(wrap(app, events)) as port, connected(port) as client:
        client.sendall(request("GET", "/"))
        answer = b""
        while not answer.endswith(b"hello"):
            answer += client.recv(4096)
        client.close()
    assert [event.name for event in events] == names


def test_a_cut_body_is_answered_400_where_the_application_does_not() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(100)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    with serving(validator(wrap(validator(app), events))) as port:
        answer = ask(port, request("POST", "/", length=100) + b"body", half_close=True)
    assert b" 400 Bad Request" in answer
    assert [event.name for event in events] == ["truncated_upload"]


# Bodies of which the server knows no end.


CHUNKED = (("Transfer-Encoding", "chunked"),)


def read_to_the_end(environ: Any, start_response: Any) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    return ok(environ, start_response)


def read_into_a_buffer(environ: Any, start_response: Any) -> Iterable[bytes]:
    buffer = bytearray(100)
    while environ["wsgi.input"].readinto(buffer):
        pass
    return ok(environ, start_response)


@pytest.mark.parametrize("app", [read_to_the_end, read_into_a_buffer])
def test_a_chunked_body_that_is_cut_is_the_clients(app: Any) -> None:
    """The server hands the chunks on as they come: the body's end is the connection's."""
    events: list[Event] = []
    cut = request("POST", "/", headers=CHUNKED) + b"5\r\nabc"
    with serving(wrap(app, events)) as port:
        leave_at(port, cut, "rst")
        until(lambda: bool(events), "no event")
        assert b" 400 " in ask(port, cut, half_close=True)
        leave_at(port, cut, "fin")
        until(lambda: len(events) > 2, "not all events")
    assert [event.name for event in events] == ["client_departed", *["truncated_upload"] * 2]
    for event in events:
        assert isinstance(event, ClientDeparted)
        assert (event.verdict.side, event.verdict.phase) == (Side.CLIENT, Phase.REQUEST_BODY)


@pytest.mark.parametrize("app", [read_to_the_end, read_into_a_buffer])
def test_one_that_is_whole_is_answered(app: Any) -> None:
    events: list[Event] = []
    with serving(wrap(app, events)) as port:
        whole = request("POST", "/", headers=CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n"
        assert ask(port, whole, half_close=True).endswith(b"\r\n\r\nok")
    assert events == []


def test_a_reset_in_a_body_that_was_not_announced_is_the_clients() -> None:
    events: list[Event] = []
    with serving(wrap(read_to_the_end, events)) as port:
        leave_at(port, request("POST", "/"), "rst", body=b"abc")
        until(lambda: bool(events), "no event")
    [event] = events
    assert isinstance(event, ClientDeparted)
    assert event.verdict.side is Side.CLIENT


def test_an_upstreams_reset_meanwhile_is_not() -> None:
    """Its socket is another one, though the same code reads from it."""
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        with upstream_that_resets() as upstream, upstream.makefile("rb") as stream:
            stream.read()
        return ok(environ, start_response)

    with serving(wrap(app, events)) as port:
        assert b" 500 " in ask(port, request("POST", "/"))
    [event] = events
    assert isinstance(event, UpstreamReset)
    assert event.verdict.side is Side.UPSTREAM


def test_a_reset_that_the_kernel_was_asked_about_before_the_reading_is_one() -> None:
    """Asking takes the error away: the reading finds an end, which is none of the body's."""
    events: list[Event] = []
    raised: list[BaseException] = []
    entered, left = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        entered.set()
        left.wait(10)
        start_response("200 OK", HEADERS[:1])
        try:
            environ["wsgi.input"].read(1000)
        except ConnectionResetError as error:
            raised.append(error)
            raise
        return []

    with serving(wrap(app, events)) as port:
        with connected(port) as client:
            client.sendall(request("POST", "/", length=1000) + b"abcd")
            entered.wait(10)
            leave(client, "rst")
        left.set()
        until(lambda: bool(events), "no event")
    [event] = events
    assert (event.name, len(raised)) == ("client_departed", 1)
    assert isinstance(event, ClientDeparted)
    assert event.verdict.mechanism is Mechanism.RESET
