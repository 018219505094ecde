"""The core's steps, done on a tornado connection.

Tornado reads by itself and pushes: reading is letting it, not reading is keeping it waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any, cast

from tornado import httputil
from tornado.ioloop import IOLoop

from cleanclose.core import (
    TORNADO,
    Done,
    Exchange,
    Facts,
    Forward,
    Hold,
    Keep,
    Mechanism,
    Places,
    Read,
    Reporter,
    Respond,
    Settings,
    Step,
    ask_connection,
)
from cleanclose.tornado._witness import WatchedConnection

__all__ = ["Delivery"]

Head = tuple[httputil.ResponseStartLine, httputil.HTTPHeaders]


class Delivery:
    """One exchange, and what of its response is kept back.

    It refers neither to the delegate nor to the connection which the application has: that
    would be a reference cycle per request.

    Args:
        connection: The connection, with its watch.
        settings: The limits.
        places: Where the turn to read is asked for.
        reporter: What is told of the end.
        facts: The request, for the event.
        length: The body's length, or `cleanclose.core.CHUNKED`.
        expects_continue: Whether the client announced that it waits for a 100.
    """

    def __init__(
        self,
        connection: WatchedConnection,
        settings: Settings,
        places: Places,
        reporter: Reporter,
        *,
        facts: Facts,
        length: int,
        expects_continue: bool,
    ) -> None:
        self.connection = connection
        # Its callbacks are annotated with a bare Callable, which strict checkers call unknown.
        self._loop: Any = IOLoop.current()
        self._reporter = reporter
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self._app_finished = False
        self._finished = False
        self._guarded: Any = None
        self._close_before: object = None
        self._timer: object = None
        self._timer_at = 0.0
        self._unread: asyncio.Future[None] | None = None
        self.exchange = Exchange(
            settings,
            places,
            server=TORNADO,
            facts=facts,
            length=length,
            expects_continue=expects_continue,
            wake=self._wake,
            now=self._loop.time(),
        )

    @property
    def now(self) -> float:
        """The loop's time, the clock of this exchange."""
        now: float = self._loop.time()
        return now

    def keep_head(self, start_line: httputil.ResponseStartLine, headers: Any) -> None:
        """Keep the response's head back."""
        # A copy: the application may change its headers for whatever comes next.
        self._head = (start_line, headers.copy())

    def keep_piece(self, piece: bytes) -> None:
        """Keep a piece of the response back."""
        self._pieces.append(piece)

    def app_finished(self) -> None:
        """The application called finish(): its end is ours to forward now."""
        self._app_finished = True

    def unread(self) -> asyncio.Future[None] | None:
        """What tornado has to wait for before it reads on; None if it may read."""
        if isinstance(self.exchange.step(self.now), Hold):
            if self._unread is None:
                self._unread = asyncio.get_running_loop().create_future()
                # Tornado would notice only when it reads on.
                self.connection.stream.set_close_callback(self.closed)
            return self._unread
        return None

    def closed(self) -> None:
        """The connection is closed. By whom tornado does not tell, unless there was an error."""
        stream = self.connection.stream
        error = None if stream is None else stream.error
        if self.exchange.treated and error is None:
            self._ask_kernel()
        self.do(self.exchange.peer_gone(Mechanism.of(error), self.now))

    def do(self, step: Step) -> None:
        """Carry out a step."""
        if self.exchange.asks_kernel:
            step = self._ask_kernel()
        self._unguard()
        while True:
            match step:
                case Respond(close):
                    self._flush(close=close)
                    self.exchange.responded(self.now)
                    step = self._ask_kernel()
                    continue
                case Keep(seconds) | Read(seconds) | Hold(seconds):
                    self._arm(seconds)
                case Forward():
                    self._disarm()
                    self._flush(close=False)
                case Done(close):
                    self._disarm()
                    self._flush(close=False)
                    self._finish(close=close)
            break
        if self.exchange.treated:
            self._guard()
        if self._unread is not None and not isinstance(step, Hold):
            if not self._unread.done():
                self._unread.set_result(None)
            self._unread = None
            if self.connection.stream is not None:
                self.connection.stream.set_close_callback(None)

    def _guard(self) -> None:
        """Keep tornado from writing, and from closing: a complete response is being delivered.

        What it would write is a 100 that the client does not need any more, or a bare 400
        behind the response. What it closes for (the end of the stream, a line too long) must
        not take a response with it that is still kept back.
        """
        if self._guarded is None:
            self._guarded = stream = self.connection.stream
            self._close_before = stream.__dict__.get("close")
            stream.write = self._write_of_tornado
            stream.close = self._close_of_tornado

    def _unguard(self) -> None:
        stream, self._guarded = self._guarded, None
        if stream is not None:
            del stream.write
            if self._close_before is None:
                del stream.close
            else:
                stream.close = self._close_before

    def _close_of_tornado(self, exc_info: Any = False) -> None:
        stream = self.connection.stream
        # IOStream.close takes an exception, a triple, or True for the one that is being handled.
        error: object = sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(error, tuple):
            error = cast("tuple[object, ...]", error)[1]
        if isinstance(error, Exception):
            self.do(self.exchange.reading_failed(error, self.now))
        else:
            self._ask_kernel()
            self.do(self.exchange.peer_gone(Mechanism.UNKNOWN, self.now))
        stream.close(exc_info)

    def _write_of_tornado(self, data: bytes) -> asyncio.Future[None]:
        if data.startswith(b"HTTP/1.1 100"):
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            written.set_result(None)
            return written
        # HTTP1Connection._read_message_inner: it cannot make out the rest of the body.
        self.do(self.exchange.body_malformed(self.now))
        # It closes the connection when this is done: when what we have written is out.
        flushed: asyncio.Future[None] = self.connection.stream.write(b"")
        return flushed

    def _wake(self) -> None:
        # The loop may be closed by then; there is nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.add_callback(self._tick)

    def _tick(self) -> None:
        self._disarm()
        self.do(self._ask_kernel())

    def _ask_kernel(self) -> Step:
        """Tell the core what the kernel says of the connection; while it is closed, nothing."""
        exchange, stream = self.exchange, self.connection.stream
        sock = None if stream is None else stream.socket
        connection = ask_connection(sock) if exchange.early else None
        buffered = stream is not None and stream.writing()
        return exchange.connection_state(connection, self.now, buffered=buffered)

    def _arm(self, seconds: float) -> None:
        at = self.now + seconds
        if self._timer is not None:
            if at >= self._timer_at:
                # The earlier one will ask again.
                return
            self._disarm()
        self._timer_at = at
        self._timer = self._loop.call_later(seconds, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def _flush(self, *, close: bool) -> None:
        head, self._head = self._head, None
        pieces = b"".join(self._pieces)
        self._pieces.clear()
        if head is not None:
            start_line, headers = head
            if close:
                headers["Connection"] = "close"
            self.connection.write_headers(start_line, headers, pieces)
        elif pieces:
            self.connection.write(pieces)

    def _finish(self, *, close: bool) -> None:
        if self._finished or not self._app_finished:
            return
        self._finished = True
        self._ask_kernel()
        try:
            self.connection.finish()
            if close:
                _close_when_written(self.connection)
        finally:
            self._reporter.report(self.exchange.event(self.now))


def _close_when_written(connection: Any) -> None:
    # HTTP1Connection.finish closes only if the body is unread, or if the request said so.
    stream = connection.stream
    if stream is None or stream.closed():
        return
    if not stream.writing():
        connection.close()
        return
    close: Callable[[], None] = connection.close
    # An empty write is done when all that was written before it is.
    written: asyncio.Future[None] = asyncio.ensure_future(stream.write(b""))

    def then(done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            # Looked at: or it would be logged as an exception that was never retrieved.
            done.exception()
        close()

    written.add_done_callback(then)
