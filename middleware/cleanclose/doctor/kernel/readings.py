"""Compare two looks at the kernel, and put the difference into sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cleanclose.doctor.kernel.figures import Figures, Owner
from cleanclose.doctor.kernel.sentences import COUNTERS
from cleanclose.doctor.kernel.servers import ServerSettings, settings_of

__all__ = [
    "FINDINGS",
    "QUEUE_FULL",
    "Counter",
    "Finding",
    "Queue",
    "Reading",
    "read",
]

QUEUE_FULL: Final = "queue_full"
"""The one finding that has no counter: connections wait at a full queue."""

FINDINGS: Final[Sequence[str]] = (
    *(name for name, meaning in COUNTERS.items() if meaning.advice is not None),
    QUEUE_FULL,
)
"""The names of all findings."""

_INSIDE: Final[Mapping[str, Sequence[str]]] = {
    "ListenDrops": ("ListenOverflows", "TCPReqQFullDrop"),
}
"""Counters that are included in another one, and have a sentence of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    """A counter over the observed time.

    Args:
        name: The kernel's name.
        total: Its value since the start of the machine, or of this network namespace.
        grown: Its growth over the observed time.
        per_second: Its growth per second.
        short: What it counts.
    """

    name: str
    total: int
    grown: int
    per_second: float
    short: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A listening socket, or several at the same address (SO_REUSEPORT).

    Args:
        address: The address.
        port: The port.
        waiting: Connections that wait to be accepted, in the fullest of its queues.
        limit: How many may wait there; None where the kernel does not tell.
        owners: The visible processes that listen at this port.
        server: The server's name, if it is a known server.
        note: A sentence about its limit, if the limit needs one.
    """

    address: str
    port: int
    waiting: int
    limit: int | None
    owners: Sequence[Owner]
    server: ServerSettings | None
    note: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that happened while the command looked.

    Args:
        name: One of `FINDINGS`.
        count: How often it happened, or how many connections wait.
        means: One sentence: its meaning.
        advice: One sentence: which setting to change, and in which direction.
        port: The port, if it is known.
    """

    name: str
    count: int
    means: str
    advice: str
    port: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The result of `cleanclose kernel`.

    Args:
        seconds: How long it looked.
        namespace: The network namespace; the counters cover all its processes together.
        counters: The counters.
        queues: The listening sockets.
        sysctls: The settings of the kernel.
        findings: What happened while it looked.
        earlier: Names of what happened before it looked: they get a sentence, but raise no alarm.
        unseen: One sentence for each thing that it could not see.
    """

    seconds: float
    namespace: str | None
    counters: Sequence[Counter]
    queues: Sequence[Queue]
    sysctls: Mapping[str, int]
    findings: Sequence[Finding]
    earlier: Sequence[str]
    unseen: Sequence[str]


def read(first: Figures, last: Figures, port: int | None = None) -> Reading:
    """Compare two looks.

    Args:
        first: The earlier one.
        last: The later one.
        port: The only port whose accept queues to show; None for all.
    """
    seconds = max(last.at - first.at, 1e-3)
    counters = [
        Counter(
            name=name,
            total=value,
            grown=value - first.counters.get(name, value),
            per_second=round((value - first.counters.get(name, value)) / seconds, 3),
            short=COUNTERS[name].short,
        )
        for name, value in last.counters.items()
    ]
    queues = _queues(first, last, port)
    grown = {each.name: each.grown for each in counters}
    totals = {each.name: each.total for each in counters}
    findings = _counter_findings(grown, last.sysctls)
    findings += [found for queue in queues if (found := _full(queue)) is not None]
    seen = {each.name for each in findings}
    return Reading(
        seconds=round(seconds, 3),
        namespace=last.namespace,
        counters=counters,
        queues=queues,
        sysctls=last.sysctls,
        findings=findings,
        earlier=[
            name
            for name, meaning in COUNTERS.items()
            if meaning.advice is not None and name not in seen and _own(name, totals) > 0
        ],
        unseen=last.unseen,
    )


def worst(findings: Sequence[Finding], fail_on: Collection[str]) -> bool:
    """Whether any finding is one of those that should make the check fail."""
    return any(each.name in fail_on for each in findings)


def _own(name: str, counts: Mapping[str, int]) -> int:
    return counts.get(name, 0) - sum(counts.get(each, 0) for each in _INSIDE.get(name, ()))


def _counter_findings(grown: Mapping[str, int], sysctls: Mapping[str, int]) -> list[Finding]:
    found: list[Finding] = []
    for name, meaning in COUNTERS.items():
        count = _own(name, grown)
        if meaning.advice is None or count <= 0:
            continue
        means = meaning.means
        if name == "ListenOverflows":
            means += _turned_away(sysctls)
        found.append(Finding(name=name, count=count, means=means, advice=meaning.advice))
    return found


def _turned_away(sysctls: Mapping[str, int]) -> str:
    abort = sysctls.get("net.ipv4.tcp_abort_on_overflow")
    if abort is None:
        return ""
    if abort:
        return " They get a reset (net.ipv4.tcp_abort_on_overflow is 1; 0 lets them try again)."
    return " They try again after a second, and then at growing intervals."


def _queues(first: Figures, last: Figures, port: int | None) -> list[Queue]:
    # A queue that was full at the first look counts as full, even if it is empty now.
    waiting: dict[tuple[str, int], int] = {}
    limits: dict[tuple[str, int], int | None] = {}
    for figures in (first, last):
        for each in figures.listeners:
            key = (each.address, each.port)
            waiting[key] = max(waiting.get(key, 0), each.queue)
            limits[key] = each.limit
    somaxconn = last.sysctls.get("net.core.somaxconn")
    found: list[Queue] = []
    for (address, number), limit in sorted(limits.items(), key=lambda each: each[0][::-1]):
        if port not in (None, number):
            continue
        owners = last.owners.get(number) or first.owners.get(number, ())
        server = next(filter(None, (settings_of(each.command) for each in owners)), None)
        found.append(
            Queue(
                address=address,
                port=number,
                waiting=waiting[address, number],
                limit=limit,
                owners=owners,
                server=server,
                note=_note(limit, somaxconn, server),
            )
        )
    return found


def _note(limit: int | None, somaxconn: int | None, server: ServerSettings | None) -> str | None:
    if limit is None or server is None or server.backlog is None:
        return None
    asked, sure = server.backlog, "backlog" not in server.from_defaults
    if limit < asked and limit == somaxconn:
        return (
            f"{server.server} asks for a backlog of {asked}, and net.core.somaxconn cuts it to "
            f"{limit}: raise net.core.somaxconn, and start the server again."
        )
    if limit != asked and sure:
        return (
            f"{server.server} was started with a backlog of {asked}, and the socket has {limit}: "
            "something else made the socket."
        )
    return None


def _full(queue: Queue) -> Finding | None:
    # The kernel turns connections away when more than the limit wait (sk_acceptq_is_full): a
    # full queue with a limit of 2 shows 3.
    if queue.limit is None or queue.waiting <= queue.limit:
        return None
    return Finding(
        name=QUEUE_FULL,
        count=queue.waiting,
        port=queue.port,
        means=(
            f"The accept queue of port {queue.port} is full: {queue.waiting} connections wait, "
            f"and its limit is {queue.limit}."
        ),
        advice=_queue_advice(queue),
    )


def _queue_advice(queue: Queue) -> str:
    name = "the server's backlog" if queue.server is None else f"{queue.server.server}'s --backlog"
    return (
        f"Raise {name} (and net.core.somaxconn, which is the upper bound), or add workers: see "
        "what holds the ones that should accept."
    )
