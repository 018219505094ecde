"""What Tornado handlers do when their client leaves, and when somebody else's server does.

Each handler waits until its own connection is closed, so that nothing depends on how long
anything takes. ``/settle`` answers when whatever was going on has had time to be logged.

Run as ``python -m tests.harness.apps.noise_tornado PORT``.
"""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.log import enable_pretty_logging
from tornado.tcpclient import TCPClient
from tornado.web import Application, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler, websocket_connect

from cleanclose.core import client_gone, current
from tests.harness import tap
from tests.harness.apps import routes
from tests.harness.hiding import ASYNC_HIDES

PATIENCE: Final = 30.0
"""Seconds after which a handler stops waiting for its client to leave."""
BIG: Final = b"x" * (1 << 20)
UPSTREAM: Final[list[int]] = []
"""The port of the server that resets whoever talks to it."""
SEEN: Final[dict[str, object]] = {}


class Handler(RequestHandler):
    """Any method does the same."""

    async def get(self) -> None:
        await self.act()

    async def post(self) -> None:
        await self.act()

    async def act(self) -> None:
        await self.say("ok")

    def say(self, body: bytes | str | None = None) -> Awaitable[None]:
        return self.finish(body)

    @property
    def closed(self) -> bool:
        connection: Any = self.request.connection
        return connection.stream is None or bool(connection.stream.closed())

    def note_asked(self) -> None:
        """Note that it has asked a first time."""
        tap.note("asked", self.request.headers["X-Request-ID"])

    async def until_closed(self) -> None:
        SEEN["waiting"] = self.request.path
        deadline = time.monotonic() + PATIENCE
        while not self.closed and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        SEEN["waiting"] = None


class Settle(Handler):
    async def act(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.02)
            # What asyncio says of exceptions that nobody has looked at, it says here.
            gc.collect()
        await self.say("settled")


class WhatWasSeen(Handler):
    async def act(self) -> None:
        self.finish(SEEN)


class Waits(Handler):
    """The client leaves while the handler works; it answers, and waits until that is sent."""

    async def act(self) -> None:
        SEEN["heard"] = None
        await self.until_closed()
        await self.say("late")

    def on_connection_close(self) -> None:
        super().on_connection_close()
        watch = current()
        SEEN["heard"] = [client_gone(), watch is not None and watch.facts().request_id]


class WaitsAndReturns(Handler):
    """The same, and tornado finishes the response."""

    async def act(self) -> None:
        await self.until_closed()
        self.write("late")


