"""Carries out the core's steps on a tornado connection.

Tornado reads by itself and pushes the data: to drain means to let it. HTTP1Connection.finish makes
it discard what still comes, and closes the stream when the response is written. So everything about
the body has to happen before the finish is forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from tornado import concurrent, httputil, iostream

from cleanclose.core import Mechanism
from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.framing import CHUNKED, needs_length, response_length
from cleanclose.core.deliver.patience import LOOK
from cleanclose.core.deliver.pieces import may_block
from cleanclose.core.deliver.table import Done, Forward, Keep, Read, Respond, State, Step
from cleanclose.core.kernel import how_left
from cleanclose.linger import can_linger, descriptor_of, hand_over
from cleanclose.servers.tornado import (
    TORNADO,
    error_of_closing,
    hear_words,
    read_no_request,
    stop_reading,
    unread_bytes,
)
from cleanclose.tornado._witness import TornadoWatch

if TYPE_CHECKING:
    from cleanclose.tornado._upload import UploadWatch

__all__ = ["Delivery"]

_clock: Final = time.monotonic


class Delivery:
    """A response that has begun before its request's body was complete.

    The watch refers to it, until the request's body and its response are over.

    Args:
        watch: The request's watch.
        connection: Tornado's connection, which is needed for as long as anything is kept back.
    """

    def __init__(self, watch: UploadWatch, connection: object) -> None:
        self._watch = watch
        self._connection = connection
        self._stream: Any = watch.stream
        self._loop = asyncio.get_running_loop()
        self._head: tuple[httputil.ResponseStartLine, httputil.HTTPHeaders] | None = None
        self._pieces: list[bytes] = []
        self._written: list[asyncio.Future[None]] = []
        self.is_over: bool = False
        """Whether the response has been forwarded to its end."""
        self._rests = False
        self._timer: asyncio.TimerHandle | None = None
        self._end_hearing: Callable[[], None] | None = None
        self.exchange = watch.setup.begin_delivery(
            watch,
            _clock(),
            server=TORNADO,
            connection=Connection(
                in_reach=can_linger() and descriptor_of(self._stream.socket) is not None
            ),
            headers=watch.headers,
        )

    # What the application does.

    def begin(
        self,
        start_line: httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None,
    ) -> asyncio.Future[None] | None:
        """The application begins the response.

        Returns:
            The future for the application if it is kept back; None if it is to go out now.
        """
        length = response_length(headers.get("Content-Length"))
        step = self.exchange.response_started(start_line.code, length, _clock())
        if chunk:
            step = self.exchange.response_piece(len(chunk), _clock())
        if isinstance(step, Keep):
            # A copy: the application may change its headers afterwards.
            self._head = (start_line, headers.copy())
        return self._kept(chunk, step)

    def go_on(self, chunk: bytes) -> asyncio.Future[None] | None:
        """The application goes on with the response. Returns what `begin` does."""
        return self._kept(chunk, self.exchange.response_piece(len(chunk), _clock()))

    def _kept(self, piece: bytes | None, step: Step) -> asyncio.Future[None] | None:
        if not isinstance(step, Keep):
            self.do(step)
            return None
        if piece:
            self._pieces.append(piece)
        written: asyncio.Future[None] = self._loop.create_future()
        self._written.append(written)
        self._loop.call_soon(self._turn_over)
        return written

    def finish(self) -> None:
        """The application has finished: from now on we forward the end."""
        if self._stream.closed():
            self.closed()
        step = self.exchange.response_completed(_clock())
        if self.exchange.early:
            # That reports the client's side; only this place knows what the application raised.
            self._watch.app_finished()
        self.do(step)

    def app_reads(self) -> None:
        """The application waits for more of the body."""
        self.do(self.exchange.app_read(_clock()))

    def _turn_over(self) -> None:
        if self._written:
            # The application's futures have the error that this raises.
            with contextlib.suppress(Exception):
                self.do(self.exchange.turn_over(_clock()))

    # What the connection does.

    def body_comes(self, size: int, *, ends: bool = False) -> None:
        """A piece of the body has come, of so many bytes."""
        self.do(self.exchange.body_received(size, ends, _clock()))

    def rest(self) -> Awaitable[None] | None:
        """What tornado has to wait for before it reads on; None if it may read."""
        if self.exchange.handed_over:
            # A closed stream keeps the future of its last read, and that keeps this context.
            CURRENT.set(None)
        return _all_written(self._stream) if self._rests and not self._stream.closed() else None

    def closed(self) -> None:
        """Tornado says that the connection is closed. It does not say by whom, without an error."""
        if self._stream.closed():
            self.do(self.exchange.peer_gone(Mechanism.of(self._stream.error), _clock()))
        else:
            # It closes the connection next, because the application has raised.
            self._closes_next(None)

    # The steps.

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

    def _drain(self, seconds: float) -> None:
        self._hear_words()
        self._watch.drained_by = self._tornado_closes
        # Tornado may have to wait for an application that waits for these.
        _settle(self._written)
        self._written.clear()
        at = self._loop.time() + (seconds or LOOK)
        if self._timer is not None:
            if seconds and at >= self._timer.when():
                # The earlier one will ask again.
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._watch.tornado_waits or self._stream.reading():
            self._nothing_came()
        else:
            # Tornado's task has a piece that has come and is not counted yet.
            self._loop.call_soon(self._nothing_came)

    def _nothing_came(self) -> None:
        if self.exchange.state is State.DRAINING:
            self.do(self.exchange.nothing_came(_clock()))

    def _end_drain(self) -> None:
        self._watch.drained_by = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _respond(self, step: Respond) -> None:
        self._end_drain()
        self._hear_words()
        watch, stream = self._watch, self._stream
        if watch.length == CHUNKED:
            # Tornado may go on reading while it writes.
            watch.take_at_most(self.exchange.most_received)
        taken = None
        if step.linger:
            taken = hand_over(
                self.exchange,
                watch.setup,
                descriptor_of(stream.socket),
                _clock(),
                unread=unread_bytes(stream),
                reads=watch.tornado_waits,
                notified=not (watch.tornado_waits and self._may_block()),
            )
            self._rests = taken is not None and watch.tornado_waits
        self._flush(close=step.close)
        self.exchange.responded(_clock())
        self._forward_end()

        def over(_: object = None) -> None:
            self._let_words_pass()
            if taken is not None:
                taken.let_go()

        if stream.closed():
            over()
            return
        if self._rests:
            stop_reading(stream)
        # An empty write is done when all that was written before it is, and tornado closes the
        # stream then.
        stream.write(b"").add_done_callback(over)

    def _may_block(self) -> bool:
        """Whether a client that only writes could keep the response from being written."""
        return self._stream.writing() or may_block(sum(map(len, self._pieces)))

    def _done(self) -> None:
        self._end_drain()
        self._let_words_pass()
        self._flush()
        if self._stream.closed():
            self.exchange.response_lost()
        self._forward_end()

    def _flush(self, *, close: bool = False) -> None:
        """Send what is kept back.

        Args:
            close: Whether the head is to say that the connection will be closed.
        """
        head, self._head = self._head, None
        pieces, written = b"".join(self._pieces), self._written
        self._pieces, self._written = [], []
        future: asyncio.Future[None] | None = None
        try:
            if head is not None:
                start_line, headers = head
                if self.exchange.is_kept_whole and needs_length(
                    str(start_line.code), headers.get_all()
                ):
                    headers["Content-Length"] = str(len(pieces))
                if close:
                    headers["Connection"] = "close"
                future = TornadoWatch.write_headers(self._watch, start_line, headers, pieces)
            elif pieces:
                future = TornadoWatch.write(self._watch, pieces)
        except Exception as error:
            _settle(written, error)
            raise
        if future is None:
            _settle(written)
        else:
            concurrent.future_add_done_callback(future, lambda done: _follow(written, done))

    def _forward_end(self) -> None:
        if self.is_over or not self.exchange.response_complete:
            return
        self.is_over = True
        # Tornado may close the stream, and goes on in what it has read.
        read_no_request(self._stream)
        try:
            TornadoWatch.finish(self._watch)
        finally:
            self._watch.setup.reporter.report(self.exchange.event(_clock()))

    # Tornado's own actions while a complete response is being delivered.

    def _tornado_closes(self, exc_info: Any) -> None:
        """Before tornado closes the stream, for its end or for a line that is too long."""
        self._closes_next(error_of_closing(exc_info))
        self._stream.close(exc_info)

    def _closes_next(self, error: object) -> None:
        seen = how_left(self._stream.socket)
        self.do(self.exchange.connection_closes(error, seen, _clock()))

    def _hear_words(self) -> None:
        if self._end_hearing is None:
            self._end_hearing = hear_words(
                self._stream, is_kept=lambda: self._head is not None, malformed=self._malformed
            )

    def _let_words_pass(self) -> None:
        if self._end_hearing is not None:
            self._end_hearing()
            self._end_hearing = None

    def _malformed(self) -> None:
        if self.exchange.state is State.DRAINING:
            self.do(self.exchange.body_malformed(_clock()))


async def _all_written(stream: Any) -> None:
    with contextlib.suppress(iostream.StreamClosedError):
        await stream.write(b"")


def _settle(written: list[asyncio.Future[None]], error: BaseException | None = None) -> None:
    """Complete futures of the application's, by what tornado has or has not written."""
    for each in written:
        if each.done():
            continue
        if error is None:
            each.set_result(None)
            continue
        each.set_exception(error)
        if isinstance(error, iostream.StreamClosedError):
            # As HTTP1Connection does with its own: nobody has to look at it.
            each.exception()


def _follow(written: list[asyncio.Future[None]], done: asyncio.Future[None]) -> None:
    _settle(written, None if done.cancelled() else done.exception())
