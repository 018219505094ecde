"""The same bytes to a server bare and wrapped: what is run, what is answered, and what is left.

Theory of operation. `tests.fuzz.scripts` makes conversations. One asyncio client has many of them
at once with the bare server and with the wrapped one, and waits for what ends each of them: the
server's close, or the answer to the last request. Where neither can come (the client has sent half
a request and waits), it leaves after a short silence.

Nothing may be run that the bare server does not run, but for requests that the client has really
sent: behind an early response the middleware keeps a connection that a bare server may close. The
n-th answer is the n-th request's, with the status and what the application has read as bare. The
wrapped server ends each connection that the bare one ends, and makes no mistake of framing that the
bare one does not make. In the end no socket is left, and nothing is logged that is not logged bare.

Servers race with their clients, so both may differ by chance: whatever differs is played again,
alone, until the bare server does the same, or often enough to be sure that it never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cleanclose.testing import WireReader
from tests.fuzz.scripts import Script, script_of, without_trailers
from tests.harness.apps import fuzzed
from tests.harness.asking import get_json
from tests.harness.processes import ServerProcess, process_tree
from tests.harness.stacks import Stack

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

__all__ = ["Found", "fuzz", "fuzzed_stack"]

_BATCH: Final = 500
_PARTS: Final = 8
"""Into which a batch is divided that a server does not survive, until it is one conversation."""
_SILENCE: Final = 0.15
"""Seconds without a byte after which a client gives up that has sent half a request."""
_LONG_SILENCE: Final = 0.8
"""The same when it is played again: longer than the middleware waits for a small rest of a body."""
_PATIENCE: Final = 8.0
"""Seconds for anything that has to come: more than any server's own time-out."""
_DEAD: Final = 20.0
"""Seconds after which a server that answers nobody counts as dead."""
_GONE: Final = 2.0
"""Seconds after which one counts as dead on whose port nobody listens."""
_REPLAYS: Final = 6
"""Times that a bare server may do the same, before it counts as one that never does."""
_TIMES_LOST: Final = 4
"""Times that an answer must be lost of these."""
_MOST_REPLAYED: Final = 40
"""Differences that are played again, of those of one batch."""
_SETTINGS: Final[SettingsOptions] = {
    "idle_seconds": 0.3,
    "hold_seconds": 0.05,
    "max_seconds": 1.0,
}
_LOUD: Final = re.compile(r"ERROR|CRITICAL|WARNING|^[\w.]*(Error|Exception)\b")
_DATE: Final = re.compile(rb"Date: [^\r]*")
_LOST: Final = re.compile(r"^(ConnectionResetError|BrokenPipeError|ConnectionAbortedError): .*")
"""Whoever has read before finds another of them when it writes: a reset is reported once."""
_VARIES: Final = re.compile(r"\w+ (http:/)?/\S*|0x[0-9a-f]+|'[^']*'|\"[^\"]*\"|\d+")


@dataclass
class Found:
    """What came of the conversations with one server."""

    run: int = 0
    """Requests that the wrapped server has run."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list[str])
    once: Counter[str] = field(default_factory=Counter[str])
    """Kinds of differences that did not come again when they were played again."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    name: str | None
    status: int
    read: str | None
    body: bytes
    keeps_alive: bool


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What a client has got of a server."""

    answers: tuple[_Answer, ...] = ()
    faults: frozenset[str] = frozenset()
    ended: Literal["fin", "reset", "answered", "silence", "hang", "left", "refused"] = "left"


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a server has made of one script."""

    said: _Said
    run: tuple[str, ...]


def fuzzed_stack(row: Stack) -> Stack:
    """A server with the application that says what it was called for."""
    command = tuple(
        argument.replace("raw_asgi:app", "fuzzed:app")
        .replace("raw_wsgi:app", "fuzzed:wsgi_app")
        .replace(".tornado_app", ".fuzzed")
        for argument in row.command
    )
    return replace(row, command=command, env={**row.env, "TEST_APP": "fuzzed_wsgi"})


def _at_once(stack: Stack) -> int:
    if stack.interface != "wsgi" or "gevent" in stack.name or "eventlet" in stack.name:
        return 64
    # As many as threads, or one of them and one in the backlog.
    return 6 if stack.concurrent else 2


