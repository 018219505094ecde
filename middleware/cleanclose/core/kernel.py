"""What the kernel knows, on Linux: about one connection, and about all that were cut or refused.

This is the only module of the core that asks something outside Python: files below ``/proc`` and
two kinds of sockets. It decides nothing: other modules of the core interpret the answers. It needs
no privilege.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from cleanclose.core.events import Mechanism
from cleanclose.core.tcp_info import Connection, TcpInfo, connection_of, parse_tcp_info

if sys.platform == "linux":
    # Windows has neither.
    import fcntl
    import termios

__all__ = [
    "COUNTERS",
    "TCP_ESTABLISHED",
    "TCP_STATE",
    "TCP_STATE_MASK",
    "KernelFigures",
    "Listener",
    "ask_connection",
    "descriptor_of",
    "how_left",
    "is_established",
    "is_reset",
    "kernel_figures",
    "taken_from",
    "tcp_info",
]

_TCP_INFO_SIZE: Final = 136
"""Bytes of the struct that `cleanclose.core.tcp_info` reads."""

COUNTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ListenOverflows": "connections turned away because an accept queue was full",
        "ListenDrops": "connections turned away by a listening socket for any reason",
        "TCPAbortOnClose": "connections closed with data unread, which resets them",
        "TCPAbortOnData": "connections reset because data came in after they were closed",
        "TCPAbortOnTimeout": "connections given up because the peer did not acknowledge",
        "EstabResets": "established connections that ended by a reset, of either side",
        "OutRsts": "segments with a reset that were sent",
    }
)
"""The counters that are read, each with its meaning. They only grow.

