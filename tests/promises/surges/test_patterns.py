"""The seven patterns on real servers: each is told once, and rightly. A random mix is not.

The patterns run side by side, each on a server of its own, over the same random traffic: requests
on five routes from thirty networks, of which some are left at random moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.routing import Route, Router

from tests.harness.leavers import request, until_read
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.surge_servers import COMMANDS
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import LIMIT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

AT_RANDOM: Final = 130
"""Departures: enough for two windows."""
ENOUGH: Final = 400
"""Departures within which a pattern has to be told: those of a minute, if all goes well."""
AHEAD: Final = 10
"""So many departures may there be before their share of the requests has been answered."""
LONG: Final = 12.0
"""Seconds. Times within a fiftieth of each other count as the same, and a busy machine is late."""
PUNCTUAL: Final = LONG / 50 / 3
"""Seconds: leaves most of that to the server."""
AFTERWARDS: Final = 70
"""Departures behind that: enough for one more window."""
LINGER_0: Final = struct.pack("ii", 1, 0)
NETWORKS: Final = [f"127.0.{number}.1" for number in range(1, 31)]


@dataclass
class Site:
    """One server, and those who use it."""

    port: int
    tap: Path
    random: random.Random = field(default_factory=lambda: random.Random(5))
    waiting: set[socket.socket] = field(default_factory=set[socket.socket])
    """Connections of clients that have asked and will leave."""
    answered: int = 0
    """Requests of clients that have stayed."""
    punctual: int = 0
    """Clients that have waited for as long as they wanted to: a busy machine may wake them late."""

    def surges(self) -> list[Mapping[str, Any]]:
        return [event for event in read_tap(self.tap)[1] if event["event"] == "departure_surge"]

    def departures(self) -> int:
        """Of clients, and of those who were refused: with one answer lost, that is one as well."""
        return sum("phase" in event or "outcome" in event for event in read_tap(self.tap)[1])

    @contextlib.asynccontextmanager
    async def connected(
        self, address: str | None = None
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection from an address, or from any of them; in the end it is reset."""
        local = (address or self.random.choice(NETWORKS), 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        try:
            yield reader, writer
        finally:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            writer.transport.abort()

    async def ask(self) -> None:
        """A request that is answered."""
        async with self.connected() as (reader, writer):
            writer.write(request("GET", f"/{self.random.choice('aaaabbbccde')}"))
            await read_answer(reader)
        self.answered += 1

    async def leave(self, path: str, after: float, address: str | None = None) -> None:
        async with self.connected(address) as (_, writer):
            writer.write(request("GET", f"{path}?wait={LIMIT}"))
            await writer.drain()
            sock: socket.socket = writer.get_extra_info("socket")
            self.waiting.add(sock)
            try:
                await self._sleep(after)
            finally:
                self.waiting.discard(sock)

    async def _sleep(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        await asyncio.sleep(seconds)
        self.punctual += time.monotonic() - due < PUNCTUAL

    async def cut(self, size: int) -> None:
        async with self.connected() as (_, writer):
            writer.write(request("POST", "/upload", length=1 << 20) + b"x" * size)
            await writer.drain()
            # What the server has not read a reset throws away.
            await asyncio.to_thread(until_read, writer.get_extra_info("socket"))

    async def leave_reused(self, idle: float) -> None:
        async with self.connected() as (reader, writer):
            writer.write(request("GET", "/a"))
            await read_answer(reader)
            await self._sleep(idle)
            writer.write(request("GET", "/b?wait=20"))
            await asyncio.sleep(0.05)

    async def leave_at_random(self) -> None:
        kind = self.random.random()
        if kind < 0.7:
            await self.leave(f"/{self.random.choice('aaaabbbccde')}", self.patience())
        elif kind < 0.9:
            await self.cut(int(2 ** self.random.uniform(8, 19)))
        else:
            await self.leave_reused(self.random.uniform(0.2, 6))

    async def be_refused(self) -> None:
        async with self.connected() as (reader, writer):
            writer.write(request("POST", "/refuse", length=20_000) + b"x" * 20_000)
            await read_answer(reader)

    async def lose_refusal(self) -> None:
        async with self.connected() as (_, writer):
            writer.write(request("POST", "/refuse", length=8 << 20) + b"x" * 100_000)
            await writer.drain()
            await asyncio.sleep(0.1)

    def patience(self) -> float:
        return min(8.0, 0.05 + self.random.expovariate(1.2))


async def read_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    if length is not None:
        await reader.readexactly(int(length[1]))
    else:
        await reader.readuntil(b"0\r\n\r\n")


Act = Callable[[], Awaitable[None]]


async def keep_on(act: Act, per_second: float, pace: Callable[[int], bool] | None) -> None:
    """Act so often, whether the last time is over or not; until cancelled.

    Args:
        act: What to do.
        per_second: How often, on average.
        pace: Whether it may be done again, once it has been begun so many times.
    """
    rng = random.Random(7)
    begun = 0

    async def one() -> None:
        # A server that stops, or one that is slow to start a thread.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await act()

    async with asyncio.TaskGroup() as group:
        while True:
            if pace is None or pace(begun):
                group.create_task(one())
                begun += 1
            await asyncio.sleep(rng.expovariate(per_second))


@contextlib.asynccontextmanager
async def going_on(site: Site, requests: float, *acts: tuple[Act, float]) -> AsyncGenerator[None]:
    """Requests that are answered, so many a second, and other acts.

    A slow machine has fewer of all of them: what is told rests on how many leave of how many.
    """
    before = site.answered

    def pace(per_second: float) -> Callable[[int], bool]:
        return lambda begun: begun <= AHEAD + (site.answered - before) * per_second / requests

    tasks = [asyncio.create_task(keep_on(site.ask, requests, None))]
    tasks += [
        asyncio.create_task(keep_on(act, per_second, pace(per_second))) for act, per_second in acts
    ]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Pattern:
    """What is staged, and what is to be told of it."""

    cause: str
    server: str
    act: Callable[[Site], Act]
    says: Callable[[Mapping[str, Any]], bool]
    usual: Callable[[Site], Act] = lambda site: site.leave_at_random
    per_second: float = 7.0
    requests: float = 8.0
    """Others per second."""
    timed: bool = False
    """Whether it is one only if its clients are punctual."""


PATTERNS: Final = (
    Pattern(
        "route",
        "uvicorn",
        lambda site: lambda: site.leave("/d", site.patience()),
        lambda event: event["route"] == "/d",
    ),
    Pattern(
        "one_client",
        "gunicorn",
        lambda site: (
            lambda: site.leave(f"/{site.random.choice('abcde')}", site.patience(), "127.0.9.1")
        ),
        lambda event: event["network"] == "127.0.9.0/24",
        requests=25.0,
    ),
    Pattern(
        "same_bytes",
        "uvicorn",
        lambda site: lambda: site.cut(12_345),
        lambda event: event["bytes_each"] == 12_345,
    ),
    Pattern(
        "same_age",
        "tornado",
        lambda site: lambda: site.leave(f"/{site.random.choice('abcde')}", LONG),
        lambda event: LONG - 0.1 <= event["seconds_each"] <= LONG + 1,
        timed=True,
    ),
    Pattern(
        "idle_reuse",
        "tornado",
        lambda site: lambda: site.leave_reused(LONG),
        lambda event: LONG - 0.1 <= event["seconds_each"] <= LONG + 1,
        timed=True,
    ),
    Pattern(
        "undelivered",
        "gunicorn",
        lambda site: site.lose_refusal,
        lambda event: event["count"] >= 20,
        lambda site: site.be_refused,
    ),
)


def started(server: str, folder: Path) -> tuple[ServerProcess, Site]:
    path = folder / "tap.jsonl"
    folder.mkdir()
    process = ServerProcess(
        COMMANDS[server],
        env={PATH_VARIABLE: str(path)},
        cwd=ROOT,
        ready_path="/",
        name=server,
    )
    process.start()
    return process, Site(process.port, path)


async def more_departures(site: Site, number: int) -> None:
    """Wait until so many more have left."""
    wanted = site.departures() + number
    while site.departures() < wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.5)


async def told(site: Site, *, timed: bool) -> bool:
    """Wait for a surge, for as many departures as have to be enough.

    Args:
        site: Where it is staged.
        timed: Whether those that a busy machine has made late show nothing.
    """

    def so_far() -> int:
        return site.punctual if timed else site.departures()

    wanted = so_far() + ENOUGH
    while so_far() < wanted and not site.surges():  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return bool(site.surges())


async def stage(pattern: Pattern, folder: Path) -> str | None:
    """What is wrong with what was told; None if nothing is."""
    process, site = await asyncio.to_thread(started, pattern.server, folder)
    try:
        async with going_on(site, pattern.requests, (pattern.usual(site), 6.0)):
            await more_departures(site, AT_RANDOM)
        if site.surges():
            return f"told too early: {site.surges()}"
        acts = [(pattern.usual(site), 0.7), (pattern.act(site), pattern.per_second)]
        async with going_on(site, pattern.requests, *acts):
            in_time = await told(site, timed=pattern.timed)
            await more_departures(site, AFTERWARDS)
        surges = site.surges()
        right = [event for event in surges if event["cause"] == pattern.cause]
        if len(surges) != 1 or not right or not pattern.says(right[0]) or not in_time:
            return f"{surges} of {site.departures()} departures"
        print(f"{pattern.cause} on {pattern.server}: {right[0]}")
        return None
    finally:
        await asyncio.to_thread(process.stop)


async def stage_deploy(folder: Path) -> str | None:
    process, site = await asyncio.to_thread(started, "uvicorn", folder)
    try:
        async with going_on(site, 8.0, (site.leave_at_random, 5.0)):
            await more_departures(site, AT_RANDOM)
        if site.surges():
            return f"told too early: {site.surges()}"
        waiting = [asyncio.create_task(site.leave("/a", LIMIT)) for _ in range(50)]
        while len(site.waiting) < len(waiting):  # noqa: ASYNC110 - the tasks have to run
            await asyncio.sleep(0.05)
        for sock in list(site.waiting):
            await asyncio.to_thread(until_read, sock)
        await asyncio.to_thread(process.stop)
        for task in waiting:
            task.cancel()
        causes = [event["cause"] for event in site.surges()]
        return None if causes == ["deploy"] else f"{site.surges()}"
    finally:
        await asyncio.to_thread(process.stop)


def tells_route() -> bool:
    """Whether this Starlette tells a middleware the route; its old versions do not."""
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/d", "headers": []}

    async def endpoint(scope: object, receive: object, send: object) -> None:
        """Answer nothing."""

    app: Any = Router([Route("/d", endpoint)])
    # A function would be called with a request.
    app.routes[0].app = endpoint
    asyncio.run(app(scope, None, None))
    return "route" in scope


def test_each_pattern_is_told_once_and_rightly(tmp_path: Path) -> None:
    patterns = [pattern for pattern in PATTERNS if pattern.cause != "route" or tells_route()]

    async def all_of_them() -> dict[str, str | None]:
        wrong = await asyncio.gather(
            *(stage(pattern, tmp_path / pattern.cause) for pattern in patterns),
            stage_deploy(tmp_path / "deploy"),
        )
        return dict(zip([*(pattern.cause for pattern in patterns), "deploy"], wrong, strict=True))

    wrong = asyncio.run(all_of_them())
    assert not {cause: what for cause, what in wrong.items() if what}


@pytest.mark.full
def test_a_random_mix_is_not_told(tmp_path: Path) -> None:
    async def mix(server: str) -> tuple[list[Mapping[str, Any]], int]:
        process, site = await asyncio.to_thread(started, server, tmp_path / server)
        try:
            async with going_on(site, 8.0, (site.leave_at_random, 7.0)):
                # Enough for three windows.
                await more_departures(site, 220)
            return site.surges(), site.departures()
        finally:
            await asyncio.to_thread(process.stop)

    async def all_of_them() -> list[tuple[list[Mapping[str, Any]], int]]:
        return await asyncio.gather(*map(mix, COMMANDS))

    for surges, departures in asyncio.run(all_of_them()):
        assert not surges
        assert departures >= 220