class _Client(asyncio.Protocol):
    """One end of a conversation."""

    def __init__(self, script: Script) -> None:
        self.wire = WireReader()
        for request in script.requests:
            self.wire.expect(request.method, continue_expected=request.expects)
        for _ in range(8):
            self.wire.expect()
        self.ended: Literal["fin", "reset"] | None = None
        self.moved = asyncio.Event()
        self._wanted = len(script.requests) if script.complete == len(script.requests) else 1 << 30

    @property
    def is_answered(self) -> bool:
        return len(self.wire.responses) >= self._wanted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.wire.feed(data)
        self.moved.set()

    def eof_received(self) -> bool:
        self.ended = "fin"
        self.moved.set()
        # To close is the client's.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or ("fin" if exc is None else "reset")
        self.moved.set()

    async def wait(self, patience: float) -> Literal["fin", "reset", "answered", "silence"]:
        """Wait for the end, whatever that is."""
        while True:
            if self.is_answered:
                return "answered"
            if self.ended is not None:
                return self.ended
            self.moved.clear()
            try:
                async with asyncio.timeout(patience):
                    await self.moved.wait()
            except TimeoutError:
                return "silence"


async def _converse(port: int, script: Script, silence: float) -> _Said:
    """Say it; what the server has said."""
    loop = asyncio.get_running_loop()
    try:
        transport, client = await loop.create_connection(lambda: _Client(script), "127.0.0.1", port)
    except OSError:
        return _Said(ended="refused")
    try:
        before = 0
        for cut in (*script.cuts, len(script.data)):
            transport.write(script.data[before:cut])
            before = cut
            # Long enough for a loop to read it as a piece of its own, most of the time.
            await asyncio.sleep(0.001)
        if script.ending == "close":
            return _Said()
        if script.ending == "reset":
            sock: socket.socket = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            return _Said()
        if script.ending == "half" and not transport.is_closing():
            with contextlib.suppress(OSError):
                transport.write_eof()
        stays = script.ending == "stay"
        ended = await client.wait(silence if stays else _PATIENCE)
        client.wire.end(ended if ended in ("fin", "reset") else "timeout")
        return _said(
            client.wire,
            "hang" if ended == "silence" and not stays else ended,
            whole=script.complete == len(script.requests),
        )
    finally:
        transport.close()


def _said(wire: WireReader, ended: object, *, whole: bool) -> _Said:
    transcript = wire.transcript()
    faults = {fault.name for fault in transcript.faults}
    if ended not in ("fin", "reset") or not whole:
        # The client has left, in the middle of something maybe, or has cut off its own request.
        faults = {each for each in faults if not each.startswith(("TRUNCATED", "UNTERMINATED"))}
    return _Said(
        answers=tuple(
            _Answer(
                name=each.header(fuzzed.NAME),
                status=each.status,
                read=each.header(fuzzed.READ_HEADER),
                # Of a body that ends with its connection, the next answer is a part.
                body=_DATE.sub(b"", each.body),
                keeps_alive=each.keeps_alive,
            )
            for each in wire.responses
        ),
        faults=frozenset(faults),
        ended=ended,  # type: ignore[arg-type]
    )


class _Side:
    """One server, bare or wrapped, and what it has run so far."""

    def __init__(self, stack: Stack, *, wrapped: bool) -> None:
        self.process = stack.process(wrapped=wrapped, settings=_SETTINGS if wrapped else None)
        self.at_once = _at_once(stack)
        self.deaths = 0

    async def play(
        self, scripts: Sequence[Script], silence: float = _SILENCE
    ) -> list[_Outcome] | None:
        """Have these conversations; None if the server has died of them."""
        places = asyncio.Semaphore(self.at_once)

        async def one(script: Script) -> _Said:
            async with places:
                return await _converse(self.process.port, script, silence)

        said = await asyncio.gather(*map(one, scripts))
        names = await asyncio.to_thread(_executed, self.process)
        if names is None:
            self.deaths += 1
            await asyncio.to_thread(self._start_again)
            return None
        run: dict[str, list[str]] = {}
        for name in names:
            run.setdefault(_script_name(name), []).append(name)
        return [
            _Outcome(said=each, run=tuple(run.get(script.name, ())))
            for script, each in zip(scripts, said, strict=True)
        ]

    def _start_again(self) -> None:
        self.process.stop()
        self.process.start()

    def sockets(self) -> int:
        """How many sockets the server has."""
        found = 0
        for pid in process_tree(self.process.pid):
            with contextlib.suppress(OSError):
                for entry in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        found += os.readlink(entry).startswith("socket:")
        return found

    def loud(self) -> Counter[str]:
        """The lines of its log that somebody would read, but for events, without what differs."""
        lines = self.process.log_text().splitlines()
        return Counter(
            _VARIES.sub("#", _LOST.sub("the connection is lost", line))[:160]
            for line in lines
            if _LOUD.search(line) and "event=" not in line
        )


def _script_name(request: str) -> str:
    """The script that a request belongs to: ``12-3-0``, or ``smuggled-12-3`` and what follows."""
    parts = request.removeprefix("smuggled-").split("-")
    return "-".join(parts[:2])


