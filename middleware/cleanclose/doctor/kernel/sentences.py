"""The meaning of each figure and of each of the kernel's reasons, and the setting to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["COUNTERS", "NO_REASON", "REASONS", "SYSCTLS", "Meaning", "Reason"]


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """A counter in words.

    Args:
        means: One sentence: what happened if the counter grew.
        advice: What to change, and in which direction. None for a sum of other counters, which
            makes no finding.
        short: A few words for a table.
    """

    short: str
    means: str
    advice: str | None = None


COUNTERS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "ListenOverflows": Meaning(
            "turned away, queue full",
            "Clients were turned away because an accept queue was full: the application did not "
            "accept connections as fast as they came.",
            "Raise the server's backlog together with net.core.somaxconn (the smaller one "
            "counts); if the queue stays full, add workers instead.",
        ),
        "ListenDrops": Meaning(
            "turned away, for any reason",
            "Clients were turned away by a listening socket whose queues were not full: memory "
            "was short, or there was no way back to them.",
            "Look at the machine's memory and at net.ipv4.tcp_mem; a longer queue does not help.",
        ),
        "TCPReqQFullDrop": Meaning(
            "too many half open",
            "Clients were turned away because too many connections were half open.",
            "Turn net.ipv4.tcp_syncookies on (1), or raise net.ipv4.tcp_max_syn_backlog and the "
            "server's backlog.",
        ),
        "TCPAbortOnClose": Meaning(
            "closed with data unread",
            "A program here closed connections with data in them that it had not read: the "
            "kernel resets those, and an answer still under way is lost.",
            "Let the server read the rest of the body before it closes, as cleanclose does; "
            "--trace names the program and the connection.",
        ),
        "TCPAbortOnData": Meaning(
            "data came after the close",
            "Data came in on connections that a program here had already closed, or it threw "
            "them away (SO_LINGER 0): the kernel resets those.",
            "Keep connections open for the rest of the body, as cleanclose does, raise the "
            "server's keep-alive timeout above the proxy's, and set no SO_LINGER of 0.",
        ),
        "TCPAbortOnTimeout": Meaning(
            "the other side did not answer",
            "The other side of connections stopped answering, and the kernel gave them up.",
            "Look at the network and at firewalls that forget idle connections; lower "
            "net.ipv4.tcp_keepalive_time below their limit.",
        ),
        "TCPAbortOnMemory": Meaning(
            "memory for TCP was short",
            "Connections were reset because there were too many orphans or too little memory "
            "for TCP.",
            "Raise net.ipv4.tcp_max_orphans or net.ipv4.tcp_mem.",
        ),
        "TCPAbortFailed": Meaning(
            "a reset could not be sent",
            "A reset could not be sent, so that the other side waits for a connection that is "
            "no more.",
            "Look at the machine's memory: the kernel had none for a packet.",
        ),
        "EstabResets": Meaning(
            "reset, by either side",
            "Established connections ended by a reset of this or of the other side.",
        ),
        "OutRsts": Meaning(
            "resets sent, of all kinds",
            "Segments with a reset were sent, also to ports where nobody listens.",
        ),
    }
)
"""The counters, in the order in which tables show them.

These functions move them: net/ipv4/tcp.c (``__tcp_close``, ``tcp_check_oom``), tcp_input.c
(``tcp_conn_request``, ``tcp_rcv_state_process``), tcp_ipv4.c (``tcp_v4_syn_recv_sock``) and
tcp_timer.c (``tcp_write_err``) of Linux; RFC 4022 defines the last two. Every overflow and every
TCPReqQFullDrop counts as a ListenDrop too.
"""

SYSCTLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "net.core.somaxconn": "no accept queue is longer, whatever the server asks for",
        "net.ipv4.tcp_max_syn_backlog": "connections that may be half open, for each socket",
        "net.ipv4.tcp_syncookies": "1: half open connections beyond that cost nothing",
        "net.ipv4.tcp_abort_on_overflow": "0: who is turned away tries again; 1: is reset",
    }
)
"""The kernel's settings that tables show, each with its meaning."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reason:
    """One of the kernel's reasons for a reset in words.

    Args:
        because: The continuation of the sentence "… reset this connection".
        by_caller: Whether the kernel sends it while the program that caused it is in a system
            call: then the running task is to blame. It sends all others when a packet comes in,
            whichever task is running then.
    """

    because: str
    by_caller: bool = False


REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {
        "TCP_ABORT_ON_CLOSE": Reason("because it closed it with unread data", by_caller=True),
        "TCP_ABORT_ON_DATA": Reason("because data came in after it had closed it"),
        "TCP_STATE": Reason(
            "because it threw it away: SO_LINGER 0, or a listening socket closed with "
            "connections that nobody had accepted",
            by_caller=True,
        ),
        "TCP_DISCONNECT_WITH_DATA": Reason(
            "because it disconnected it with data unsent", by_caller=True
        ),
        "NO_SOCKET": Reason("because no socket listens there, or the connection is long closed"),
        "NOT_SPECIFIED": Reason("and the kernel names no reason"),
        "TCP_INVALID_ACK_SEQUENCE": Reason("because a segment acknowledged what was never sent"),
        "TCP_RFC7323_PAWS": Reason("because a segment was older than its timestamp may be"),
        "TCP_TOO_OLD_ACK": Reason("because an acknowledgement was too old"),
        "TCP_ACK_UNSENT_DATA": Reason("because a segment acknowledged what was never sent"),
        "TCP_FLAGS": Reason("because a segment had flags that do not go together"),
        "TCP_OLD_ACK": Reason("because an acknowledgement was old"),
        "TCP_TIMEWAIT_SOCKET": Reason("because the connection had just ended (TIME_WAIT)"),
        "INVALID_SYN": Reason("because a new connection began in the middle of this one"),
        "TCP_ABORT_ON_LINGER": Reason("because the other side did not close in time (LINGER2)"),
        "TCP_ABORT_ON_MEMORY": Reason("because memory for TCP was short, or orphans too many"),
        "TCP_KEEPALIVE_TIMEOUT": Reason("because keep-alive probes went unanswered"),
    }
)
"""The kernel's own names (enum ``sk_rst_reason`` of include/net/rstreason.h, since Linux 6.10)."""

NO_REASON: Final = Reason("and this kernel does not say why (Linux 6.10 and later do)")
