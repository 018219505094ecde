"""What Linux says about one TCP connection, as plain values; this module touches no socket.

`cleanclose.core.kernel.ask_connection` gets the bytes; `cleanclose.core.deliver.linger` decides
what they mean for a response.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import Final

__all__ = [
    "Connection",
    "TcpInfo",
    "TcpState",
    "connection_of",
    "idle_before",
    "parse_tcp_info",
]


class TcpState(enum.IntEnum):
    """The states of a connection, numbered as in linux/tcp_states.h (RFC 9293, 3.3.2)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


_PEER_CLOSED: Final = frozenset(
    {TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSING, TcpState.TIME_WAIT}
)
# After a reset, unacknowledged bytes still count, and the FIN is the last of them.
_FIN_UNACKED: Final = frozenset(
    {TcpState.FIN_WAIT1, TcpState.CLOSING, TcpState.LAST_ACK, TcpState.CLOSE}
)
_NEVER_CONNECTED: Final = frozenset(
    {TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.NEW_SYN_RECV, TcpState.LISTEN}
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TcpInfo:
    """The part of ``struct tcp_info`` (linux/tcp.h) that shows what has arrived.

    A field that the kernel is too old for is None: the struct has grown at its end with almost
    every version.

    Args:
        state: The state, a `TcpState`; a number that this list does not have stays a number.
        unacked: Segments that were sent and are not acknowledged.
        silent_for: Seconds since this end has last sent something new, to the millisecond.
        unheard_for: Seconds since data has last come from the peer, to the millisecond.
        acked_bytes: Bytes that the peer has acknowledged, since Linux 4.1.
        received_bytes: Bytes that have arrived in order, since Linux 4.1.
    """

    state: int
    unacked: int | None = None
    silent_for: float | None = None
    unheard_for: float | None = None
    acked_bytes: int | None = None
    received_bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What is known about the peer's end of a connection that nobody here has closed.

    Args:
        unacked: Bytes which were handed to the kernel, and which the peer's has not acknowledged.
            It keeps its value when the connection is reset: so many never arrived.
        peer_closed: Whether the peer has closed its sending half (FIN). What it sent before may
            still be unread.
        reset: Whether the connection is gone: the peer has reset it, or did not answer for so long
            that the kernel gave up. This is known even before earlier bytes have been read.
    """

    unacked: int
    peer_closed: bool = False
    reset: bool = False


_MILLISECOND: Final = 1e-3
_U32: Final = struct.Struct("=I")
_U64: Final = struct.Struct("=Q")
# Eight bytes of flags, then four-byte and eight-byte fields, each at its natural place.
_UNACKED: Final = 24
_LAST_DATA_SENT: Final = 44
_LAST_DATA_RECEIVED: Final = 52
_BYTES_ACKED: Final = 120
_BYTES_RECEIVED: Final = 128


def parse_tcp_info(data: bytes) -> TcpInfo:
    """Read the answer of ``getsockopt(IPPROTO_TCP, TCP_INFO)`` on Linux (tcp(7)).

    Args:
        data: The struct, as long or as short as the kernel has it.

    Raises:
        ValueError: There is not even a state.
    """
    if not data:
        raise ValueError("an empty struct tcp_info")
    last_sent = _field(data, _LAST_DATA_SENT, _U32)
    last_received = _field(data, _LAST_DATA_RECEIVED, _U32)
    return TcpInfo(
        state=_state(data[0]),
        unacked=_field(data, _UNACKED, _U32),
        silent_for=None if last_sent is None else last_sent * _MILLISECOND,
        unheard_for=None if last_received is None else last_received * _MILLISECOND,
        acked_bytes=_field(data, _BYTES_ACKED, _U64),
        received_bytes=_field(data, _BYTES_RECEIVED, _U64),
    )


def connection_of(state: int, queued: int, *, shut: bool = False) -> Connection | None:
    """Combine the kernel's two answers.

    Args:
        state: The state, a `TcpState`, or another number.
        queued: The answer of ``ioctl(SIOCOUTQ)`` (tcp(7)): bytes in the send queue that are not
            acknowledged, the unsent ones included. The struct has the same in segments, which
            are gone from it after a reset.
        shut: Whether this end has shut down its sending half: the FIN counts as a byte until the
            peer has acknowledged it.

    Returns:
        The connection; None if the socket is not connected.
    """
    if state in _NEVER_CONNECTED:
        return None
    return Connection(
        unacked=queued - 1 if shut and queued and state in _FIN_UNACKED else queued,
        peer_closed=state in _PEER_CLOSED,
        reset=state == TcpState.CLOSE,
    )


def idle_before(info: TcpInfo | None, age: float) -> float | None:
    """For how many seconds a connection had been idle when a request came.

    Args:
        info: What the kernel says of the connection.
        age: Seconds since the request's start.

    Returns:
        The seconds; None if it is not known: something was sent since the request's start, the
        request is the connection's first one, or the kernel does not say.
    """
    if info is None or info.silent_for is None or not info.acked_bytes:
        return None
    idle = info.silent_for - age
    return round(idle, 3) if idle > 0 else None


def _state(number: int) -> int:
    try:
        return TcpState(number)
    except ValueError:
        return number


def _field(data: bytes, at: int, kind: struct.Struct) -> int | None:
    if len(data) < at + kind.size:
        return None
    value: int = kind.unpack_from(data, at)[0]
    return value
