"""Say whose a traced reset was: find the port's process, the sentence, and our own event."""

from __future__ import annotations

import dataclasses
import enum
import json
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, cast

from cleanclose.core import ClientDeparted, ResponseUndelivered, TruncatedUpload, UploadDrained
from cleanclose.doctor.kernel.figures import Owner, listening_owners, owner_of
from cleanclose.doctor.kernel.sentences import NO_REASON, REASONS
from cleanclose.doctor.kernel.servers import settings_of
from cleanclose.doctor.kernel.tracing import Direction, Reset, wall_clock

__all__ = ["EventLog", "NamedReset", "Namer", "Role", "label"]

_EVENTS: Final = frozenset(
    each.name for each in (ClientDeparted, ResponseUndelivered, TruncatedUpload, UploadDrained)
)
_FRESH: Final = 2.0
"""Seconds after which the list of listening processes is read again."""
_REST: Final = 4.0
"""Times as long as the last look took we do not look again: each process is a part of its cost."""
_REMEMBERED: Final = 10_000
_TOGETHER: Final = 1.5
"""The most seconds between a reset and the event about it."""


class Role(enum.StrEnum):
    """The role of this machine's end of the connection."""

    SERVER = "server"
    """A process here listens at its port."""
    CLIENT = "client"
    """A process here listens at the other end's port: both are on this machine."""
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NamedReset:
    """A reset, and whose it was.

    Args:
        time: The time, in UTC.
        direction: Whether it was sent or received.
        local: This machine's end.
        remote: The other end.
        state: As `Reset.state`.
        reason: As `Reset.reason`.
        role: The role of this machine's end.
        owner: Its process, if /proc shows it.
        sentence: Who reset which connection, and why.
        event: The event of cleanclose about the same client at that time, if its log is read.
    """

    time: datetime
    direction: Direction
    local: str
    remote: str
    state: str | None
    reason: str | None
    role: Role
    owner: Owner | None
    sentence: str
    event: dict[str, Any] | None


class EventLog:
    """The events that cleanclose writes to a file from now on, one JSON object on each line.

    Args:
        path: The file, which a server writes to.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open(encoding="utf-8", errors="replace")
        self._file.seek(0, 2)
        self._rest = ""
        self._recent: deque[tuple[float, str, dict[str, Any]]] = deque(maxlen=_REMEMBERED)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> None:
        """Read the events that have come since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        now = time.monotonic()
        self._recent.extend((now, *event) for line in lines if (event := _event(line)) is not None)

    def take(self, remote: str, at: float) -> dict[str, Any] | None:
        """Find the event that belongs to a reset. Each event belongs to one reset.

        An event has its client's address without the port, so the time must decide between
        several connections of one client.

        Args:
            remote: The client's end, ``host:port``.
            at: The reset's time, in seconds of `time.monotonic`.
        """
        host = remote.rpartition(":")[0].strip("[]")
        for entry in self._recent:
            read_at, client, event = entry
            if client == host and abs(read_at - at) < _TOGETHER:
                self._recent.remove(entry)
                return event
        return None


class Namer:
    """Names the owners of traced resets.

    Args:
        events: The log of our own events, if there is one.
    """

    def __init__(self, events: EventLog | None = None) -> None:
        self._events = events
        self._owners: dict[int, list[Owner]] = {}
        self._next_look = float("-inf")
        self.refresh()

    def refresh(self) -> None:
        """Ask again who listens."""
        began = time.monotonic()
        if began >= self._next_look:
            # Keep those that no longer listen: a reset may be the last act of a process.
            self._owners |= listening_owners()[0]
            ended = time.monotonic()
            self._next_look = ended + max(_FRESH, _REST * (ended - began))

    def name(self, reset: Reset) -> NamedReset:
        """Say whose a reset was."""
        local, remote = (_port(reset.local), _port(reset.remote))
        if local not in self._owners and remote not in self._owners:
            self.refresh()
        role = Role.UNKNOWN
        if local in self._owners:
            role = Role.SERVER
        elif remote in self._owners:
            role = Role.CLIENT
        owner = _running(reset) or next(iter(self._owners.get(local, ())), None)
        return NamedReset(
            time=datetime.fromtimestamp(wall_clock(reset.at), UTC),
            direction=reset.direction,
            local=reset.local,
            remote=reset.remote,
            state=reset.state,
            reason=reset.reason,
            role=role,
            owner=owner,
            sentence=_sentence(reset, role, owner),
            event=None if self._events is None else self._events.take(reset.remote, reset.at),
        )


def _running(reset: Reset) -> Owner | None:
    """Name the task that was in the system call, where the reason puts the blame on it."""
    reason = REASONS.get(reset.reason or "")
    if reset.direction is Direction.RECEIVED or reason is None or not reason.by_caller:
        return None
    owner = owner_of(reset.tid)
    # In a container, the machine's number of a task is unknown, or belongs to another task.
    if owner is not None and owner.name == reset.task:
        return owner
    return Owner(pid=reset.tid, name=reset.task)


def _sentence(reset: Reset, role: Role, owner: Owner | None) -> str:
    who = "this machine" if owner is None else label(owner)
    if role is Role.SERVER:
        who = f"your server {who}" if owner is not None else "your server"
    if reset.direction is Direction.RECEIVED:
        whose = {Role.SERVER: "your server's", Role.CLIENT: "its own"}.get(role, "this machine's")
        if role is Role.CLIENT:
            return f"the server at {reset.remote} reset {reset.local}'s connection to it"
        return f"the other side {reset.remote} reset its connection to {whose} {reset.local}"
    because = NO_REASON if reset.reason is None else REASONS.get(reset.reason)
    why = f"for a reason that is new here: {reset.reason}" if because is None else because.because
    return f"{who} reset this connection, {why}"


def label(owner: Owner) -> str:
    """Make a process's label: its number, and the server's name if it is a known server."""
    server = settings_of(owner.command)
    return f"{owner.name if server is None else server.server} ({owner.pid})"


def _port(end: str) -> int:
    return int(end.rpartition(":")[2])


def _event(line: str) -> tuple[str, dict[str, Any]] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    event = cast("dict[str, Any]", found)
    client, name = event.get("client"), event.get("event")
    if not isinstance(client, str) or name not in _EVENTS:
        return None
    return client, event