def _executed(server: ServerProcess) -> list[str] | None:
    """What it has run, when it has stopped running anything more; None if it serves no more."""
    found: list[str] = []
    deadline = time.monotonic() + _DEAD
    quiet = 0
    while quiet < 2:
        try:
            more: list[str] = get_json(server.port, fuzzed.EXECUTED)
        except (OSError, HTTPException) as error:
            if isinstance(error, ConnectionRefusedError):
                deadline = min(deadline, time.monotonic() + _GONE)
            if time.monotonic() > deadline or not server.alive:
                return None
            time.sleep(0.1)
            continue
        found += more
        quiet = 0 if more else quiet + 1
        time.sleep(0.02)
    return found


def fuzz(stack: Stack, *, conversations: int, seed: int, first: int = 0) -> Found:
    """So many conversations with one server, bare and wrapped.

    Args:
        stack: The server, from `fuzzed_stack`.
        conversations: How many.
        seed: Of all of them.
        first: The number of the first one.
    """
    found = Found()
    began = time.monotonic()
    bare, wrapped = _Side(stack, wrapped=False), _Side(stack, wrapped=True)
    with bare.process, wrapped.process, asyncio.Runner() as runner:
        before = bare.sockets(), wrapped.sockets()
        for start in range(first, first + conversations, _BATCH):
            numbers = range(start, min(start + _BATCH, first + conversations))
            scripts = [script_of(f"{seed}-{number}") for number in numbers]
            runner.run(_compare(bare, wrapped, scripts, found))
        found.wrong += _left_over(bare, wrapped, before)
        loud = bare.loud()
        found.wrong += [
            f"logged {count} times, and never bare: {line}"
            for line, count in wrapped.loud().items()
            if line not in loud
        ]
    if wrapped.deaths > bare.deaths:
        found.wrong.append(f"it has died {wrapped.deaths} times, bare {bare.deaths} times")
    found.seconds = time.monotonic() - began
    return found


def _left_over(bare: _Side, wrapped: _Side, before: tuple[int, int]) -> list[str]:
    """What is left of more sockets than bare, of which a server may keep some, when all is over."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        for side in (bare, wrapped):
            # eventlet's connections refer to themselves: the collector closes them, bare as well.
            with contextlib.suppress(OSError, HTTPException):
                get_json(side.process.port, f"{fuzzed.EXECUTED}?{fuzzed.COLLECT}")
        more = wrapped.sockets() - before[1]
        if more <= max(0, bare.sockets() - before[0]):
            return []
        if time.monotonic() > deadline:
            return [f"{more} sockets more than before"]
        time.sleep(0.1)


async def _compare(bare: _Side, wrapped: _Side, scripts: Sequence[Script], found: Found) -> None:
    by_bare, by_wrapped = await asyncio.gather(bare.play(scripts), wrapped.play(scripts))
    if by_bare is None or by_wrapped is None:
        if len(scripts) == 1:
            whom = "the bare" if by_bare is None else "the wrapped"
            print(f"{whom} server serves no more: {scripts[0].name}", flush=True)
        else:
            size = math.ceil(len(scripts) / _PARTS)
            for first in range(0, len(scripts), size):
                await _compare(bare, wrapped, scripts[first : first + size], found)
        return
    found.run += sum(len(outcome.run) for outcome in by_wrapped)
    suspects = [
        (script, kind, words)
        for script, before, now in zip(scripts, by_bare, by_wrapped, strict=True)
        for kind, words in _differences(script, before, now).items()
    ]
    for script, kind, words in suspects[:_MOST_REPLAYED]:
        if await _is_certain(bare, wrapped, script, kind):
            found.wrong.append(f"{script.name}: {kind}: {words}")
        else:
            found.once[kind] += 1
    if len(suspects) > _MOST_REPLAYED:
        found.wrong.append(f"{len(suspects)} differences in one batch")


async def _is_certain(bare: _Side, wrapped: _Side, script: Script, kind: str) -> bool:
    """Whether only the wrapped server does it, if each has one conversation at a time."""
    wanted = _TIMES_LOST if kind == "lost" else 1
    befores: list[_Outcome] = []
    if kind.startswith("run") and (twin := await bare.play([_twin(script)])):
        befores += [replace(each, said=_Said()) for each in twin]
    if kind.startswith("framing"):
        # A bare server that has closed behind an early answer has not come to the later requests.
        for each in _alone(script):
            befores += [
                replace(it, said=replace(it.said, answers=()))
                for it in await bare.play([each], _LONG_SILENCE) or ()
            ]
    nows: list[_Outcome] = []
    if kind == "lost" and script.ending == "half":
        # Whoever ends its sending at once races with servers that close then.
        script = replace(script, ending="stay")
    for _ in range(_REPLAYS):
        before = await bare.play([script], _LONG_SILENCE)
        now = await wrapped.play([script], _LONG_SILENCE)
        if before is None or now is None:
            return True
        befores += before
        nows = [
            each
            for each in (*nows, *now)
            if all(kind in _differences(script, other, each) for other in befores)
        ]
        if not nows:
            return False
    return len(nows) >= wanted


def _alone(script: Script) -> list[Script]:
    """What begins with each of the later requests, as conversations of their own."""
    found: list[Script] = []
    for place, request in enumerate(script.requests[1:], 1):
        line = re.compile(rb"(?i)%b \S*\?%b " % (request.method.encode(), request.name.encode()))
        if begins := line.search(script.data):
            data, requests = script.data[begins.start() :], script.requests[place:]
            found.append(replace(script, data=data, requests=requests, cuts=(), ending="half"))
    return found


def _twin(script: Script) -> Script:
    """The same with an application that reads each body, and without trailers.

    Whatever a bare server runs then it would also run if it did not close behind an early response,
    and, cheroot, if it did not take a trailer for the next request.
    """
    data = without_trailers(script.data)
    for each in script.requests:
        old, new = (f"{path}?{each.name}".encode() for path in (each.path, fuzzed.READ))
        data = data.replace(old, new)
    return replace(script, data=data, cuts=(), ending="half")


def _differences(script: Script, bare: _Outcome, wrapped: _Outcome) -> Mapping[str, str]:
    """What is wrong with the wrapped server's outcome, by its kind."""
    wrong: dict[str, str] = {}
    allowed = {*bare.run, *script.good}
    if more := [name for name in wrapped.run if name not in allowed]:
        wrong["run"] = f"{more[:3]}, which bare does not run"
    if len(wrapped.run) > len(bare.run) and (twice := _twice(wrapped.run, bare.run)):
        wrong["run twice"] = f"{twice[:3]}"
    if (said := _misplaced(script, wrapped.said)) and not _misplaced(script, bare.said):
        wrong["answer"] = said
    more_faults = wrapped.said.faults - bare.said.faults
    # A server that reads on may answer what is wrong behind a request in the middle of its answer.
    if more_faults and script.is_plain:
        wrong[f"framing {min(more_faults)}"] = f"{sorted(more_faults)}"
    if wrapped.said.ended == "hang" != bare.said.ended:
        wrong["hang"] = f"bare ends with {bare.said.ended}"
    if wrapped.said.ended == "refused" != bare.said.ended:
        wrong["refused"] = "nobody accepts the connection"
    if wrapped.said.ended != "left" and (lost := _lost(script, bare.said, wrapped.said)):
        wrong["lost"] = lost
    return wrong


