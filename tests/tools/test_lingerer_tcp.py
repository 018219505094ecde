"""The lingerer on TCP connections: what their kernel does for it, and a socket pair's does not."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from cleanclose.core.deliver.linger import Linger
from cleanclose.core.events import Event, Mechanism, Outcome, UploadDrained
from cleanclose.core.settings import Settings
from cleanclose.linger import Handover, Lingerer, can_linger
from tests.harness.made import refused
from tests.harness.waiting import LIMIT, until

PATIENT: Final = Settings(idle_seconds=600.0, max_seconds=600.0, min_rate=0)

pytestmark = [
    pytest.mark.skipif(not can_linger(), reason="connections cannot be shared here"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each byte wakes the thread"),
]


class Connection:
    """A client, and the lingerer with the other end."""

    def __init__(self, lingerer: Lingerer, pair: tuple[socket.socket, socket.socket]) -> None:
        self.client, self.server = pair
        self.client.settimeout(LIMIT)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events: list[Event] = []
        self._reported = threading.Event()
        linger = refused(Linger, PATIENT)
        handover = Handover(linger=linger, report=self._report, most=10_000)
        assert lingerer.take(self.server.dup().detach(), handover, own=True) is not None
        # The sending side has been shut down: the lingerer has begun.
        assert self.client.recv(1) == b""

    def _report(self, event: Event) -> None:
        self._events.append(event)
        self._reported.set()

    @property
    def unread(self) -> int:
        """Bytes that the kernel has, and that nobody has read."""
        got: bytes = fcntl.ioctl(self.server.fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(got, sys.byteorder)

    def wakes_for_much(self) -> bool:
        return self.server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) > 1

    def event(self) -> UploadDrained:
        assert self._reported.wait(LIMIT), "no event"
        (event,) = self._events
        assert isinstance(event, UploadDrained)
        return event


Connect = Callable[..., Connection]


@pytest.fixture
def lingerer() -> Iterator[Lingerer]:
    one = Lingerer()
    yield one
    one.stop()


@pytest.fixture
def connect(lingerer: Lingerer) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def new(receive_buffer: int | None = None) -> Connection:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                if receive_buffer is not None:
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                client = stack.enter_context(socket.create_connection(listening.getsockname()))
                server = stack.enter_context(listening.accept()[0])
            connection = Connection(lingerer, (client, server))
            until(connection.wakes_for_much, "the thread waits for it")
            return connection

        yield new


def drip(connection: Connection, count: int) -> None:
    """Send some bytes one by one, and wait until they have come."""
    for _ in range(count):
        connection.client.send(b"x")
    until(lambda: connection.unread == count, "they have come, unread")


def test_the_thread_does_not_wake_for_a_client_that_drips(connect: Connect) -> None:
    dripping, other = connect(), connect()
    drip(dripping, 100)
    other.client.sendall(bytes(100_000))
    # The thread has looked at all connections that it was woken for.
    until(lambda: not other.unread, "the thread has read what was much")
    assert dripping.unread == 100
    dripping.client.sendall(bytes(100_000))
    until(lambda: not dripping.unread, "now it is much, too")
    dripping.client.close()
    event = dripping.event()
    assert (event.outcome, event.mechanism) == (Outcome.DELIVERED, Mechanism.EOF)
    assert event.drained == 100_100


def test_it_wakes_for_the_end_of_one(connect: Connect) -> None:
    connection = connect()
    drip(connection, 10)
    connection.client.shutdown(socket.SHUT_WR)
    event = connection.event()
    assert (event.outcome, event.mechanism) == (Outcome.DELIVERED, Mechanism.EOF)
    assert event.drained == 10


def test_it_wakes_for_its_reset(connect: Connect) -> None:
    connection = connect()
    drip(connection, 10)
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.client.close()
    event = connection.event()
    assert (event.outcome, event.mechanism) == (Outcome.RESET, Mechanism.RESET)
    assert event.drained == 10


@pytest.mark.parametrize("size", [1, 4096, 16384])
def test_a_receive_buffer_that_is_smaller_is_emptied_all_the_same(
    connect: Connect, size: int
) -> None:
    connection = connect(receive_buffer=size)
    connection.client.sendall(bytes(300_000))
    connection.client.close()
    assert connection.event().drained == 300_000


def test_a_stop_does_not_reset_the_connection(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    drip(connection, 10)
    connection.server.close()
    lingerer.stop()
    assert connection.event().drained == 10
    assert connection.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
