"""Report each reset as the kernel sends or receives it: two tracepoints, in an instance of our own.

tracefs gives every instance its own buffer and its own switches (Documentation/trace/ftrace.rst,
"Instances"), so that nobody else's tracing changes, and nothing stays on after we remove ours. This
needs neither BPF nor a compiler, only write access to tracefs, which root usually has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import ipaddress
import os
import re
import select
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Direction", "Reset", "Tracer", "Untraceable", "parse_line"]

_SEND: Final = "tcp_send_reset"
_RECEIVE: Final = "tcp_receive_reset"
_PREFIX: Final = "cleanclose-"
_USUAL: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_BUFFER_KIB: Final = 1024
"""KiB for each processor: some thousand resets between two looks."""
_AT_ONCE: Final = 1 << 20
"""Bytes of one `Tracer.read`. A flood (of SYNs to a closed port, say) may bring them faster than
we read them."""

_LINE: Final = re.compile(
    r"\s*(?P<task>.*)-(?P<tid>\d+)\s+\[(?P<cpu>\d+)\]\s+\S+\s+(?P<time>\d+\.\d+): "
    rf"(?P<event>{_SEND}|{_RECEIVE}): (?P<fields>.*)"
)
_LOST: Final = re.compile(r"\[LOST (\d+) EVENTS\]")
_FIELD: Final = re.compile(r"(\w+)=(\S+)")


class Untraceable(Exception):
    """Tracing is impossible here; the message says in one sentence why, and what helps."""


class Direction(enum.StrEnum):
    """Whether this machine sends a reset, or receives it."""

    SENT = "sent"
    RECEIVED = "received"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reset:
    """A reset that this machine sent or received, in any of its network namespaces.

    Args:
        direction: Whether it was sent or received.
        at: Seconds of `time.monotonic`.
        local: This machine's end of the connection, ``host:port`` (``[host]:port``).
        remote: The other end.
        state: The state of the connection, without ``TCP_``; None for a received one, or where
            there is no socket.
        reason: The kernel's own name for its reason; None for a received one, and before Linux
            6.10.
        task: The name of the running task. See `cleanclose.doctor.kernel.sentences.Reason`.
        tid: Its number in the machine's first PID namespace.
    """

    direction: Direction
    at: float
    local: str
    remote: str
    state: str | None
    reason: str | None
    task: str
    tid: int


class Tracer:
    """Reports each reset. A context manager, which removes what it made.

    Args:
        tracefs: The place where tracefs is mounted; None to look for it.

    Raises:
        Untraceable: On entering: this is not Linux, or tracefs is not mounted, not accessible, or
            lacks the tracepoints.
    """

    def __init__(self, tracefs: Path | None = None) -> None:
        self._tracefs = tracefs
        self._instance: Path | None = None
        self._instances = -1
        self._pipe = -1
        self._rest = b""
        self.lost: int = 0
        """The number of resets that were lost because they came faster than we read them."""

    def __enter__(self) -> Self:
        tracefs = self._tracefs or find_tracefs()
        try:
            instances = tracefs / "instances"
            _remove_left_behind(instances)
            instance = instances / f"{_PREFIX}{os.getpid()}-{id(self):x}"
            # Set before the instance exists, because Ctrl-C may come in between. The open folder
            # lets us remove the instance even if somebody has unmounted tracefs meanwhile.
            self._instances = os.open(instances, os.O_RDONLY | os.O_DIRECTORY)
            self._instance = instance
            instance.mkdir()
            self._switch_on(instance)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise Untraceable(_why(error, tracefs)) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the instance, and with it all that it switched on. A second call does nothing."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)
        instance, self._instance = self._instance, None
        instances, self._instances = self._instances, -1
        if instances < 0:
            return
        try:
            if instance is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(instance.name, dir_fd=instances)
        finally:
            os.close(instances)

    def read(self, seconds: float = 0.0) -> list[Reset]:
        """Return the resets since the last call, or the first thousands of them in a flood.

        Args:
            seconds: The longest time to wait for the first one.
        """
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        poll.poll(seconds * 1000)
        seen = bytearray(self._rest)
        with contextlib.suppress(BlockingIOError):
            while len(seen) < _AT_ONCE and (piece := os.read(self._pipe, 65536)):
                seen += piece
        *lines, rest = seen.split(b"\n")
        self._rest = bytes(rest)
        return sorted(self._parse(lines), key=lambda reset: reset.at)

    def drain(self, quiet: float = 0.3, longest: float = 1.0) -> list[Reset]:
        """Return the resets, until none comes for a while.

        Args:
            quiet: Seconds.
            longest: Seconds of resets at most: on a busy machine one always comes. What is older
                and waits to be read comes too, however long that takes.
        """
        found: list[Reset] = []
        end = time.monotonic() + longest
        while more := self.read(quiet):
            found += more
            if more[-1].at > end:
                break
        return found

    def _switch_on(self, instance: Path) -> None:
        # The clock of time.monotonic(); the clock "local" differs between processors.
        _put(instance / "trace_clock", "mono")
        with contextlib.suppress(OSError):
            # Since Linux 5.0. Without it poll() waits for a buffer that is half full, which is
            # harmless, because we call read() again anyway.
            _put(instance / "buffer_percent", "0")
        with contextlib.suppress(OSError):
            _put(instance / "buffer_size_kb", str(_BUFFER_KIB))
        self._pipe = os.open(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        for event in (_SEND, _RECEIVE):
            _put(instance / "events" / "tcp" / event / "enable", "1")

    def _parse(self, lines: Sequence[bytearray]) -> Iterator[Reset]:
        for line in lines:
            text = line.decode("utf-8", "replace")
            if lost := _LOST.search(text):
                self.lost += int(lost[1])
            elif (reset := parse_line(text)) is not None:
                yield reset


def find_tracefs() -> Path:
    """Find where tracefs is mounted.

    Raises:
        Untraceable: It is not mounted anywhere.
    """
    if sys.platform != "linux":
        raise Untraceable(f"Resets are traced by Linux, and this is {sys.platform}.")
    mounted: list[Path] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
            _, mount_point, kind, *_ = line.split(" ")
            if kind == "tracefs":
                # A space is written as \040 there (proc_pid_mounts(5)).
                mounted.append(
                    Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount_point))
                )
    # The usual places are mounted automatically when somebody looks.
    for folder in (*_USUAL, *mounted):
        with contextlib.suppress(OSError):
            if (folder / "instances").is_dir():
                return folder
    if os.geteuid() != 0:
        raise Untraceable("Tracing needs root: run it with sudo.")
    raise Untraceable(
        "tracefs is not mounted here: mount -t tracefs tracefs /sys/kernel/tracing (in a "
        "container: on the host)."
    )


def parse_line(line: str) -> Reset | None:
    """Read a line of ``trace_pipe``.

    Args:
        line: The line. Kernels since 4.16 have these tracepoints, with ever more fields.

    Returns:
        The reset; None if the line is about something else.
    """
    match = _LINE.fullmatch(line.rstrip())
    if match is None:
        return None
    fields = dict(_FIELD.findall(match["fields"]))
    ends = _ends(fields)
    if ends is None:
        return None
    sent = match["event"] == _SEND
    state = fields.get("state", "UNKNOWN").removeprefix("TCP_")
    return Reset(
        direction=Direction.SENT if sent else Direction.RECEIVED,
        at=float(match["time"]),
        local=ends[0],
        remote=ends[1],
        state=None if state == "UNKNOWN" else state,
        reason=fields.get("reason"),
        task=match["task"],
        tid=int(match["tid"]),
    )


def _ends(fields: dict[str, str]) -> tuple[str, str] | None:
    try:
        if "src" in fields:
            return _end(*_split(fields["src"])), _end(*_split(fields["dest"]))
        # The IPv4 fields of an IPv6 socket hold what happened to be there; the IPv6 fields of an
        # IPv4 socket hold the mapped address.
        return (
            _end(fields["saddrv6"], fields["sport"]),
            _end(fields["daddrv6"], fields["dport"]),
        )
    except (KeyError, ValueError):
        return None


def _split(end: str) -> tuple[str, str]:
    host, _, port = end.rpartition(":")
    return host.strip("[]"), port


def _end(host: str, port: str) -> str:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"[{address}]:{int(port)}"
        address = address.ipv4_mapped
    return f"{address}:{int(port)}"


def _put(path: Path, text: str) -> None:
    # Never create a file: what is missing, this kernel lacks.
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _remove_left_behind(instances: Path) -> None:
    """Remove the instances that killed runs (SIGKILL) left; one in use cannot be removed."""
    for instance in instances.glob(f"{_PREFIX}*"):
        pid = instance.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                instance.rmdir()


def _why(error: OSError, tracefs: Path) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"Tracing needs root, and to be allowed to write to {tracefs}: run it with sudo, or "
            "on the host instead of in a container."
        )
    if error.errno == errno.EROFS:
        return f"{tracefs} is mounted read-only, as in most containers: run it on the host."
    if error.errno == errno.ENOENT:
        return f"This kernel has no tracepoints of TCP in {tracefs}: Linux 4.16 and later do."
    return f"Tracing in {tracefs} failed: {error.strerror}."


def wall_clock(at: float) -> float:
    """Turn seconds of `time.monotonic` into seconds since the epoch."""
    return time.time() - time.monotonic() + at
