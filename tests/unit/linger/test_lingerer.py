"""The lingerer itself, on socket pairs: what it does to connections, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from cleanclose.core.deliver import linger as rules
from cleanclose.core.deliver.linger import Linger, State, Step
from cleanclose.core.events import Cap, Event, Mechanism, Outcome, UploadDrained
from cleanclose.core.settings import Settings
from cleanclose.linger import Handover, Lingerer, Taken, _lingerer, can_linger, descriptor_of
from tests.harness.made import refused
from tests.harness.waiting import until

LIMIT: Final = 30.0
"""Seconds that anything is waited for."""

PATIENT = Settings(idle_seconds=600.0, max_seconds=600.0, min_rate=0, hold_seconds=600.0)
"""What ends in such a connection does so for another reason than time."""

pytestmark = pytest.mark.skipif(not can_linger(), reason="connections cannot be shared here")


class Watched(Linger):
    """One that tells how often it was looked at."""

    looks = 0

    def tick(self, now: float) -> Step:
        self.looks += 1
        return super().tick(now)


class Connection:
    """Both ends of a connection, and what was reported of it."""

    def __init__(self, settings: Settings = PATIENT, *, reads: bool = False) -> None:
        self.client, self.server = socket.socketpair()
        self.client.settimeout(LIMIT)
        self.events: list[Event] = []
        self.reported = threading.Event()
        self.linger = refused(Watched, settings, reads=reads)

    def report(self, event: Event) -> None:
        self.events.append(event)
        self.reported.set()

    def handover(
        self, *, most: int = 10_000, held: bool = False, notified: bool = False
    ) -> Handover:
        return Handover(
            linger=self.linger,
            report=self.report,
            most=most,
            held_as=self.server.fileno() if held else None,
            notified=notified,
        )

    def hand_over(self, lingerer: Lingerer, *, most: int = 10_000) -> None:
        """The server is done with it, and gives its own descriptor away."""
        handover = self.handover(most=most)
        assert lingerer.take(self.server.detach(), handover, own=True) is not None

    def share(self, lingerer: Lingerer, *, most: int = 10_000, notified: bool = False) -> Taken:
        """The server still has it."""
        handover = self.handover(most=most, held=True, notified=notified)
        taken = lingerer.take(self.server.fileno(), handover)
        assert taken is not None
        return taken

    def event(self) -> UploadDrained:
        assert self.reported.wait(LIMIT), f"no event; it is {self.linger.state}"
        (event,) = self.events
        assert isinstance(event, UploadDrained)
        return event

    def close(self) -> None:
        self.client.close()
        self.server.close()


def descriptors() -> set[str]:
    """The open descriptors of this process, each with what it is."""
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {Path('/proc/self/fd', name).readlink()}")
    return {each for each in found if "/proc/" not in each}


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "cleanclose-linger"]


@pytest.fixture
def lingerer() -> Iterator[Lingerer]:
    """One of the test's own; in the end nothing of it is left."""
    before = threads()
    one = Lingerer()
    yield one
    one.stop()
    until(lambda: set(threads()) <= set(before), "the thread has ended")
    assert one.count == 0


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    """Make connections, which are closed in the end."""
    made: list[Connection] = []

    def new(settings: Settings = PATIENT, *, reads: bool = False) -> Connection:
        made.append(Connection(settings, reads=reads))
        return made[-1]

    yield new
    for each in made:
        each.close()


Connect = Callable[..., Connection]


# What it does to a connection.


