"""The kernel's counters and listeners: each one is moved by doing what it counts."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

import pytest

from cleanclose.core import kernel
from cleanclose.core.kernel import (
    Listener,
)
from tests.harness.kernel import figures, linux, listening, pair, reset
from tests.harness.waiting import until

SOME = 20
"""How often each thing is done: others do it on this machine now and then."""


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
        until(lambda: figures().counters["TCPAbortOnTimeout"] != before)


@linux
def test_a_full_accept_queue_is_counted_and_shown() -> None:
    before = figures().counters
    with listening(backlog=2) as listener, contextlib.ExitStack() as stack:
        address, port = listener.getsockname()
        for _ in range(SOME):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            assert client.connect_ex((address, port)) == errno.EINPROGRESS
        shown = [
            each for each in figures().listeners if (each.address, each.port) == (address, port)
        ]
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
                own = (address, port)
                (shown,) = (e for e in figures().listeners if (e.address, e.port) == own)
    except OSError as error:
        pytest.skip(f"no such address on this machine: {error}")
    limit = 5 if way == "sock_diag" else None
    assert shown == Listener(address=address, port=port, queue=1, limit=limit)
