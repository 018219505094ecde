"""What Linux says of one connection: parsed from bytes, and asked of real sockets."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from cleanclose.core.kernel import ask_connection
from cleanclose.core.tcp_info import Connection, TcpInfo, TcpState, connection_of, parse_tcp_info


def struct_of(size: int, **fields: int) -> bytes:
    """A struct tcp_info of so many bytes."""
    data = bytearray(280)
    data[0] = fields.pop("state", TcpState.ESTABLISHED)
    places = {"unacked": (24, "=I"), "last_sent": (44, "=I"), "last_received": (52, "=I")}
    places |= {"acked": (120, "=Q"), "received": (128, "=Q")}
    for name, value in fields.items():
        at, form = places[name]
        struct.pack_into(form, data, at, value)
    return bytes(data[:size])


def test_the_whole_struct() -> None:
    data = struct_of(280, unacked=3, last_sent=1500, last_received=20, acked=2**40, received=2**33)
    assert parse_tcp_info(data) == TcpInfo(
        state=TcpState.ESTABLISHED,
        unacked=3,
        silent_for=1.5,
        unheard_for=0.02,
        acked_bytes=2**40,
        received_bytes=2**33,
    )


@pytest.mark.parametrize(
    ("size", "known"),
    [
        (1, set[str]()),
        (11, set[str]()),
        (27, set[str]()),
        (104, {"unacked", "silent_for", "unheard_for"}),
        (135, {"unacked", "silent_for", "unheard_for", "acked_bytes"}),
        (136, {"unacked", "silent_for", "unheard_for", "acked_bytes", "received_bytes"}),
    ],
)
def test_older_kernels_have_shorter_ones(size: int, known: set[str]) -> None:
    info = parse_tcp_info(struct_of(size, state=TcpState.CLOSE_WAIT))
    assert info.state is TcpState.CLOSE_WAIT
    names = {"unacked", "silent_for", "unheard_for", "acked_bytes", "received_bytes"}
    assert {name for name in names if getattr(info, name) is not None} == known


def test_a_state_that_is_none_yet() -> None:
    assert parse_tcp_info(struct_of(152, state=99)).state == 99


def test_nothing_is_no_struct() -> None:
    with pytest.raises(ValueError, match="empty"):
        parse_tcp_info(b"")


@pytest.mark.parametrize(
    ("state", "peer_closed", "is_reset"),
    [
        (TcpState.ESTABLISHED, False, False),
        (TcpState.FIN_WAIT2, False, False),
        (TcpState.CLOSE_WAIT, True, False),
        (TcpState.LAST_ACK, True, False),
        (TcpState.CLOSE, False, True),
    ],
)
def test_what_a_state_means(state: TcpState, peer_closed: bool, is_reset: bool) -> None:
    assert connection_of(state, 5) == Connection(unacked=5, peer_closed=peer_closed, reset=is_reset)


@pytest.mark.parametrize("state", [TcpState.LISTEN, TcpState.SYN_SENT])
def test_what_is_not_connected(state: TcpState) -> None:
    assert connection_of(state, 0) is None


class StandIn:
    def getsockopt(self, *arguments: int) -> object:
        return 7


@pytest.mark.parametrize(
    "thing",
    [None, object(), StandIn(), 3, b"socket"],
    ids=["none", "object", "stand-in", "number", "bytes"],
)
def test_what_is_no_socket(thing: Any) -> None:
    assert ask_connection(thing) is None


def test_a_kernel_that_refuses() -> None:
    class Sandboxed(socket.socket):
        def getsockopt(self, *arguments: Any) -> Any:
            raise OSError(errno.EPERM, "not in here")

    with Sandboxed() as sock:
        assert ask_connection(sock) is None