def test_what_comes_is_discarded_until_the_peer_is_done(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection = connect()
    connection.hand_over(lingerer)
    size = 5 * 1024 * 1024
    connection.client.sendall(bytes(size))
    # Its own end was told at once.
    assert connection.client.recv(1) == b""
    connection.client.close()
    event = connection.event()
    assert (event.outcome, event.cap) == (Outcome.DELIVERED, None)
    assert (event.mechanism, event.drained) == (Mechanism.EOF, size)
    assert lingerer.count == 0


def test_what_had_come_before_is_discarded_too(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    connection.client.sendall(bytes(1000))
    connection.client.close()
    connection.hand_over(lingerer)
    assert connection.event().drained == 1000


def test_nothing_is_read_or_shut_down_before_the_server_has_let_go(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection = connect()
    connection.client.sendall(b"the body's beginning")
    connection.share(lingerer)
    until(lambda: connection.linger.looks > 5, "it has been looked at")
    # All of it is there for the server, in both directions.
    assert connection.server.recv(1000) == b"the body's beginning"
    connection.server.sendall(b"the response's beginning")
    connection.client.sendall(b"more")
    looks = connection.linger.looks
    until(lambda: connection.linger.looks > looks + 2, "it has been looked at again")
    assert connection.server.recv(1000) == b"more"
    connection.server.sendall(b", and its end")
    connection.client.sendall(b"the rest")
    connection.server.close()
    received = b""
    while piece := connection.client.recv(1000):
        received += piece
    assert received == b"the response's beginning, and its end"
    connection.client.close()
    assert connection.event().drained == len(b"the rest")


def test_the_number_may_be_somebody_elses_by_then(lingerer: Lingerer, connect: Connect) -> None:
    connection, other = connect(), connect()
    connection.share(lingerer)
    number = connection.server.detach()
    os.dup2(other.server.fileno(), number)
    try:
        assert connection.client.recv(1) == b""
        other.client.sendall(b"not ours")
        assert other.server.recv(100) == b"not ours"
    finally:
        os.close(number)


def test_a_shim_may_say_that_the_server_has_let_go(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    taken = connection.share(lingerer)
    until(lambda: connection.linger.looks > 2, "it has been looked at")
    taken.let_go()
    assert connection.client.recv(1) == b""
    connection.client.close()
    connection.event()
    # However late.
    taken.let_go()


def test_nobody_looks_before_a_shim_says_that_it_may_be_time(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection, other = connect(), connect()
    taken = connection.share(lingerer, notified=True)
    connection.client.sendall(b"the body")
    # The thread has done all this meanwhile.
    other.share(lingerer)
    until(lambda: other.linger.looks > 5, "the other one has been looked at")
    assert connection.linger.looks == 0
    assert taken.is_held()
    # Too early: from now on the thread looks by itself.
    taken.look()
    until(lambda: connection.linger.looks > 2, "it has been looked at")
    assert connection.server.recv(1000) == b"the body"
    connection.server.close()
    assert not taken.is_held()
    assert connection.client.recv(1) == b""
    connection.client.close()
    assert connection.event().outcome is Outcome.DELIVERED


def test_a_shim_takes_the_first_steps_itself(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    taken = connection.share(lingerer, notified=True)
    connection.client.sendall(bytes(1000))
    connection.client.shutdown(socket.SHUT_WR)
    connection.server.close()
    taken.look()
    # What had come is discarded, and the end follows.
    assert connection.client.recv(1) == b""
    assert connection.event().drained == 1000


def test_a_shim_that_says_nothing(
    lingerer: Lingerer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lingerer, "UNNOTIFIED", 0.01)
    connection = connect()
    connection.share(lingerer, notified=True)
    connection.server.close()
    assert connection.client.recv(1) == b""
    connection.client.close()
    assert connection.event().outcome is Outcome.DELIVERED


def test_where_another_thread_may_not_add_to_the_selector(
    lingerer: Lingerer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gevent's, or a `poll`: the thread takes every step."""
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.PollSelector)
    connection = connect()
    taken = connection.share(lingerer, notified=True)
    connection.client.sendall(bytes(1000))
    connection.server.close()
    taken.look()
    assert connection.client.recv(1) == b""
    connection.client.close()
    assert connection.event().drained == 1000


def test_where_nobody_else_reads_it_reads_while_the_server_sends(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection = connect(reads=True)
    connection.share(lingerer)
    size = 5 * 1024 * 1024
    connection.client.sendall(bytes(size))
    connection.server.sendall(b"the response")
    connection.server.close()
    assert connection.client.recv(1000) == b"the response"
    assert connection.client.recv(1000) == b""
    connection.client.close()
    assert connection.event().drained == size


def test_a_peer_that_closes_meanwhile_is_waited_for_without_work(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection = connect(reads=True)
    connection.share(lingerer)
    connection.client.sendall(bytes(10))
    connection.client.shutdown(socket.SHUT_WR)
    until(lambda: not connection.linger.reads, "the end has been seen")
    connection.server.sendall(b"the response")
    connection.server.close()
    assert connection.client.recv(1000) == b"the response"
    event = connection.event()
    assert (event.outcome, event.mechanism) == (Outcome.DELIVERED, Mechanism.EOF)


def test_a_server_that_does_not_let_go_keeps_its_connection(
    lingerer: Lingerer, connect: Connect
) -> None:
    connection = connect(Settings(max_seconds=0.01))
    connection.share(lingerer)
    assert connection.event().outcome is Outcome.UNKNOWN
    connection.client.sendall(b"the next request")
    assert connection.server.recv(1000) == b"the next request"
    connection.server.sendall(b"the next response")
    assert connection.client.recv(1000) == b"the next response"


def test_a_reset(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    connection.server.sendall(b"nobody reads this")
    connection.hand_over(lingerer)
    connection.client.sendall(bytes(10))
    connection.client.close()
    event = connection.event()
    assert (event.outcome, event.mechanism) == (Outcome.RESET, Mechanism.RESET)


@pytest.mark.parametrize("default", [5.0, 0.0])
def test_the_servers_socket_stays_as_it_is(
    lingerer: Lingerer, connect: Connect, default: float
) -> None:
    connection = connect()
    socket.setdefaulttimeout(default)
    try:
        connection.share(lingerer)
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(connection.server.fileno())
    until(lambda: connection.linger.looks > 2, "it has been looked at")
    assert os.get_blocking(connection.server.fileno())
    connection.server.close()
    assert connection.client.recv(1) == b""
    connection.client.sendall(bytes(10))
    connection.client.close()
    assert connection.event().drained == 10


# The limits.


def send_until_reported(connection: Connection) -> None:
    """A client that does not stop by itself."""
    connection.client.setblocking(False)
    while not connection.reported.is_set():
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            connection.client.send(bytes(1000))
        time.sleep(0.001)


def test_the_limit_in_bytes(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect(Settings(max_bytes=100_000, hold_seconds=0.01))
    connection.hand_over(lingerer)
    send_until_reported(connection)
    event = connection.event()
    assert (event.outcome, event.cap) == (Outcome.CUT, Cap.MAX_BYTES)
    assert event.drained < 100_000 + 1024 * 1024


def test_a_hold_is_no_longer_than_it_was_set_to(
    lingerer: Lingerer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not until whatever had been planned for the connection before."""
    monkeypatch.setattr(rules, "ASK_AGAIN", 600.0)
    connection = connect(
        Settings(
            max_bytes=100, hold_seconds=0.01, idle_seconds=600.0, max_seconds=600.0, min_rate=0
        )
    )
    connection.hand_over(lingerer)
    assert connection.client.recv(1) == b""
    connection.client.sendall(bytes(100))
    assert connection.event().cap is Cap.MAX_BYTES


def test_a_hold_does_not_read(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect(Settings(max_bytes=0, hold_seconds=600.0))
    connection.hand_over(lingerer)
    until(lambda: connection.linger.state is State.HOLDING, "it is held")
    connection.client.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 64 * 1024 * 1024:
            sent += connection.client.send(bytes(65536))
    # Back-pressure: that is what makes a client look for its response.
    assert sent < 64 * 1024 * 1024
    lingerer.stop()
    assert connection.event().cap is Cap.MAX_BYTES
    assert connection.event().drained == 0


@pytest.mark.parametrize(
    ("settings", "cap"),
    [
        (Settings(idle_seconds=0.01, hold_seconds=0.01), Cap.IDLE_SECONDS),
        (Settings(max_seconds=0.01, hold_seconds=0.01), Cap.MAX_SECONDS),
    ],
)
def test_the_limits_in_time(
    lingerer: Lingerer, connect: Connect, settings: Settings, cap: Cap
) -> None:
    connection = connect(settings)
    connection.hand_over(lingerer)
    event = connection.event()
    assert (event.outcome, event.cap) == (Outcome.CUT, cap)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.client.sendall(b"x")


def test_a_client_that_does_not_stop_ends_too(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect(Settings(max_seconds=0.05, hold_seconds=0.01))
    connection.hand_over(lingerer)
    send_until_reported(connection)
    assert connection.event().cap is Cap.MAX_SECONDS


@pytest.mark.parametrize("notified", [False, True])
def test_past_the_limit_the_oldest_goes(
    lingerer: Lingerer, connect: Connect, notified: bool
) -> None:
    connections = [connect() for _ in range(5)]
    for connection in connections:
        if notified:
            taken = connection.share(lingerer, most=3, notified=True)
            connection.server.close()
            taken.look()
        else:
            connection.hand_over(lingerer, most=3)
        assert connection.client.recv(1) == b""
    for connection in connections[:2]:
        assert connection.event().cap is Cap.MAX_LINGERING
    assert lingerer.count == 3
    for connection in connections[2:]:
        assert not connection.events
        connection.client.sendall(bytes(100))
        connection.client.close()
        assert connection.event().drained == 100


# What it leaves behind.


def test_the_thread_and_its_descriptors_are_gone_after_the_last_one(connect: Connect) -> None:
    lingerer = Lingerer()
    connections = [connect() for _ in range(3)]
    before, running = descriptors(), threads()
    for connection in connections:
        connection.share(lingerer)
    assert len(threads()) == len(running) + 1
    for connection in connections:
        connection.close()
        connection.event()
    until(lambda: threads() == running, "the thread has ended")
    assert descriptors() < before
    assert lingerer.count == 0
    # The next one makes a thread again.
    again = connect()
    again.hand_over(lingerer)
    again.client.close()
    assert again.event().outcome is Outcome.DELIVERED
    until(lambda: threads() == running, "the thread has ended again")


def test_one_thread_for_all(lingerer: Lingerer, connect: Connect) -> None:
    running = len(threads())
    for _ in range(10):
        connect().hand_over(lingerer)
    assert len(threads()) == running + 1


def test_who_is_late_writes_into_no_descriptor_of_somebody_elses(connect: Connect) -> None:
    lingerer = Lingerer()
    running = threads()
    connection = connect(Settings(max_seconds=0))
    taken = connection.share(lingerer)
    connection.event()
    until(lambda: threads() == running, "the thread has ended")
    # Its numbers are free, and taken by these.
    others = [connect() for _ in range(10)]
    pipes = [os.pipe() for _ in range(10)]
    try:
        taken.let_go()
        lingerer.stop()
        for other in others:
            for end in (other.client, other.server):
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)
        for reading, _ in pipes:
            os.set_blocking(reading, False)
            with pytest.raises(BlockingIOError):
                os.read(reading, 1)
    finally:
        for pair in pipes:
            for number in pair:
                os.close(number)


def test_stopping_closes_and_reports_what_is_left(lingerer: Lingerer, connect: Connect) -> None:
    sending, lingering = connect(), connect()
    holding = connect(Settings(max_bytes=0, hold_seconds=600.0))
    sending.share(lingerer)
    lingering.hand_over(lingerer)
    holding.hand_over(lingerer)
    until(lambda: holding.linger.state is State.HOLDING, "it is held")
    lingerer.stop()
    assert sending.event().cap is Cap.APPLICATION
    assert lingering.event().cap is Cap.APPLICATION
    assert holding.event().cap is Cap.MAX_BYTES
    # What the server has is the server's.
    sending.server.sendall(b"the response")
    assert sending.client.recv(1000) == b"the response"
    lingerer.stop()


def test_after_a_stop_it_can_be_used_again(lingerer: Lingerer, connect: Connect) -> None:
    for _ in range(20):
        connection = connect()
        connection.hand_over(lingerer)
        lingerer.stop()
        assert connection.event().cap is Cap.APPLICATION
    last = connect()
    last.hand_over(lingerer)
    last.client.close()
    assert last.event().outcome is Outcome.DELIVERED


# What cannot be taken.


def test_a_number_that_is_none(lingerer: Lingerer, connect: Connect) -> None:
    connection = connect()
    number = connection.server.fileno()
    connection.server.close()
    before = descriptors()
    for own in (False, True):
        assert lingerer.take(number, connection.handover(), own=own) is None
    assert descriptors() == before
    assert lingerer.count == 0


def test_what_is_no_socket_stays_its_owners(lingerer: Lingerer, connect: Connect) -> None:
    reading, writing = os.pipe()
    handover = connect().handover()
    before = descriptors()
    try:
        for own in (False, True):
            assert lingerer.take(reading, handover, own=own) is None
        assert descriptors() == before
        os.write(writing, b"still there")
        assert os.read(reading, 100) == b"still there"
    finally:
        os.close(reading)
        os.close(writing)


def test_descriptor_of() -> None:
    class Nothing:
        pass

    class Detached:
        def fileno(self) -> int:
            return -1

    class Broken:
        def fileno(self) -> int:
            raise OSError

    class Odd:
        def fileno(self) -> str:
            return "7"

    client, server = socket.socketpair()
    assert descriptor_of(client) == client.fileno()
    client.close()
    server.close()
    for nothing in (None, Nothing(), Detached(), Broken(), Odd(), client):
        assert descriptor_of(nothing) is None


# Whatever goes wrong with one is not the others' trouble.


@pytest.mark.parametrize(
    "error", [LookupError(), OSError(), SystemExit(), asyncio.CancelledError()], ids=repr
)
def test_an_outlet_that_raises(lingerer: Lingerer, connect: Connect, error: BaseException) -> None:
    running = len(threads())
    broken, sound = connect(), connect()

    def report(event: Event) -> None:
        broken.report(event)
        raise error

    handover = Handover(linger=broken.linger, report=report, most=100)
    assert lingerer.take(broken.server.detach(), handover, own=True) is not None
    sound.hand_over(lingerer)
    broken.client.close()
    broken.event()
    sound.client.sendall(bytes(10))
    sound.client.close()
    event = sound.event()
    assert (event.outcome, event.drained) == (Outcome.DELIVERED, 10)
    assert len(threads()) == running + 1


def test_a_rule_that_raises(lingerer: Lingerer, connect: Connect) -> None:
    broken, sound = connect(), connect()

    class Broken(Watched):
        def received(self, size: int, now: float, *, heard: float | None = None) -> Step:
            raise LookupError

    broken.linger.__class__ = Broken
    broken.hand_over(lingerer)
    sound.hand_over(lingerer)
    broken.client.sendall(bytes(10))
    assert broken.event().cap is Cap.APPLICATION
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        broken.client.sendall(bytes(10))
    sound.client.close()
    assert sound.event().outcome is Outcome.DELIVERED


def test_the_event_has_the_context_of_the_hand_over(lingerer: Lingerer, connect: Connect) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    connections = {name: connect() for name in ("first", "second")}
    seen: dict[str, str] = {}
    for name, connection in connections.items():

        def report(event: Event, name: str = name, to: Connection = connection) -> None:
            seen[name] = request.get("none")
            to.report(event)

        request.set(name)
        handover = Handover(linger=connection.linger, report=report, most=100)
        assert lingerer.take(connection.server.detach(), handover, own=True) is not None
    for connection in connections.values():
        connection.client.close()
        connection.event()
    assert seen == {"first": "first", "second": "second"}


# Many.


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"no more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_connections(lingerer: Lingerer, connect: Connect) -> None:
    before = descriptors()
    connections = [connect() for _ in range(1000)]
    for connection in connections:
        connection.hand_over(lingerer)
    for connection in connections:
        assert connection.client.recv(1) == b""
    assert lingerer.count == 1000
    for size, connection in enumerate(connections):
        connection.client.sendall(bytes(size))
    for connection in connections:
        connection.client.close()
    for size, connection in enumerate(connections):
        event = connection.event()
        assert (event.outcome, event.drained) == (Outcome.DELIVERED, size)
    until(lambda: not threads(), "the thread has ended")
    assert descriptors() == before


@pytest.mark.usefixtures("many_descriptors")
def test_hand_overs_from_many_threads(lingerer: Lingerer, connect: Connect) -> None:
    """Some of their clients leave at once, some servers let go late, and nobody is forgotten."""
    before = descriptors()
    groups = [[connect() for _ in range(30)] for _ in range(16)]
    begin = threading.Barrier(len(groups))
    failed: list[BaseException] = []

    def serve(group: list[Connection]) -> None:
        try:
            begin.wait(LIMIT)
            for number, connection in enumerate(group):
                if number % 3 == 0:
                    connection.client.sendall(bytes(number))
                    connection.client.close()
                if number % 2:
                    connection.hand_over(lingerer)
                else:
                    taken = connection.share(lingerer, notified=number % 4 == 0)
                    connection.server.close()
                    taken.let_go()
            for connection in group:
                connection.client.close()
        except BaseException as error:  # noqa: BLE001 - shown in the test's own thread
            failed.append(error)

    workers = [threading.Thread(target=serve, args=(group,)) for group in groups]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT)
    assert not failed
    for group in groups:
        for connection in group:
            assert connection.event().outcome is Outcome.DELIVERED
    until(lambda: not threads(), "the thread has ended")
    assert descriptors() == before
