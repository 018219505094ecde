"""The client's connection below ``wsgi.input``, on real sockets and on the servers' own readers."""

from __future__ import annotations

import functools
import io
import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cleanclose.core.deliver.table import Done, Read, Respond, Step
from cleanclose.core.server import Continue, Server
from cleanclose.servers import ClientConnection, came_out_of, drain, find_connection, wsgi_response

MIB = 1024 * 1024
FILE = Server("file", Continue.LAZY, input_socket="raw._sock", reads_from=("raw._sock",))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


class Drainer:
    """What a delivery is to a drain: waits so long, and until so many bytes are there."""

    def __init__(self, left: int | None, seconds: float) -> None:
        self.left = left
        self.total = 0
        self.ended = False
        self._next: Step = Read(seconds)

    def step(self) -> Step:
        return self._next

    def came(self, size: int) -> Step:
        return self._next

    def drained(self, size: int, *, at_end: bool) -> Step:
        self.total += size
        self.ended = at_end
        if at_end:
            self._next = Done()
        return self._next

    def nothing_came(self) -> Step:
        self._next = Respond(close=True, linger=True)
        return self._next


def connection_of(stream: Any) -> ClientConnection:
    found = find_connection({}, stream, FILE)
    assert found is not None
    return found


def test_what_has_arrived_is_read_and_nothing_is_waited_for(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    stream = here.makefile("rb")
    there.sendall(b"x" * 5000)
    stream.peek(1)
    drainer = Drainer(left=100_000, seconds=0)
    here.settimeout(7)
    step = drain(stream, connection_of(stream), FILE, drainer)
    assert isinstance(step, Respond)
    assert (drainer.total, drainer.ended) == (5000, False)
    assert here.gettimeout() == 7
    assert stream.raw._sock is here  # type: ignore[attr-defined]


@pytest.mark.parametrize("close", [False, True], ids=["whole", "cut short"])
def test_a_body_is_read_to_its_end(pair: tuple[socket.socket, socket.socket], close: bool) -> None:
    here, there = pair
    stream = here.makefile("rb")
    there.sendall(b"x" * 5000 + (b"" if close else b"y" * 5000 + b"next"))
    if close:
        there.shutdown(socket.SHUT_WR)
    drainer = Drainer(left=10_000, seconds=30)
    assert isinstance(drain(stream, connection_of(stream), FILE, drainer), Done)
    assert (drainer.total, drainer.ended) == (5000 if close else 10_000, True)
    if not close:
        assert stream.read(4) == b"next"


def test_a_byte_now_and_then_holds_nobody_beyond_the_limit(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The reader wants all of it; who is asked before each waiting is the core."""
    here, there = pair
    stream = here.makefile("rb")

    class Limited(Drainer):
        def came(self, size: int) -> Step:
            # As `Exchange.tick` at the end of its time.
            there.sendall(b"x")
            self.count += size
            if self.count == 20:
                self._next = Respond(close=True, linger=True)
            return self._next

        count = 0

    drainer = Limited(left=10_000, seconds=30)
    there.sendall(b"x")
    assert isinstance(drain(stream, connection_of(stream), FILE, drainer), Respond)
    assert drainer.total == 20


def test_a_server_that_closes_is_left_without_the_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    number = here.fileno()
    duplicate = socket.socket(fileno=os.dup(number))
    with duplicate:
        ClientConnection(here, number, None).take_away(closes=True)
        assert here.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        here.close()
        duplicate.sendall(b"still there")
        assert there.recv(100) == b"still there"


def test_a_server_that_goes_on_finds_that_its_peer_has_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    duplicate = socket.socket(fileno=os.dup(here.fileno()))
    with duplicate:
        there.sendall(b"GET /smuggled")
        ClientConnection(here, here.fileno(), None).take_away(closes=False)
        assert here.recv(100) == b""
        here.shutdown(socket.SHUT_RDWR)
        duplicate.sendall(b"still there")
        assert there.recv(100) == b"still there"


def test_a_number_that_is_another_connections_by_now_is_left_alone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    ClientConnection(here, there.fileno(), None).take_away(closes=False)
    there.sendall(b"untouched")
    assert here.recv(100) == b"untouched"


def test_an_ended_stream_hands_out_what_it_has(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    stream = here.makefile("rb")
    there.sendall(b"x" * 10)
    stream.peek(1)
    there.sendall(b"later")
    connection_of(stream).end_reading()
    assert stream.read(100) == b"x" * 10
    stream.close()


@pytest.mark.parametrize(
    "stream",
    [io.BytesIO(), SimpleNamespace(raw=SimpleNamespace()), object()],
    ids=["memory", "renamed", "opaque"],
)
def test_a_stream_without_a_socket_is_no_connection(stream: Any) -> None:
    assert find_connection({}, stream, FILE) is None


class Response:
    def start_response(self, status: str, headers: Any) -> None: ...


Response.__module__ = "gunicorn.http.wsgi"


class Starter:
    def __init__(self, start: Callable[..., Any]) -> None:
        self.start = start

    def __call__(self, *args: Any) -> Any:
        return self.start(*args)


def test_the_servers_object_is_found_behind_wrappers() -> None:
    server = Server("gunicorn", Continue.EAGER)
    response = Response()
    start = response.start_response

    def handed_on(inner: Callable[..., Any], *args: Any) -> Any:
        return inner(*args)

    by_partial = functools.partial(handed_on, start)

    def by_closure(*args: Any) -> Any:
        return by_partial(*args)

    calls: tuple[object, ...] = (start, by_partial, by_closure, Starter(by_closure))
    for call in (*calls, Starter(start).__call__):
        assert wsgi_response(call, server) is response
    table = {"start": start}

    def hidden(*args: Any) -> Any:
        return table["start"](*args)

    assert wsgi_response(hidden, server) is None
    assert wsgi_response(None, server) is None


def test_what_came_out_of_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as reader:
        ours.settimeout(0.001)
        with pytest.raises(TimeoutError) as raised:
            reader.read(1)
        # A time-out says so, too (`cleanclose.core.blame.provenance.says_lost`).
        assert came_out_of(raised.value, ours)
        assert not came_out_of(raised.value, theirs)
        assert not came_out_of(raised.value, None)
        # None of its frames is a method of the socket's.
        assert not came_out_of(ConnectionResetError("reset"), ours)
