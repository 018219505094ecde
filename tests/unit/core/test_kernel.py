"""The kernel's figures: each one is moved by doing what it counts."""

from __future__ import annotations

import errno
import socket
import struct
import sys

import pytest

from cleanclose.core import kernel
from cleanclose.core.kernel import (
    COUNTERS,
    Listener,
    kernel_figures,
    parse_counters,
    parse_diag,
    parse_listeners,
)
from tests.harness.kernel import figures, linux


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
