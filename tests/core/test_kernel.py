"""The kernel's figures: each one is moved by doing what it counts."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
import time
from collections.abc import Callable, Generator

import pytest

from cleanclose.core import kernel
from cleanclose.core.kernel import (
    COUNTERS,
    KernelFigures,
    Listener,
    kernel_figures,
    parse_counters,
    parse_diag,
    parse_listeners,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")

SOME = 20
"""How often each thing is done: others do it on this machine now and then."""


def figures() -> KernelFigures:
    found = kernel_figures()
    assert found is not None
    return found


@contextlib.contextmanager
def listening(backlog: int = 8, family: int = socket.AF_INET) -> Generator[socket.socket]:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen(backlog)
        yield listener


@contextlib.contextmanager
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end, and the server's."""
    with listening() as listener:
        client = socket.create_connection(listener.getsockname(), timeout=10)
        server, _ = listener.accept()
    with client, server:
        yield client, server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def close_unread() -> None:
    with pair() as (client, server):
        client.sendall(b"x")
        server.recv(1, socket.MSG_PEEK)
        server.close()


def close_before_data() -> None:
    with pair() as (client, server):
        server.close()
        client.recv(1)
        client.sendall(b"x")


def be_reset() -> None:
    with pair() as (client, server):
        reset(client)
        with contextlib.suppress(ConnectionResetError):
            server.recv(1)


@linux
@pytest.mark.parametrize(
    ("counter", "act"),
    [
        ("TCPAbortOnClose", close_unread),
        ("TCPAbortOnData", close_before_data),
        ("EstabResets", be_reset),
        ("OutRsts", close_unread),
    ],
)
def test_resets_are_counted(counter: str, act: Callable[[], None]) -> None:
    before = figures().counters[counter]
    # Now and then one side is quicker, and it ends in another way.
    for _ in range(2 * SOME):
        act()
    assert figures().counters[counter] >= before + SOME


@linux
def test_a_peer_that_does_not_acknowledge_is_counted() -> None:
    before = figures().counters["TCPAbortOnTimeout"]
    with pair() as (_, server):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        deadline = time.monotonic() + 20
        while figures().counters["TCPAbortOnTimeout"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@linux
def test_a_full_accept_queue_is_counted_and_shown() -> None:
    before = figures().counters
    with listening(backlog=2) as listener, contextlib.ExitStack() as stack:
        address, port = listener.getsockname()
        for _ in range(SOME):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            assert client.connect_ex((address, port)) == errno.EINPROGRESS
        shown = [each for each in figures().listeners if each.port == port]
        # The kernel turns away when there are more than the limit.
        assert shown == [Listener(address=address, port=port, queue=3, limit=2)]
        after = figures().counters
    assert after["ListenOverflows"] > before["ListenOverflows"]
    assert after["ListenDrops"] > before["ListenDrops"]


@linux
@pytest.mark.parametrize("way", ["sock_diag", "proc"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_listeners(way: str, family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "proc":

        def refused(family: int) -> list[Listener]:
            raise OSError(errno.EPERM, "no netlink here")

        monkeypatch.setattr(kernel, "_ask_sock_diag", refused)
    try:
        with listening(backlog=5, family=family) as listener:
            address, port = listener.getsockname()[:2]
            with socket.create_connection((address, port), timeout=10):
                (shown,) = (each for each in figures().listeners if each.port == port)
    except OSError as error:
        pytest.skip(f"no such address on this machine: {error}")
    limit = 5 if way == "sock_diag" else None
    assert shown == Listener(address=address, port=port, queue=1, limit=limit)


@linux
def test_all_counters_are_there() -> None:
    assert set(figures().counters) == set(COUNTERS)


@linux
def test_the_figures_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        figures().counters["OutRsts"] = 0  # type: ignore[index]


def test_another_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert kernel_figures() is None


def test_where_proc_is_hidden_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_COUNTER_FILES", ("/nowhere",))
    assert kernel_figures() is None


@linux
def test_where_all_of_it_is_hidden_there_are_no_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK")
    monkeypatch.setattr(kernel, "_LISTENER_FILES", ("/nowhere",))
    assert figures().listeners == ()


def test_older_kernels_have_fewer_counters() -> None:
    assert parse_counters(["TcpExt: A ListenDrops B\n", "TcpExt: 1 2 3\n"]) == {"ListenDrops": 2}


@pytest.mark.parametrize(
    "lines", [["TcpExt: ListenDrops B", "TcpExt: 1"], ["Tcp: OutRsts", "Tcp: many"], ["Tcp: A"]]
)
def test_what_is_no_such_file(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"zip|literal"):
        parse_counters(lines)


def test_connections_behind_the_listeners_are_not_looked_at() -> None:
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when",
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000",
        "   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000",
        "what is this",
    ]
    if sys.byteorder == "little":
        found = list(parse_listeners(lines))
        assert found == [Listener(address="127.0.0.1", port=8080, queue=2, limit=None)]


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_sock_diag_may_refuse() -> None:
    with pytest.raises(OSError, match="sock_diag") as caught:
        parse_diag(message(2, struct.pack("=i", -errno.ENOENT) + bytes(16)))
    assert caught.value.errno == errno.ENOENT


def test_sock_diag_may_take_several_pieces() -> None:
    assert parse_diag(message(0, b"")) == ([], True)
    assert parse_diag(message(3, bytes(4))) == ([], False)


@pytest.mark.parametrize(
    "data", [struct.pack("=IHHII", 400, 20, 0, 1, 0), bytes(16), message(20, bytes(8))]
)
def test_what_is_no_answer_of_sock_diag(data: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_diag(data)
