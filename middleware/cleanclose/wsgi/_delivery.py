"""One request with a body, and the delivery of its response: carries out the core's steps."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any, Final

from cleanclose.core import Event, Mechanism
from cleanclose.core.blame.watch import OPEN
from cleanclose.core.conduct import is_unanswered
from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.framing import CHUNKED, response_length
from cleanclose.core.deliver.table import Keep, Read, Respond, Step
from cleanclose.core.server import Server
from cleanclose.linger import LINGERER, Handover
from cleanclose.servers import is_called_by_wsgi_server, is_socket_gone, wsgi_response
from cleanclose.wsgi._connection import ClientConnection, drain, find_connection
from cleanclose.wsgi._upload import UploadWatch
from cleanclose.wsgi._witness import ExcInfo, Headers, Write

__all__ = ["Delivery"]

_READY: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
"""The iterators of responses that already exist as a whole."""
_SMALL_RESPONSE: Final = 64 * 1024
"""Bytes of a response that fit into the socket buffers of a client that is not reading yet. A
server that sends more may wait for a client that waits for the server to read."""

_UNTOLD: Final = 64 * 1024


class Delivery:
    """The path of a response that begins before its request's body has been read to the end.

    Args:
        watch: The witnesses; its input is the application's.
        begin: Makes the exchange, once the response begins.
        report: Receives the lingerer's event.
        most: How many connections may linger.
    """

    def __init__(
        self,
        watch: UploadWatch,
        begin: Callable[[Delivery], Exchange],
        report: Callable[[Event], None],
        most: int,
    ) -> None:
        self.watch = watch
        self.server: Server = watch.server
        server = self.server
        # A bound method where nothing has wrapped it: gunicorn's Response, for one.
        self.response: object = wsgi_response(watch.server_start_response, server)
        self.stream: Any = watch.stream
        self.connection: ClientConnection | None = find_connection(
            watch.environ, self.stream, server
        )
        self.length: int = CHUNKED if watch.expected_in is None else watch.expected_in
        self.exchange: Exchange | None = None
        self.pending: deque[bytes] = deque()
        self._begin = begin
        self._report = report
        self._most = most
        # If the server cannot be made to close, the rest must stay as the server knows it.
        closes = server.closes_anyway or server.close is None or self.response is not None
        self.framed: bool = closes and (
            self.length != CHUNKED or bool(watch.environ.get("wsgi.input_terminated"))
        )
        self._declared: int | None = None
        self._has_drained = False
        self._untold = 0
        self._ahead = 0
        self._came = 0
        self._read = 0
        self._let_go: Callable[[], None] | None = None

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Begin the response."""
        if self.server.keeps_quiet and not self.watch.left_alone:
            headers = [pair for pair in headers if pair[0].lower() != "connection"]
            headers.append(("Connection", "close"))
        try:
            self.watch.start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None
        if self.watch.body_complete:
            return self._write
        exchange = self._exchange()
        length = [value for name, value in headers if name.lower() == "content-length"]
        self._declared = response_length(length[0]) if length else None
        # Anything but a number is not in only_statuses.
        exchange.response_started(self.watch.status or 0, self._declared, time.monotonic())
        return self._write

    def _exchange(self) -> Exchange:
        if self.exchange is None:
            watch, now = self.watch, time.monotonic()
            self.exchange = watch.delivery = exchange = self._begin(self)
            if self.watch.left_alone or (
                # Reading from there would wait for the client, as long as that likes.
                self.connection is None and is_socket_gone(self.stream, self.server)
            ):
                exchange.leave_alone()
            if self.watch.read_error is not None:
                exchange.reading_failed(self.watch.read_error, now)
            if watch.departure is not None:
                exchange.peer_gone(watch.departure.mechanism, now)
        return self.exchange

    def _write(self, data: bytes) -> object:
        exchange = self.exchange
        if exchange is not None:
            # PEP 3333: written data must not wait for more.
            exchange.response_piece(len(data), time.monotonic())
            exchange.turn_over(time.monotonic())
        return self.watch(data)

    # What it reads.

    @property
    def left(self) -> int | None:
        """Bytes of the body that are still to come; None if only its end tells its length."""
        return self.watch.left

    def app_reads(self) -> None:
        """The application is about to read."""
        if self.exchange is not None:
            self.exchange.app_read(time.monotonic())
            self._write_pending()

    def app_has_read(self, size: int, *, at_end: bool, complete: bool) -> Step | None:
        """It has read so many bytes; ``at_end`` if the stream was found at its end."""
        exchange = self.exchange
        if exchange is None:
            return None
        now = time.monotonic()
        step = exchange.body_received(size, complete, now)
        if at_end and not complete:
            # The stream ended before the body: the peer's half of the connection is closed.
            step = exchange.peer_gone(Mechanism.EOF, now)
        return step

    def reading_failed(self, error: Exception) -> None:
        """Its reading raised."""
        if self.exchange is not None:
            self.exchange.reading_failed(error, time.monotonic())

    def _count(self, size: int, *, at_end: bool) -> Step | None:
        left = self.watch.left
        if left is not None:
            self.watch.left = left = left - size
        complete = at_end if left is None else left <= 0
        return self.app_has_read(size, at_end=at_end, complete=complete)

    # The response, piece by piece.

    def next_piece(self, pieces: Iterator[bytes], *, ready: bool) -> bytes | None:
        """The next piece for the server; None at the end.

        A piece that may be the last is kept until the application has said whether it is. Not if it
        comes straight from a generator, which may work for any time after its last piece.

        Args:
            pieces: The application's.
            ready: Whether all of them are there already, or are made by nobody who could still
                read the body.
        """
        may_wait = not isinstance(pieces, GeneratorType)
        # An empty piece may mean that the application has nothing to say yet.
        may_wait_empty = type(pieces) in _READY or self.server.ends_with_response
        if type(pieces) in _READY and self.exchange is not None:
            if not self.exchange.response_complete:
                self.pending.extend(pieces)
                self._completed(sum(map(_size, self.pending)))
            return self.pending.popleft() if self.pending else None
        if ready and self.exchange is not None:
            self._completed(None)
            return next(pieces, None)
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                self._completed(0)
                break
            if self.watch.refused:
                self.pending.clear()
                break
            self.pending.append(piece)
            exchange = self.exchange
            if exchange is None:
                break
            step = exchange.response_piece(_size(piece), time.monotonic())
            if not isinstance(step, Keep):
                break
            if not may_wait or not (piece or may_wait_empty):
                exchange.turn_over(time.monotonic())
                break
        return self.pending.popleft() if self.pending else None

    def _completed(self, size: int | None) -> None:
        """The response is complete: drain, and hand the connection over.

        Args:
            size: The length of what has not been reported yet; None if only its head tells.
        """
        exchange = self.exchange
        if exchange is None or exchange.response_complete:
            return
        last = (self._declared or 0) if size is None else size
        unsent = None if size is None else sum(map(_size, self.pending))
        step = exchange.response_completed(time.monotonic(), last)
        if unsent is not None and exchange.early and self.watch.progress == OPEN:
            self.watch.declare_length(unsent, self.response)
        self._carry_out(step, may_block=unsent is None or unsent > _SMALL_RESPONSE)

    def let_pending_go(self) -> None:
        """Release the piece that was kept because it seemed to be the last: an error followed it.

        That error is the one to be seen, whatever comes of the piece.
        """
        with contextlib.suppress(Exception):
            self._write_pending()

    def app_failed(self, error: BaseException) -> None:
        """The application has raised, and the server will answer.

        Not if code in between may try another application.

        Args:
            error: The application's exception.
        """
        # inspect.currentframe() would have to be kept in a local, which is a cycle.
        here = sys._getframe  # pyright: ignore[reportPrivateUsage]
        if is_unanswered(
            error, begun=bool(self.pending), body_complete=self.watch.body_complete
        ) and is_called_by_wsgi_server(here(), self.server):
            exchange = self._exchange()
            self._carry_out(exchange.app_failed(time.monotonic()), may_block=False)

    def abandon(self) -> None:
        """The application's response cannot go on."""
        if self.exchange is not None:
            self.exchange.abandoned(time.monotonic())

    def close(self, *, all_sent: bool) -> None:
        """The server has written everything: report the outcome of an early response.

        Args:
            all_sent: Whether the server has asked for all of the response.
        """
        exchange = self.exchange
        if exchange is None:
            return
        exchange.app_ended(time.monotonic())
        let_go, self._let_go = self._let_go, None
        if not all_sent:
            # The server may still have an answer of its own to send.
            exchange.response_lost()
        elif let_go is not None:
            let_go()
        event = exchange.event(time.monotonic())
        if event is not None:
            self._report(event)

    def _write_pending(self) -> None:
        while self.pending and self.watch.status is not None:
            self.watch(self.pending.popleft())

    # The steps.

    def _carry_out(self, step: Step, *, may_block: bool) -> None:
        exchange = self.exchange
        assert exchange is not None
        if isinstance(step, Read):
            self._has_drained = True
            try:
                step = drain(self.stream, self.connection, self)
            except Exception as error:  # noqa: BLE001 - the core knows what it means
                step = exchange.reading_failed(error, time.monotonic())
            except BaseException:
                # The worker has to stop, or a time limit has passed.
                self._carry_out(exchange.abandoned(time.monotonic()), may_block=False)
                raise
        if isinstance(step, Respond):
            self._respond(step, may_block=may_block)
            exchange.responded(time.monotonic())
        elif exchange.early and not exchange.body_complete:
            self.force_close()

    def _respond(self, step: Respond, *, may_block: bool) -> None:
        if step.close:
            self.force_close()
        exchange, connection = self.exchange, self.connection
        if not step.linger or exchange is None or connection is None:
            return
        # If the reader is not known, its stream would wait for the client.
        ended = connection.end_reading()
        if ended and not self._has_drained and self.left is not None and exchange.may_read:
            self._count_buffered(exchange)
        linger = exchange.linger(time.monotonic())
        # The server sends, and closes.
        linger.reads = may_block
        handover = Handover(
            linger=linger, report=self._report, most=self._most, held_as=connection.number
        )
        taken = LINGERER.take(connection.number, handover)
        if taken is None:
            exchange.no_descriptor()
            return
        closes = self.server.closes_anyway or self.response is not None

        def let_go() -> None:
            connection.take_away(closes=closes)
            taken.let_go()

        if self.server.when_closing is not None:
            self.server.when_closing(self.response, let_go)
        elif self.server.closes_last:
            self._let_go = let_go

    def _count_buffered(self, exchange: Exchange) -> None:
        """Count what came with the request's head, in the server's own buffer."""
        # After it the server finds the end; nobody needs the error that a server may raise for
        # that.
        with contextlib.suppress(Exception):
            size = len(self.stream.read(min(self.left or 0, _UNTOLD)))
            exchange.body_received(size, False, time.monotonic())

    def force_close(self) -> None:
        """Make the server close the connection, if there is a way."""
        if self.server.close is not None:
            self.server.close(self.response, self.stream)

    # What a drain brings.

    def step(self) -> Step:
        """What to do now."""
        exchange = self.exchange
        assert exchange is not None
        return exchange.tick(time.monotonic())

    def came(self, size: int) -> Step:
        """So many bytes have come, and no reading has returned with them yet."""
        self._untold += size
        self._came += size
        # In chunks, only a read shows what is framing; but one chunk may be endless.
        if self.left is not None:
            return self._tell()
        exchange = self.exchange
        assert exchange is not None
        if self._untold >= _UNTOLD:
            self._tell()
        return exchange.on_wire(self._came, self._read, time.monotonic())

    def drained(self, size: int, *, at_end: bool) -> Step:
        """A reading has returned."""
        new = max(0, size - self._ahead)
        self._ahead = max(0, self._ahead - size)
        self._untold = 0
        self._read += size
        if self.watch.left is not None:
            # Bytes that were known before are counted with the rest.
            self.watch.left -= size - new
        step = self._count(new, at_end=at_end)
        assert step is not None
        return step

    def nothing_came(self) -> Step:
        """The time is over."""
        exchange = self.exchange
        assert exchange is not None
        self._tell()
        return exchange.nothing_came(time.monotonic())

    def _tell(self) -> Step:
        """Count what has come, though its reading may never return."""
        exchange = self.exchange
        assert exchange is not None
        size, self._untold = self._untold, 0
        self._ahead += size
        return exchange.body_received(size, False, time.monotonic())


def _size(piece: Any) -> int:
    # What is no bytes the server will not take, and say so.
    return len(piece) if isinstance(piece, bytes) else 0
