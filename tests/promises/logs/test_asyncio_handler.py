"""Raw asyncio servers: real connections, real resets, and what the loop's handler is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import uvloop

from cleanclose.core import Levels, reset, snapshot
from cleanclose.quiet import install_quiet_asyncio
from tests.harness.leavers import How, connected, leave

QUIETED = "cleanclose_quieted_records_total"
SEND = 64 * 1024

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Callback = Callable[[Reader, Writer], Awaitable[None]]
Loop = Literal["asyncio", "uvloop"]
Context = dict[str, Any]

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


class Watched:
    """What the handler that was there before is told, and what is logged."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.records: list[logging.LogRecord] = []

    def handler(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.contexts.append(context)

    def emit(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return False


def serve(
    callback: Callback,
    client: Callable[[int], None],
    loop: Loop,
    *,
    installed: bool = True,
    levels: Levels | None = None,
    before: bool = True,
) -> Watched:
    """Serve one connection, and wait until its callback has ended and was told of."""
    watched = Watched()
    ended: list[bool] = []

    async def run() -> None:
        running = asyncio.get_running_loop()
        done = asyncio.Event()
        if before:
            running.set_exception_handler(watched.handler)
        if installed:
            install_quiet_asyncio(running, levels)

        async def call(reader: Reader, writer: Writer) -> None:
            task = asyncio.current_task()
            assert task is not None
            # Behind the callback of asyncio's own, which was added before.
            running.call_soon(lambda: task.add_done_callback(lambda _: done.set()))
            await callback(reader, writer)

        server = await asyncio.start_server(call, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(client, port)
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0)
        server.close()
        ended.append(True)

    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(watched.emit)
    reset()
    try:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run())
    finally:
        logger.removeFilter(watched.emit)
        logger.setLevel(level)
    assert ended
    watched.records = [
        record for record in watched.records if "client_connected_cb" in record.getMessage()
    ]
    return watched


def leaver(how: How) -> Callable[[int], None]:
    def client(port: int) -> None:
        with connected(port) as sock:
            sock.sendall(b"12345")
            leave(sock, how)

    return client


async def reads(reader: Reader, writer: Writer) -> None:
    await reader.readexactly(1000)


async def writes(reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(bytes(SEND))
        await writer.drain()


@pytest.mark.parametrize(
    ("callback", "how"),
    [(reads, "rst"), (reads, "fin"), (writes, "rst"), (writes, "fin")],
)
def test_its_own_clients_departure_is_one_quiet_line(
    loop: Loop, callback: Callback, how: How
) -> None:
    bare = serve(callback, leaver(how), loop, installed=False)
    (context,) = bare.contexts
    assert isinstance(context["exception"], ConnectionError | asyncio.IncompleteReadError)
    watched = serve(callback, leaver(how), loop)
    assert watched.contexts == []
    (record,) = watched.records
    assert (record.levelno, record.exc_info) == (logging.DEBUG, None)
    fields = vars(record)
    assert fields["original_level"] == logging.ERROR
    assert fields["cleanclose_side"] == "client"
    assert fields["cleanclose_witnesses"] == ("receive" if callback is reads else "send")
    if callback is reads:
        # uvloop 0.19 tells of a reset as of an end, at times.
        either = {"reset", "eof"} if loop == "uvloop" and how == "rst" else set[str]()
        assert fields["cleanclose_mechanism"] in either | {"reset" if how == "rst" else "eof"}
    assert snapshot()[QUIETED] == 1


def test_without_another_handler_the_loops_default_has_the_rest(loop: Loop) -> None:
    async def fails(reader: Reader, writer: Writer) -> None:
        raise ValueError

    watched = serve(fails, leaver("fin"), loop, before=False)
    (record,) = watched.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    watched = serve(reads, leaver("fin"), loop, before=False)
    (record,) = watched.records
    assert record.levelno == logging.DEBUG


@pytest.mark.parametrize("level", [logging.ERROR, logging.CRITICAL])
def test_what_the_table_does_not_lower_goes_to_the_earlier_handler(loop: Loop, level: int) -> None:
    levels = Levels(rows={"client_departed.midway": level})
    watched = serve(reads, leaver("fin"), loop, levels=levels)
    assert len(watched.contexts) == 1
    assert snapshot()[QUIETED] == 0


# What is not its own.


async def upstream_resets(reader: Reader, writer: Writer) -> None:
    """The same class, the same errno, the same frames: another transport."""

    async def breaks_off(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    broken = await asyncio.start_server(breaks_off, "127.0.0.1", 0)
    async with broken:
        port: int = broken.sockets[0].getsockname()[1]
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)
        ours.write(b"1")
        try:
            await theirs.readexactly(1000)
        finally:
            ours.close()


async def upstream_resets_too(reader: Reader, writer: Writer) -> None:
    with contextlib.suppress(OSError, EOFError):
        await reader.readexactly(1000)
    await upstream_resets(reader, writer)


async def upstream_resets_before(reader: Reader, writer: Writer) -> None:
    try:
        await upstream_resets(reader, writer)
    finally:
        await reader.readexactly(1000)


async def wraps(reader: Reader, writer: Writer) -> None:
    try:
        await reader.readexactly(1000)
    except (OSError, EOFError) as error:
        raise RuntimeError("the order was not saved") from error


async def raises_again_from(reader: Reader, writer: Writer) -> None:
    try:
        await reader.readexactly(1000)
    except (OSError, EOFError) as error:
        raise error from ValueError("the order was not saved")


async def raises_its_own(reader: Reader, writer: Writer) -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


async def raises_its_own_with_the_connection_at_hand(reader: Reader, writer: Writer) -> None:
    self = reader
    assert self is not None
    raise ConnectionResetError(104, "Connection reset by peer")


async def has_a_bug(reader: Reader, writer: Writer) -> None:
    with contextlib.suppress(OSError, EOFError):
        await reader.readexactly(1000)
    raise KeyError("id")


async def cannot_find_the_end_of_a_line(reader: Reader, writer: Writer) -> None:
    reader.feed_data(bytes(1024 * 1024))
    await reader.readline()


async def two_at_once(reader: Reader, writer: Writer) -> None:
    try:
        await reader.readexactly(1000)
    except (OSError, EOFError) as error:
        raise BaseExceptionGroup("", [error, ValueError()]) from None


@pytest.mark.parametrize(
    "callback",
    [
        upstream_resets,
        upstream_resets_too,
        upstream_resets_before,
        wraps,
        raises_again_from,
        raises_its_own,
        raises_its_own_with_the_connection_at_hand,
        has_a_bug,
        cannot_find_the_end_of_a_line,
        two_at_once,
    ],
)
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_all_else_goes_to_the_earlier_handler(loop: Loop, callback: Callback, how: How) -> None:
    watched = serve(callback, leaver(how), loop)
    assert len(watched.contexts) == 1
    assert watched.records == []
    assert snapshot()[QUIETED] == 0


# Coming and going.


def test_it_can_be_taken_away_again(loop: Loop) -> None:
    told: list[str] = []

    def handler(name: str) -> Callable[[asyncio.AbstractEventLoop, Context], None]:
        return lambda loop, context: told.append(name)

    async def run() -> None:
        running = asyncio.get_running_loop()
        uninstall = install_quiet_asyncio(running)
        uninstall()
        assert running.get_exception_handler() is None
        earlier = handler("earlier")
        running.set_exception_handler(earlier)
        uninstall = install_quiet_asyncio(running)
        ours: Any = running.get_exception_handler()
        running.call_exception_handler({"message": "one"})
        later = handler("later")
        running.set_exception_handler(later)
        uninstall()
        assert running.get_exception_handler() is later
        ours(running, {"message": "two"})
        uninstall()
        running.set_exception_handler(ours)
        uninstall()
        assert running.get_exception_handler() is earlier

    asyncio.run(run())
    assert told == ["earlier", "earlier"]
    assert loop