class Streams(Handler):
    """Pieces until the client leaves. What that raises is not caught."""

    piece = b"piece"

    async def act(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.write(self.piece)
            await self.flush()
            await asyncio.sleep(0.005)


class Lingers(Handler):
    """All of the response is out, and the handler has something else to do before it returns."""

    async def act(self) -> None:
        if self.get_query_argument("status", None):
            self.set_status(204)
        else:
            self.set_header("Content-Length", "5")
            if self.request.method != "HEAD":
                self.write("hello"[: int(self.get_query_argument("size", "5"))])
        await self.flush()
        await self.until_closed()

    async def head(self) -> None:
        await self.act()


class StreamsBig(Streams):
    piece = BIG


class Catches(Streams):
    """The same, and the handler does catch it."""

    async def act(self) -> None:
        try:
            await super().act()
        except StreamClosedError as error:
            SEEN["caught"] = type(error).__name__
            raise


class Whole(Handler):
    """One large response: the handler is done long before it is sent."""

    async def act(self) -> None:
        for _ in range(64):
            self.write(BIG)
        self.say()


@stream_request_body
class Reads(Handler):
    def data_received(self, chunk: bytes) -> None: ...


@stream_request_body
class Refuses(Handler):
    """Answers before the body is there."""

    def prepare(self) -> None:
        self.set_status(413)
        self.say("too much")

    def data_received(self, chunk: bytes) -> None: ...


@stream_request_body
class Echoes(Handler):
    """Writes while it reads: its exception comes out of ``data_received``."""

    async def data_received(self, chunk: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.write(chunk)
            await self.flush()
            await asyncio.sleep(0.005)


class GoneAsync(Handler):
    async def act(self) -> None:
        before = client_gone()
        self.note_asked()
        deadline = time.monotonic() + PATIENCE
        while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        SEEN["gone"] = [before, client_gone()]


class GoneSync(Handler):
    """Keeps the loop busy: tornado itself sees nothing of what its clients do."""

    async def act(self) -> None:
        self.look()

    def look(self) -> None:
        before = client_gone()
        self.note_asked()
        deadline = time.monotonic() + PATIENCE
        while not client_gone() and time.monotonic() < deadline:
            time.sleep(0.005)
        SEEN["gone"] = [before, client_gone()]


class Holds(Handler):
    """Keeps the loop busy until the client has left, and answers."""

    async def act(self) -> None:
        self.note_asked()
        self.hold()
        self.write("late")

    def hold(self) -> None:
        connection: Any = self.request.connection
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and _is_open(connection.stream.socket):
            time.sleep(0.005)


class Stays(Handler):
    async def act(self) -> None:
        await asyncio.sleep(0)
        await self.say(str(client_gone()))


class Bug(Handler):
    """Not the client's fault, although it has left, and although it looks like it."""

    async def act(self) -> None:
        await self.until_closed()
        raise StreamClosedError


class Hides(Handler):
    """Fails while it writes to its client, which has left. ``?how=`` is one of `ASYNC_HIDES`."""

    async def act(self) -> None:
        await self.until_closed()
        self.write("late")
        await ASYNC_HIDES[self.get_query_argument("how")](self.flush)


@stream_request_body
class HidesWhileReading(Handler):
    """The same in ``data_received``."""

    async def data_received(self, chunk: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.write("late")
        await ASYNC_HIDES[self.get_query_argument("how")](self.flush)


def _is_open(sock: socket.socket) -> bool:
    # The first byte of struct tcp_info is the connection's state; 1 is TCP_ESTABLISHED.
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


# Upstreams.


class FromUpstream(Handler):
    """``?gone=1``: the client leaves first. ``?started=1``: the response has begun by then.

    ``?finished=1``: it is complete by then.
    """

    async def act(self) -> None:
        if self.get_query_argument("started", None):
            self.write("begin")
            await self.flush()
        if self.get_query_argument("gone", None):
            await self.until_closed()
        if self.get_query_argument("finished", None):
            self.say("before")
        await self.ask()
        await self.say("answered")

    async def ask(self) -> None:
        raise NotImplementedError


class FromHttp(FromUpstream):
    async def ask(self) -> None:
        await AsyncHTTPClient().fetch(f"http://127.0.0.1:{UPSTREAM[0]}/")


class FromTcp(FromUpstream):
    async def ask(self) -> None:
        stream = await TCPClient().connect("127.0.0.1", UPSTREAM[0])
        await stream.write(b"GET / HTTP/1.1\r\n\r\n")
        await stream.read_bytes(1000)


class FromTcpWriting(FromUpstream):
    async def ask(self) -> None:
        stream = await TCPClient().connect("127.0.0.1", UPSTREAM[0])
        await stream.write(b"GET / HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            await stream.write(BIG)


class FromWebSocket(FromUpstream):
    async def ask(self) -> None:
        upstream = await websocket_connect(f"ws://127.0.0.1:{UPSTREAM[0]}/ws")
        while await upstream.read_message() is not None:
            pass
        await upstream.write_message("too late")


class FromSocket(FromUpstream):
    async def ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", UPSTREAM[0])
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readexactly(1000)


@stream_request_body
class FromTcpWhileReading(Handler):
    def data_received(self, chunk: bytes) -> Awaitable[None]:
        return FromTcp.ask(cast("FromTcp", self))


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that resets its client; a websocket it accepts before."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"Sec-WebSocket-Key: " in head or b"Sec-Websocket-Key: " in head:
        key = head.lower().partition(b"sec-websocket-key: ")[2]
        start = len(head) - len(key)
        key = head[start:].partition(b"\r\n")[0]
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key + guid, usedforsecurity=False).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            await writer.drain()
        await asyncio.sleep(0.02)
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# Websockets.


class Socket(WebSocketHandler):
    """Sends everything back."""

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message)

    def on_close(self) -> None:
        SEEN["closed"] = self.request.path

    @property
    def pushing(self) -> bool:
        return time.monotonic() < self._until

    def start(self, push: Callable[[], Awaitable[None]]) -> None:
        self._until = time.monotonic() + PATIENCE
        self._task = asyncio.ensure_future(push())


class Idle(Socket):
    """Nothing is sent."""


class PushesInACallback(Socket):
    """A loop of the handler's, of which tornado logs what it raises."""

    def open(self) -> None:
        self._until = time.monotonic() + PATIENCE
        callback: Any = self.push
        IOLoop.current().spawn_callback(callback)

    async def push(self) -> None:
        while self.pushing:
            await self.write_message("news")
            await asyncio.sleep(0.005)


class PushesInATask(PushesInACallback):
    """The same as a task, which asyncio logs when nobody has asked for its exception."""

    def open(self) -> None:
        self.start(self.push)

    def on_close(self) -> None:
        super().on_close()


class PushesWithoutWaiting(Socket):
    """Nobody looks at what becomes of the messages. The loop ends when the client has left."""

    def open(self) -> None:
        SEEN["unsent"] = False
        self.start(self.push)

    async def push(self) -> None:
        while self.pushing and self.ws_connection is not None:
            with contextlib.suppress(Exception):
                for _ in range(4):
                    # Nobody awaits it.
                    self.write_message(BIG, binary=True)
                connection: Any = self.ws_connection
                SEEN["unsent"] = connection.stream.writing()
            await asyncio.sleep(0.005)


class PushesInOpen(Socket):
    """``open()`` itself does not return."""

    async def open(self) -> None:
        self._until = time.monotonic() + PATIENCE
        await PushesInACallback.push(cast("PushesInACallback", self))


class PushesUntilGone(Socket):
    """A loop that asks before it writes."""

    def open(self) -> None:
        self.start(self.push)

    async def push(self) -> None:
        while self.pushing and not client_gone():
            await self.write_message("news")
            await asyncio.sleep(0.005)
        SEEN["asked"] = client_gone()


class Slow(Socket):
    """The client leaves during the handshake."""

    async def prepare(self) -> None:
        SEEN["waiting"] = self.request.path
        connection: Any = self.request.connection
        deadline = time.monotonic() + PATIENCE
        while not connection.stream.closed() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class SocketFromUpstream(Socket):
    """An upstream's reset in the middle of a conversation, or behind it for ``wait``."""

    async def on_message(self, message: str | bytes) -> None:
        if message == "wait":
            SEEN["waiting"] = self.request.path
            deadline = time.monotonic() + PATIENCE
            while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await FromTcp.ask(cast("FromTcp", self))


class SocketHides(Socket):
    """Fails while it writes to its client, which has left: in a callback of tornado's."""

    async def on_message(self, message: str | bytes) -> None:
        SEEN["waiting"] = self.request.path
        await self.fail()

    async def fail(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await ASYNC_HIDES[self.get_query_argument("how")](lambda: self.write_message("late"))


class SocketHidesInATask(SocketHides):
    """The same in a task that nobody waits for, which asyncio logs."""

    def open(self) -> None:
        SEEN["waiting"] = self.request.path
        self._task = asyncio.ensure_future(self.fail())

    def on_close(self) -> None:
        super().on_close()
        del self._task


class Broadcasts(Socket):
    """What goes wrong with one client's socket in another client's handler is no departure."""

    others: Final[list[Broadcasts]] = []

    def open(self) -> None:
        self.others.append(self)

    async def on_message(self, message: str | bytes) -> None:
        for other in self.others:
            await other.write_message(message)


def make_app() -> Application:
    """The app as the environment asks for it."""
    application = Application(
        [
            (routes.INDEX, Handler),
            ("/settle", Settle),
            ("/seen", WhatWasSeen),
            ("/waits", Waits),
            ("/returns", WaitsAndReturns),
            ("/streams", Streams),
            ("/lingers", Lingers),
            ("/streams-big", StreamsBig),
            ("/catches", Catches),
            ("/whole", Whole),
            ("/buffered", Handler),
            ("/reads", Reads),
            ("/echoes", Echoes),
            ("/refuses", Refuses),
            ("/gone-async", GoneAsync),
            ("/gone-sync", GoneSync),
            ("/holds", Holds),
            ("/stays", Stays),
            ("/bug", Bug),
            ("/hides", Hides),
            ("/hides-reading", HidesWhileReading),
            ("/upstream/http", FromHttp),
            ("/upstream/tcp", FromTcp),
            ("/upstream/tcp-writing", FromTcpWriting),
            ("/upstream/websocket", FromWebSocket),
            ("/upstream/socket", FromSocket),
            ("/upstream/reading", FromTcpWhileReading),
            ("/ws/idle", Idle),
            ("/ws/echo", Socket),
            ("/ws/callback", PushesInACallback),
            ("/ws/task", PushesInATask),
            ("/ws/without-waiting", PushesWithoutWaiting),
            ("/ws/open", PushesInOpen),
            ("/ws/until-gone", PushesUntilGone),
            ("/ws/slow", Slow),
            ("/ws/upstream", SocketFromUpstream),
            ("/ws/hides", SocketHides),
            ("/ws/hides-in-a-task", SocketHidesInATask),
            ("/ws/broadcast", Broadcasts),
        ]
    )
    if routes.wrapped():
        from cleanclose.tornado import install

        return install(application, outlets=tap.outlets(), **routes.settings())
    return application


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    upstream = await asyncio.start_server(reset, "127.0.0.1", 0)
    UPSTREAM.append(upstream.sockets[0].getsockname()[1])
    certificate = os.environ.get("TEST_CERTIFICATE")
    server = HTTPServer(
        make_app(),
        body_timeout=float(os.environ.get("TEST_BODY_TIMEOUT", "60")),
        ssl_options={"certfile": certificate, "keyfile": certificate} if certificate else None,
    )
    server.listen(port, "127.0.0.1")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    server.stop()
    await server.close_all_connections()
    # Handlers find that out by themselves.
    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.INFO)
    enable_pretty_logging()
    tap.tap_logging()
    asyncio.run(main(int(sys.argv[1])))
