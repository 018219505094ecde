"""Carries out the core's steps on a tornado connection.

Tornado reads by itself and pushes the data: to drain means to let it. HTTP1Connection.finish makes
it discard what still comes, and closes the stream when the response is written. So everything about
the body has to happen before the finish is forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, cast

from tornado import httputil, iostream
from tornado.ioloop import IOLoop

from cleanclose.core import Mechanism
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import CHUNKED, needs_length, wants_continue
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.deliver.table import Done, Forward, Keep, Read, Respond, State, Step
from cleanclose.linger import LINGERER, Handover, can_linger, descriptor_of
from cleanclose.servers import number
from cleanclose.servers.tornado import TORNADO
from cleanclose.tornado._witness import TornadoWatch, ask_the_kernel

if TYPE_CHECKING:
    from cleanclose.tornado._connection import WatchedConnection

__all__ = ["Delivery"]

Head = tuple[httputil.ResponseStartLine, httputil.HTTPHeaders]

_LOOK: Final = 0.002
"""Seconds in which the event loop sees what has arrived, and tornado's task has it."""
_CONTINUE: Final = b"HTTP/1.1 100 "
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Delivery:
    """A response that has begun before its request's body was complete.

    The connection refers to it, until the request's body and its response are over.

    Args:
        connection: The connection.
        watch: Its watch.
    """

    def __init__(self, connection: WatchedConnection, watch: TornadoWatch) -> None:
        self.connection = connection
        self._setup = setup = watch.setup
        headers = watch.headers
        self._length = length = CHUNKED if watch.expected_in is None else watch.expected_in
        self._loop = asyncio.get_running_loop()
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self._written: list[asyncio.Future[None]] = []
        self._app_finished = False
        self._finished = False
        self._rests = False
        self._timer: asyncio.TimerHandle | None = None
        self._write: Any = None
        self._close: Any = None
        self._is_writing = False
        facts = watch.facts()
        self.exchange = Exchange(
            setup.settings,
            setup.places,
            server=TORNADO,
            connection=Connection(
                address=facts.client,
                lingers=can_linger() and descriptor_of(connection.stream.socket) is not None,
                proxied=not PROXY_FIELDS.isdisjoint(name.lower() for name in headers),
            ),
            facts=facts,
            length=length,
            awaits_continue=not connection.tornado_reads
            and wants_continue(headers.get("Expect"))
            and not names_caddy(headers.get("Via")),
            started=watch.started,
            received=watch.bytes_in,
        )

    @property
    def is_over(self) -> bool:
        """Whether the response has been forwarded to its end."""
        return self._finished

    @property
    def now(self) -> float:
        """The time, on the clock of this exchange: one that only goes forward."""
        return time.monotonic()

    # What the application does.

    def keep(self, piece: bytes | None, head: Head | None = None) -> asyncio.Future[None]:
        """Keep back a piece of the response.

        Args:
            piece: The piece, if there is one.
            head: The response's head, if it comes with it.

        Returns:
            The future for the application.
        """
        if head is not None:
            # A copy: the application may change its headers afterwards.
            self._head = (head[0], head[1].copy())
        if piece:
            self._pieces.append(piece)
        written: asyncio.Future[None] = self._loop.create_future()
        self._written.append(written)
        self._loop.call_soon(self._turn_over)
        return written

    def finish(self) -> None:
        """The application has finished: from now on we forward the end."""
        exchange = self.exchange
        if self.connection.stream.closed():
            self.closed()
        self._app_finished = True
        step = exchange.response_completed(self.now)
        if exchange.early:
            # That reports the client's side; only this place knows what the application raised.
            self.connection.watch.app_finished()
        self.do(step)

    # The connection.

    def rest(self) -> Awaitable[None] | None:
        """What tornado has to wait for before it reads on; None if it may read."""
        stream = self.connection.stream
        return _all_written(stream) if self._rests and not stream.closed() else None

    def closed(self) -> None:
        """The connection is closed. Tornado does not say by whom, unless there was an error."""
        error = self.connection.stream.error
        self.do(self.exchange.peer_gone(Mechanism.of(error), self.now))

    def do(self, step: Step) -> None:
        """Carry out a step."""
        match step:
            case Read(seconds):
                self._drain(seconds)
            case Respond():
                self._respond(step)
            case Done():
                self._done()
            case Forward():
                self._flush()
            case Keep():
                pass

    # The steps.

    def _turn_over(self) -> None:
        if self.exchange.state is State.KEPT:
            # The application's futures have the error that this raises.
            with contextlib.suppress(Exception):
                self.do(self.exchange.turn_over(self.now))

    def _drain(self, seconds: float) -> None:
        self._guard()
        # Tornado may have to wait for an application that waits for these.
        for written in self._written:
            _settle(written)
        self._written.clear()
        at = self._loop.time() + (seconds or _LOOK)
        if self._timer is not None:
            if seconds and at >= self._timer.when():
                # The earlier one will ask again.
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        connection = self.connection
        if connection.tornado_waits or connection.stream.reading():
            self._nothing_came()
        else:
            # Tornado's task has a piece that has come and is not counted yet.
            self._loop.call_soon(self._nothing_came)

    def _nothing_came(self) -> None:
        if self.exchange.state is State.DRAINING:
            self.do(self.exchange.nothing_came(self.now))

    def _respond(self, step: Respond) -> None:
        self._end_drain()
        self._guard_writing()
        stream = self.connection.stream
        taken = self._hand_over() if step.linger else None
        if self._length == CHUNKED:
            # Tornado may go on reading while it writes.
            most = self.connection.watch.bytes_in + self._setup.settings.max_bytes
            self.connection.take_at_most(most)
        self._flush(whole=True, close=step.close)
        self.exchange.responded(self.now)
        self._finish()

        def over(_: object = None) -> None:
            self._unguard_writing()
            if taken is not None:
                taken.let_go()

        if stream.closed():
            over()
            return
        if self._rests:
            # A stream that still waits for READ events would go on reading, and TLS fails if
            # somebody else has taken bytes out.
            stream.io_loop.update_handler(stream.fileno(), IOLoop.WRITE | IOLoop.ERROR)
        # An empty write is done when all that was written before it is, and tornado closes the
        # stream then.
        stream.write(b"").add_done_callback(over)

    def _hand_over(self) -> Any:
        exchange, connection = self.exchange, self.connection
        descriptor = descriptor_of(connection.stream.socket)
        linger = exchange.linger(
            self.now,
            # Bytes that tornado has read and not passed on yet; 0 if the attribute has another name
            # now.
            unread=number(connection.stream, "_read_buffer_size") or 0,
        )
        linger.reads = connection.tornado_waits
        handover = Handover(
            linger=linger,
            report=self._setup.reporter.report,
            most=self._setup.settings.max_lingering,
            held_as=descriptor,
        )
        taken = None if descriptor is None else LINGERER.take(descriptor, handover)
        if taken is None:
            exchange.no_descriptor()
        else:
            self._rests = connection.tornado_waits
        return taken

    def _done(self) -> None:
        self._end_drain()
        self._unguard_writing()
        self._flush(whole=self._app_finished)
        stream = self.connection.stream
        if stream.closed():
            self.exchange.response_lost()
        self._finish()

    def _end_drain(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unguard_closing()

    def _flush(self, *, whole: bool = False, close: bool = False) -> None:
        """Send what is kept back.

        Args:
            whole: Whether that is all of the response, if its head is among it.
            close: Whether the head is to say that the connection will be closed.
        """
        head, self._head = self._head, None
        pieces = b"".join(self._pieces)
        written = self._written[:]
        self._pieces.clear()
        self._written.clear()
        self._is_writing = True
        future: asyncio.Future[None] | None = None
        try:
            if head is not None:
                start_line, headers = head
                if whole:
                    _add_length(start_line, headers, len(pieces))
                if close:
                    headers["Connection"] = "close"
                future = self.connection.send_head(start_line, headers, pieces)
            elif pieces:
                future = self.connection.send(pieces)
        except Exception as error:
            for each in written:
                _settle(each, error)
            raise
        finally:
            self._is_writing = False
        for each in written:
            _follow(each, future)

    def _finish(self) -> None:
        if self._finished or not self._app_finished:
            return
        self._finished = True
        try:
            self.connection.send_end()
        finally:
            self._setup.reporter.report(self.exchange.event(self.now))

    # Tornado's own actions while a complete response is being delivered.

    def _guard(self) -> None:
        """Keep tornado from closing, which would lose what is kept back.

        It closes for the end of the stream, and for a line that is too long.
        """
        self._guard_writing()
        if self._close is None:
            stream = self.connection.stream
            self._close = stream.close
            stream.close = self._close_of_tornado

    def _unguard_closing(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            stream = self.connection.stream
            del stream.close
            if getattr(close, "__self__", None) is not stream:
                stream.close = close

    def _guard_writing(self) -> None:
        """Keep tornado's own writes off the wire.

        These are a 100 after the head, and a bare 400 after the response.
        """
        if self._write is None:
            stream = self.connection.stream
            self._write = stream.write
            stream.write = self._write_of_tornado

    def _unguard_writing(self) -> None:
        if self._write is not None:
            self._write = None
            del self.connection.stream.write

    def _write_of_tornado(self, data: bytes) -> asyncio.Future[None]:
        stream, write = self.connection.stream, self._write
        is_continue = data.startswith(_CONTINUE) and self._head is None
        if self._is_writing or not (is_continue or data == _BAD_REQUEST):
            future: asyncio.Future[None] = write(data)
            return future
        if not is_continue:
            # HTTP1Connection._read_message_inner: it cannot parse the rest of the body. It closes
            # the connection when this is done: when what we have written is out.
            if self.exchange.state is State.DRAINING:
                self.do(self.exchange.body_malformed(self.now))
            if not stream.closed():
                flushed: asyncio.Future[None] = stream.write(b"")
                return flushed
        written: asyncio.Future[None] = self._loop.create_future()
        written.set_result(None)
        return written

    def _close_of_tornado(self, exc_info: Any = False) -> None:
        exchange, stream = self.exchange, self.connection.stream
        # IOStream.close takes an exception, a triple, or True for the one that is being handled.
        error: object = sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(error, tuple):
            error = cast("tuple[object, ...]", error)[1]
        if isinstance(error, Exception):
            step = exchange.reading_failed(error, self.now)
        else:
            seen = ask_the_kernel(stream)
            if seen is not None:
                step = exchange.peer_gone(seen, self.now)
            else:
                # The server stops, or its body_timeout is over.
                step = exchange.abandoned(self.now)
        self.do(step)
        stream.close(exc_info)


async def _all_written(stream: Any) -> None:
    with contextlib.suppress(iostream.StreamClosedError):
        await stream.write(b"")


def _add_length(
    start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders, length: int
) -> None:
    """Give a complete response its length.

    Without one the connection's end would be the response's, or a chunk's: some proxies make an
    error of an end that comes behind a response which they have passed on.
    """
    if needs_length(str(start_line.code), headers.get_all()):
        headers["Content-Length"] = str(length)


def _settle(written: asyncio.Future[None], error: BaseException | None = None) -> None:
    """Complete a future of the application's, by what tornado has or has not written."""
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        if isinstance(error, iostream.StreamClosedError):
            # As HTTP1Connection does with its own: nobody has to look at it.
            written.exception()


def _follow(written: asyncio.Future[None], future: asyncio.Future[None] | None) -> None:
    def end(done: asyncio.Future[None]) -> None:
        _settle(written, None if done.cancelled() else done.exception())

    if future is None:
        _settle(written)
    elif future.done():
        end(future)
    else:
        future.add_done_callback(end)
