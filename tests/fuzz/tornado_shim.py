"""Any conversation of a Tornado application with its client: the middleware may change none of it.

Tornado has no interface between server and application that a script could stand in for, so its
own server is one side, on a socket, and a client that reads while it sends is the other. Each
conversation takes place once bare and once wrapped. What the handler hears must be the same; what
the client gets may only be more: an answer that a bare server loses arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hypothesis import strategies as st
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from cleanclose.core import Event, UploadDrained
from cleanclose.testing.wire import Ending, Transcript, WireReader
from cleanclose.tornado import install
from tests.fuzz.comparing import compare

__all__ = ["CONVERSATIONS", "Conversation", "check"]

_SETTINGS: Final[Mapping[str, Any]] = {
    # A cap that a busy machine reaches is an answer lost.
    "max_seconds": 1.0,
    "idle_seconds": 1.0,
    "hold_seconds": 0.05,
    "quiet_logs": False,
    "surge": False,
}
_PATIENCE: Final = 30.0
"""Seconds for anything that has to come."""
_SILENCE: Final = 0.05
"""Seconds for which a client waits for an answer that need not come."""


_PLAYED: Final[ContextVar[_Played]] = ContextVar("_PLAYED")


class BoomError(Exception):
    """The application's own."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One exchange, as it is to go."""

    pieces: tuple[int, ...]
    ending: Literal["end", "fin", "reset", "silence"]
    """What the client does behind the pieces; "end" makes the body whole."""
    declared: bool
    """Whether the body has a length; otherwise it comes in chunks."""
    expects: bool
    proxied: bool
    streams: bool
    """Whether the handler takes the body in pieces."""
    answers: Literal["prepare", "piece", "body"]
    """When it answers: at once, at the body's first piece, or when it has all of it."""
    actions: tuple[tuple[str, int], ...]
    """What it does then, one after the other."""
    status: int
    after: Literal["", "write", "flush", "finish", "fail"]
    """What it does when it has finished."""
    follows: bool
    """Whether a second request comes right behind the first one."""


_ACTIONS: Final = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 1, 10, 70_000])),
    st.tuples(st.sampled_from(["flush", "pause", "finish", "fail", "refuse"]), st.just(0)),
)

CONVERSATIONS: Final = st.builds(
    Conversation,
    pieces=st.lists(st.sampled_from([1, 100, 70_000, 600_000]), max_size=3).map(tuple),
    ending=st.sampled_from(["end", "end", "fin", "reset", "silence"]),
    declared=st.booleans(),
    expects=st.booleans(),
    proxied=st.booleans(),
    streams=st.booleans(),
    answers=st.sampled_from(["prepare", "piece", "body"]),
    actions=st.lists(_ACTIONS, max_size=5).map(tuple),
    status=st.sampled_from([200, 204, 303, 413]),
    after=st.sampled_from(["", "", "write", "flush", "finish", "fail"]),
    follows=st.booleans(),
)
"""Any of them."""


@dataclass
class _Played:
    """What came of it."""

    heads: list[str] = field(default_factory=list[str])
    """The requests that a handler was made for."""
    received: int = 0
    """Bytes of the first body that its handler got."""
    whole: bool = False
    """Whether the handler was called with a whole body."""
    finished: bool = False
    """Whether the handler has finished its answer."""
    logged: list[str] = field(default_factory=list[str])
    on_loop: list[str] = field(default_factory=list[str])
    """What its server's callbacks have raised into the loop."""
    transcript: Transcript = field(default_factory=Transcript)


def _application(conversation: Conversation, played: _Played) -> Application:
    class Handler(RequestHandler):
        answered = False

        def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
            played.logged.append(typ.__name__)

        async def prepare(self) -> None:
            played.heads.append(f"{self.request.method} {self.request.path}")
            if self.request.method == "POST" and conversation.answers == "prepare":
                await self.act()

        async def get(self) -> None:
            await self._say(b"second")

        async def post(self) -> None:
            played.whole = True
            if not conversation.streams:
                played.received = len(self.request.body)
            await self.act()

        async def act(self) -> None:
            if self.answered:
                return
            self.answered = True
            self.set_status(conversation.status)
            for action, size in conversation.actions:
                match action:
                    case "write":
                        # 204 has no body, and Tornado insists on that.
                        if conversation.status != 204:
                            self.write(b"y" * size)  # pyright: ignore[reportUnknownMemberType]
                    case "flush":
                        await self.flush()
                    case "pause":
                        await asyncio.sleep(0)
                    case "fail":
                        raise BoomError
                    case "refuse":
                        raise HTTPError(403)
                    case _:
                        break
            await self._say()
            match conversation.after:
                case "write":
                    self.write(b"late")  # pyright: ignore[reportUnknownMemberType]
                case "flush":
                    await self.flush()
                case "finish":
                    await self._say(b"late")
                case "fail":
                    raise BoomError
                case _:
                    pass

        async def _say(self, body: bytes | None = None) -> None:
            done = self.finish(body)  # pyright: ignore[reportUnknownMemberType]
            if body is None:
                played.finished = True
            await done

    @stream_request_body
    class StreamingHandler(Handler):
        async def data_received(self, chunk: bytes) -> None:
            if self.request.method == "POST":
                played.received += len(chunk)
                if conversation.answers == "piece":
                    await self.act()

    return Application([(".*", StreamingHandler if conversation.streams else Handler)])


def _head(conversation: Conversation) -> bytes:
    lines = ["POST /first HTTP/1.1", "Host: test"]
    if conversation.declared:
        size = sum(conversation.pieces) + (conversation.ending != "end")
        lines.append(f"Content-Length: {size}")
    else:
        lines.append("Transfer-Encoding: chunked")
    if conversation.expects:
        lines.append("Expect: 100-continue")
    if conversation.proxied:
        lines.append("X-Forwarded-For: 192.0.2.7")
    return "\r\n".join([*lines, "", ""]).encode()


