"""What Linux says of one connection, asked of real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable

import pytest

from cleanclose.core.kernel import ask_connection
from cleanclose.core.tcp_info import Connection
from tests.harness import waiting
from tests.harness.kernel import linux, pair, reset


def until(sock: socket.socket, wanted: Callable[[Connection], bool]) -> Connection:
    """The kernel's word, as soon as it is this."""
    asked: list[Connection] = []

    def is_wanted() -> bool:
        found = ask_connection(sock)
        assert found is not None
        asked.append(found)
        return wanted(found)

    waiting.until(is_wanted, lambda: asked[-1])
    return asked[-1]


@linux
class TestAsking:
    def test_a_healthy_connection(self) -> None:
        with pair() as (client, server):
            server.sendall(b"answer")
            found = until(server, lambda found: found.unacked == 0)
            # Its kernel has it. Nobody has read it.
            assert found == Connection(unacked=0)
            assert client.recv(10) == b"answer"

    def test_a_client_that_does_not_read(self) -> None:
        with pair() as (client, server):
            server.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += server.send(bytes(65536))
            found = ask_connection(server)
            assert found is not None
            assert 0 < found.unacked < sent
            assert (found.reset, found.peer_closed) == (False, False)
            # Once it has read enough, the rest arrives.
            client.settimeout(10)
            while sent:
                sent -= len(client.recv(1 << 20))
            until(server, lambda found: found.unacked == 0)

    def test_a_peer_that_closes_its_half(self) -> None:
        with pair() as (client, server):
            client.sendall(b"unread")
            client.shutdown(socket.SHUT_WR)
            assert not until(server, lambda found: found.peer_closed).reset

    def test_a_peer_that_resets(self) -> None:
        with pair() as (client, server):
            client.sendall(b"unread")
            reset(client)
            until(server, lambda found: found.reset)
            # It is known before what came earlier has been read.
            assert server.recv(10) == b"unread"

    def test_what_a_reset_has_lost(self) -> None:
        with pair() as (client, server):
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    server.send(bytes(65536))
            reset(client)
            assert until(server, lambda found: found.reset).unacked > 0

    def test_a_reading_that_ends_in_good_order_may_hide_a_reset(self) -> None:
        with pair() as (client, server):
            client.sendall(b"request")
            client.close()
            until(server, lambda found: found.peer_closed)
            server.sendall(b"answer")
            # Nobody is there to take it, and the answer to it is a reset.
            assert until(server, lambda found: found.reset).unacked == len(b"answer")
            assert [server.recv(10), server.recv(10)] == [b"request", b""]

    def test_asking_changes_nothing(self) -> None:
        with pair() as (client, server):
            reset(client)
            until(server, lambda found: found.reset)
            with pytest.raises(ConnectionResetError):
                server.recv(1)

    def test_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pair() as (_, server):
            wrapped = context.wrap_socket(server, server_side=True, do_handshake_on_connect=False)
            with wrapped:
                found = ask_connection(wrapped)
                assert found is not None
                assert found.unacked == 0

    def test_asyncio(self) -> None:
        async def ask() -> Connection | None:
            with pair() as (_, server):
                _, writer = await asyncio.open_connection(sock=server)
                found = ask_connection(writer.get_extra_info("socket"))
                writer.close()
                return found

        found = asyncio.run(ask())
        assert found is not None
        assert not found.reset


def test_sockets_of_other_kinds() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert ask_connection(datagrams) is None
    with socket.socket() as fresh:
        fresh.bind(("127.0.0.1", 0))
        fresh.listen()
        assert ask_connection(fresh) is None
    assert ask_connection(fresh) is None
    if hasattr(socket, "AF_UNIX"):
        one, other = socket.socketpair()
        with one, other:
            assert ask_connection(one) is None


def test_other_systems_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    with pair() as (_, server):
        monkeypatch.setattr(sys, "platform", "freebsd14")
        assert ask_connection(server) is None