The first five are of ``TcpExt`` in ``/proc/net/netstat`` (``snmp4_net_list`` in net/ipv4/proc.c),
the others of ``Tcp`` in ``/proc/net/snmp`` (RFC 4022: tcpEstabResets, tcpOutRsts). The kernel
keeps them for a whole network namespace, which is a container's or the machine's.
"""

_COUNTER_FILES: Final = ("/proc/net/netstat", "/proc/net/snmp")
_LISTENER_FILES: Final = ("/proc/net/tcp", "/proc/net/tcp6")

TCP_STATE: Final = (socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", -1))
"""The socket option whose first byte is the state. Only Linux has it."""
TCP_STATE_MASK: Final = (0xFF if sys.byteorder == "little" else 0xFF << 24) * (
    sys.platform == "linux"
)
TCP_ESTABLISHED: Final = 1 if sys.byteorder == "little" else 1 << 24
"""TCP_ESTABLISHED of linux/tcp_states.h, where it stands in the first four bytes."""

_NOTHING_QUEUED: Final = bytes(4)
"""Room for an int, which the kernel writes into a copy."""

_LISTEN: Final = 10
"""TCP_LISTEN of linux/tcp_states.h."""

_PEER_CLOSED: Final[int] = getattr(select, "POLLRDHUP", 0)
"""The peer has ended its sending. Elsewhere than on Linux only an end on both sides shows."""

_SOCK_DIAG: Final = 4
"""NETLINK_SOCK_DIAG of linux/netlink.h."""
_BY_FAMILY: Final = 20
"""SOCK_DIAG_BY_FAMILY of linux/sock_diag.h."""
_REQUEST_DUMP: Final = 0x301
"""NLM_F_REQUEST | NLM_F_DUMP of linux/netlink.h."""
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_QUERY: Final = struct.Struct("=BBBxI48x")
"""struct inet_diag_req_v2: family, protocol, extensions, states; any socket."""
_ANSWER: Final = struct.Struct("=BBxx2s2x16s16x12xIII4xI")
"""struct inet_diag_msg: family, state, source port and address; expires, rqueue, wqueue, inode."""
_PATIENCE: Final = 1.0
"""Seconds. The kernel answers at once, or not at all."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """One listening TCP socket, and the connections that wait at it.

    Several sockets can listen at the same address and port (SO_REUSEPORT): one each.

    Args:
        address: The address it listens at, as text.
        port: The port.
        queue: How many connections wait to be accepted.
        limit: How many may wait: what ``listen()`` was called with, cut to
            ``net.core.somaxconn``. The kernel turns a connection away when ``queue`` is above
            it (``sk_acceptq_is_full``). None where it does not tell.
    """

    address: str
    port: int
    queue: int
    limit: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KernelFigures:
    """What the kernel knows about all processes in this network namespace.

    Args:
        counters: The counters by their names in `COUNTERS`. Counters that an older kernel does not
            have are missing.
        listeners: The listening TCP sockets, in the order of their ports.
    """

    counters: Mapping[str, int]
    listeners: Sequence[Listener]


def ask_connection(sock: Any, *, shut: bool = False) -> Connection | None:
    """Ask the kernel about the connection behind a socket. It reads, sends and changes nothing.

    Two system calls, some microseconds.

    Args:
        sock: A connected TCP socket that nobody here has closed, or an object that stands in for
            one: asyncio's and uvloop's, gevent's, one of `ssl`.
        shut: Whether its sending half has been shut down here.

    Returns:
        The connection; None if the kernel does not say: on systems other than Linux, for a socket
        of another kind, a closed socket, something that is no socket, or None.
    """
    if sys.platform != "linux" or sock is None:
        return None
    try:
        # The struct's first byte.
        (state,) = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        # TIOCOUTQ is what linux/sockios.h calls SIOCOUTQ.
        queued: bytes = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _NOTHING_QUEUED)
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return connection_of(state, int.from_bytes(queued, sys.byteorder), shut=shut)


def how_left(sock: Any) -> Mechanism | None:
    """How a connection's peer has left; None if it has not, or if the kernel does not say.

    This reads nothing, and takes no error from the socket. A peer that has only ended its sending
    counts as gone.

    Args:
        sock: A connected socket, or None.
    """
    if sock is None or not hasattr(select, "poll"):
        return None
    asking = select.poll()
    with contextlib.suppress(OSError, ValueError):
        asking.register(sock.fileno(), _PEER_CLOSED)
        for _, state in asking.poll(0):
            if state & select.POLLERR:
                return Mechanism.RESET
            if state & (select.POLLHUP | _PEER_CLOSED):
                return Mechanism.EOF
    return None


def tcp_info(sock: Any) -> TcpInfo | None:
    """Ask the kernel for its ``struct tcp_info`` of a socket.

    Args:
        sock: What `ask_connection` takes.

    Returns:
        What it knows; None if it does not say.
    """
    if sys.platform != "linux" or sock is None:
        return None
    try:
        data: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        return parse_tcp_info(data)
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def taken_from(sock: Any) -> int | None:
    """How many bytes have come over a connection and been taken from the kernel.

    Args:
        sock: What `ask_connection` takes.

    Returns:
        The number, since the connection began; None if the kernel does not say.
    """
    info = tcp_info(sock)
    if info is None or info.received_bytes is None:
        return None
    try:
        unread: bytes = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return info.received_bytes - int.from_bytes(unread, sys.byteorder)


def is_reset(sock: Any) -> bool:
    """Whether the kernel says that a connection has been reset by its peer.

    Args:
        sock: As of `ask_connection`; None if there is none.
    """
    connection = ask_connection(sock)
    return connection is not None and connection.reset


def is_established(sock: Any) -> bool:
    """Whether neither side has closed or reset a connection yet, as far as the kernel knows.

    It costs one system call, and no exception if nothing has happened.

    Args:
        sock: A socket. Anything other than a TCP socket on Linux gives False.
    """
    try:
        state: int = sock.getsockopt(*TCP_STATE)
    except (OSError, AttributeError):
        return False
    return state & TCP_STATE_MASK == TCP_ESTABLISHED


def descriptor_of(sock: Any) -> int | None:
    """The number of a socket's descriptor; None if it has none (any more).

    Args:
        sock: A socket, or what stands in for one: asyncio's and uvloop's, gevent's, one of `ssl`.
    """
    try:
        number: object = sock.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return number if isinstance(number, int) and number >= 0 else None


def kernel_figures() -> KernelFigures | None:
    """Ask the kernel for its figures. It takes less than a millisecond, and needs no root.

    Returns:
        The figures; None where there are none: on another system than Linux, or where ``/proc``
        is hidden.
    """
    if sys.platform != "linux":
        return None
    counters: dict[str, int] = {}
    for path in _COUNTER_FILES:
        try:
            with open(path, encoding="ascii") as file:
                counters |= parse_counters(file)
        except (OSError, ValueError):
            # The file is hidden, or no longer has its format of thirty years: the other file may
            # help.
            continue
    if not counters:
        return None
    listeners = sorted(_listeners(), key=lambda each: (each.port, each.address))
    return KernelFigures(counters=MappingProxyType(counters), listeners=tuple(listeners))


def parse_counters(lines: Iterable[str]) -> dict[str, int]:
    """The counters of `COUNTERS` in a file like ``/proc/net/netstat``.

    Args:
        lines: Its lines: pairs of one with names and one with values, both after a prefix.

    Raises:
        ValueError: It is no such file.
    """
    found: dict[str, int] = {}
    pairs = iter(lines)
    for names in pairs:
        values = next(pairs, "")
        found.update(
            (name, int(value))
            for name, value in zip(names.split(), values.split(), strict=True)
            if name in COUNTERS
        )
    return found


def _listeners() -> list[Listener]:
    try:
        return [
            listener
            for family in (socket.AF_INET, socket.AF_INET6)
            for listener in _ask_sock_diag(family)
        ]
    except (AttributeError, OSError, ValueError):
        # A sandbox without netlink, or a kernel without tcp_diag: the file has everything but the
        # limits.
        pass
    found: list[Listener] = []
    for path in _LISTENER_FILES:
        try:
            with open(path, encoding="ascii") as file:
                found += parse_listeners(file)
        except (OSError, ValueError):
            continue
    return found


def _ask_sock_diag(family: int) -> Iterator[Listener]:
    """Ask for one address family's listening sockets (sock_diag(7))."""
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
    header = _HEADER.pack(_HEADER.size + len(query), _BY_FAMILY, _REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        netlink.settimeout(_PATIENCE)
        netlink.send(header + query)
        more = True
        while more:
            listeners, more = parse_diag(netlink.recv(65536))
            yield from listeners


def parse_diag(data: bytes) -> tuple[list[Listener], bool]:
    """The listening sockets in a piece of sock_diag's answer.

    Args:
        data: The result of one read of the netlink socket.

    Returns:
        The sockets, and whether there is more to be read.

    Raises:
        OSError: The kernel refused the question.
        ValueError: It is no such answer.
    """
    found: list[Listener] = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise ValueError(f"a netlink message of {length} bytes in {len(data) - at}")
        if kind == _NLMSG_DONE:
            return found, False
        body = at + _HEADER.size
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, body)
            raise OSError(-code, "sock_diag")
        if kind == _BY_FAMILY:
            if length < _HEADER.size + _ANSWER.size:
                raise ValueError(f"a listening socket in {length} bytes")
            family, state, port, address, _, queue, limit, _ = _ANSWER.unpack_from(data, body)
            if state == _LISTEN:
                found.append(
                    Listener(
                        address=_text(family, address),
                        port=int.from_bytes(port, "big"),
                        queue=queue,
                        limit=limit,
                    )
                )
        at += length + -length % 4
    return found, True


def parse_listeners(lines: Iterable[str]) -> Iterator[Listener]:
    """The listening sockets in a file like ``/proc/net/tcp``, without their limits.

    Args:
        lines: Its lines. Listening sockets come first, and there may be many others.

    Raises:
        ValueError: It is no such file.
    """
    for line in lines:
        fields = line.split()
        if not fields or not fields[0].rstrip(":").isdigit():
            continue
        if int(fields[3], 16) != _LISTEN:
            return
        address, port = fields[1].split(":")
        words = bytes.fromhex(address)
        if sys.byteorder == "little":
            # Each group of four bytes is printed as a number of this machine.
            words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
        family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
        yield Listener(
            address=_text(family, words),
            port=int(port, 16),
            queue=int(fields[4].split(":")[1], 16),
            limit=None,
        )


def _text(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address[:4] if family == socket.AF_INET else address)