class _Client:
    """It sends what the script says, and reads meanwhile."""

    def __init__(self, conversation: Conversation, port: int) -> None:
        self.conversation = conversation
        self.port = port
        self.wire = WireReader()
        self.answered = asyncio.Event()

    async def converse(self) -> Transcript:
        conversation = self.conversation
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.wire.expect("POST", continue_expected=conversation.expects)
        reading = asyncio.ensure_future(self._read(reader))
        try:
            await self._send(writer)
            if conversation.ending == "reset":
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            elif conversation.ending == "fin":
                writer.write_eof()
            elif conversation.ending == "silence":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.answered.wait(), _SILENCE)
            else:
                await asyncio.wait_for(self.answered.wait(), _PATIENCE)
        except ConnectionError:
            # Whoever cannot send any more still reads.
            pass
        if conversation.ending != "fin":
            with contextlib.suppress(OSError):
                writer.write_eof()
        ending = await asyncio.wait_for(reading, _PATIENCE)
        self.wire.end(ending)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return self.wire.transcript()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        conversation = self.conversation
        writer.write(_head(conversation))
        for size in conversation.pieces:
            data = b"x" * size
            writer.write(data if conversation.declared else b"%x\r\n%b\r\n" % (size, data))
            await writer.drain()
        if conversation.ending == "end":
            if not conversation.declared:
                writer.write(b"0\r\n\r\n")
            if conversation.follows:
                self.wire.expect("GET")
                writer.write(b"GET /second HTTP/1.1\r\nHost: test\r\n\r\n")
            await writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> Ending:
        try:
            while data := await reader.read(65536):
                self.wire.feed(data)
                if self.wire.responses and (
                    not self.wire.waiting or not self.wire.responses[0].keeps_alive
                ):
                    self.answered.set()
        except ConnectionError:
            return "reset"
        finally:
            self.answered.set()
        return "fin"


async def _play(conversation: Conversation, played: _Played, events: list[Event] | None) -> None:
    # Tornado's callbacks inherit it.
    _PLAYED.set(played)
    application = _application(conversation, played)
    if events is not None:
        install(application, outlets=[events.append], **_SETTINGS)
    server = HTTPServer(application, max_body_size=1 << 30)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        client = _Client(conversation, sockets[0].getsockname()[1])
        played.transcript = await client.converse()
    finally:
        server.stop()


def _raised_on_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    handle = context.get("handle")
    played: _Played | None = handle._context.get(_PLAYED) if handle else None
    if played is None:
        loop.default_exception_handler(context)
    else:
        played.on_loop.append(f"{context['message']}: {context.get('exception')!r}")


async def _all(
    conversations: Sequence[Conversation],
) -> list[tuple[_Played, _Played, list[Event]]]:
    asyncio.get_running_loop().set_exception_handler(_raised_on_loop)
    results = [(_Played(), _Played(), list[Event]()) for _ in conversations]
    async with asyncio.TaskGroup() as group:
        for conversation, (bare, wrapped, events) in zip(conversations, results, strict=True):
            group.create_task(_play(conversation, bare, None))
            group.create_task(_play(conversation, wrapped, events))
    # The clients have gone, which ends each connection's task.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_PATIENCE)
    assert not left, f"tasks are left: {left}"
    return results


def check(conversations: Sequence[Conversation], runner: asyncio.Runner) -> None:
    """Play each of them twice, all at once, and compare.

    Args:
        conversations: What is to happen.
        runner: Where.

    Raises:
        AssertionError: The middleware has changed something, or has left something behind.
        ExceptionGroup: The same, and it was seen while they were played.
    """
    for name in ("tornado.access", "tornado.general", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    compare(conversations, runner.run(_all(conversations)), _check)


def _check(
    conversation: Conversation, bare: _Played, wrapped: _Played, events: Sequence[Event]
) -> None:
    early = [event for event in events if isinstance(event, UploadDrained)]
    assert len(early) <= 1, events
    assert len(events) - len(early) <= 1, events
    transcript = wrapped.transcript
    assert transcript.clean or conversation.ending == "reset" or not bare.transcript.clean, (
        transcript.faults
    )
    assert wrapped.heads[:1] == bare.heads[:1]
    # Bare, Tornado closes behind an early answer, and fails to flush it, or to answer what has come
    # by then.
    assert not Counter(wrapped.logged) - Counter(bare.logged)
    assert set(Counter(bare.logged) - Counter(wrapped.logged)) <= {"StreamClosedError"}
    assert not Counter(wrapped.on_loop) - Counter(bare.on_loop)
    if conversation.ending == "reset":
        return
    if wrapped.finished and conversation.ending == "end":
        assert transcript.first is not None, "the answer is lost"
    _check_answer(bare, wrapped)
    if conversation.ending == "end" and bare.whole:
        assert (wrapped.whole, wrapped.received) == (bare.whole, bare.received)


def _check_answer(bare: _Played, wrapped: _Played) -> None:
    before, now = bare.transcript.first, wrapped.transcript.first
    if before is None:
        return
    assert now is not None, "an answer that a bare server sends is lost"
    assert (now.status, now.body) == (before.status, before.body)
    own = {("Connection", "close"), ("Content-Length", str(len(before.body)))}
    kept = [pair for pair in now.headers if pair[0] != "Date"]
    was = [pair for pair in before.headers if pair[0] != "Date"]
    assert [pair for pair in kept if pair in was] == was
    assert {pair for pair in kept if pair not in was} <= own