def _twice(run: Iterable[str], bare: Iterable[str]) -> list[str]:
    before = Counter(bare)
    return [name for name, times in Counter(run).items() if times > max(1, before[name])]


def _misplaced(script: Script, said: _Said) -> str | None:
    """Whether the n-th answer of the application is not the n-th request's."""
    for number, answer in enumerate(said.answers):
        if answer.name is None:
            # The server's own: it ends the connection.
            good = answer.status >= 400
            return None if good else f"answer {number}: {answer.status} {answer.body[:80]!r}"
        if answer.name.startswith("smuggled") and f"{script.name}-{number}" not in script.good:
            # Bare servers do it too: what is run is compared.
            return None
        if answer.name != f"{script.name}-{number}":
            return f"answer {number} is {answer.name}"
    return None


def _lost(script: Script, bare: _Said, wrapped: _Said) -> str | None:
    """Whether a complete request has an answer bare, and wrapped another one or none."""
    for number in range(min(script.complete, len(bare.answers))):
        before = bare.answers[number]
        if before.name is None and not script.is_plain:
            # The server's own, for something that it does not understand.
            return None
        if number >= len(wrapped.answers):
            if not script.is_plain and wrapped.faults - bare.faults:
                # A server that reads on has put its own answer to what is wrong into this one.
                return None
            return f"answer {number}: {before.status} bare, none wrapped"
        now = wrapped.answers[number]
        if now.name is None and not script.is_plain:
            # A server that reads on answers what is wrong behind it, as it does where an
            # application reads.
            return None
        if now.name is None and (now.name, now.status) == (before.name, before.status):
            # A server's own page, with a traceback maybe.
            return None
        if (now.name, now.status, now.read, now.body) != (
            (before.name, before.status, before.read, before.body)
        ):
            return (
                f"answer {number}: {before.name} {before.status} {before.read} {before.body[:60]!r}"
                f" bare, {now.name} {now.status} {now.read} {now.body[:60]!r} wrapped"
            )
        if not now.keeps_alive or script.requests[number].path == fuzzed.STREAM:
            # Its head is out before anybody knows that it is an early one.
            return None
    return None
