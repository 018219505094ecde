"""One request with a body, and the delivery of its response: the core's steps are done."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Final

from cleanclose.core import (
    CHUNKED,
    Done,
    Exchange,
    Hold,
    Keep,
    Mechanism,
    Read,
    Respond,
    Step,
    UploadDrained,
    ask_connection,
    is_called_by_wsgi_server,
    response_length,
)
from cleanclose.wsgi._source import Piece, Source
from cleanclose.wsgi._witness import ExcInfo, Headers, Write, WsgiWatch, client_socket

__all__ = ["Delivery"]

_READY: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
"""What goes through a response that is there already, as a whole."""


class Delivery:
    """What the application calls, where the exchange stands in between, and what comes after.

    Args:
        exchange: The exchange.
        watch: Its witnesses.
        source: Opens what the rest of the body is read from.
        length: The body's length, or `cleanclose.core.framing.CHUNKED`.
        close: Tells the server not to use the connection again, if there is a way.
        end: Tells the server that nothing is left to read, if it would look for it.
        taken: Whether the server itself has read the rest of the body.
        sleep: Lets so many seconds pass.
    """

    def __init__(
        self,
        exchange: Exchange,
        watch: WsgiWatch,
        source: Callable[[], Source],
        length: int,
        close: Callable[[], None],
        end: Callable[[], None],
        taken: Callable[[], bool],
        sleep: Callable[[float], None],
    ) -> None:
        self.exchange = exchange
        self._watch = watch
        self._force_close = close
        self._end = end
        self._taken = taken
        self._sleep = sleep
        self.pending: deque[bytes] = deque()
        self._open_source = source
        self._source: Source | None = None
        self._left = None if length == CHUNKED else length
        # Now: the application may put something else in the place of wsgi.input.
        self._socket: object = client_socket(watch.environ, watch.server)

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """What the application has as ``start_response``."""
        try:
            self._watch.start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None
        self.notice()
        length = [value for name, value in headers if name.lower() == "content-length"]
        self.exchange.response_started(
            # What is no number is none of only_statuses.
            self._watch.status or 0,
            response_length(length[0]) if length else None,
            time.monotonic(),
        )
        return self._write

    def _write(self, data: bytes) -> object:
        # PEP 3333: what is written must not wait for more.
        exchange = self.exchange
        exchange.response_piece(len(data), time.monotonic())
        self._sent(exchange.release(time.monotonic()))
        return self._watch.write(data)

    def notice(self) -> None:
        """What the witnesses know, the exchange must know too: nothing is left to wait for."""
        departure = self._watch.departure
        if departure is not None:
            self.exchange.peer_gone(departure.mechanism, time.monotonic())

    # What it reads.

    @property
    def left(self) -> int | None:
        """Bytes of the body that are still to come; None if it is chunked."""
        return self._left

    def app_reads(self) -> None:
        """The application is about to read."""
        self._sent(self.exchange.app_read(time.monotonic()))
        self._write_pending()

    def app_read(self, size: int, *, at_end: bool) -> None:
        """It has read.

        Raises:
            TruncatedBodyError: And found the end too early.
        """
        if at_end and self._left is not None and self._taken():
            # No byte is missing on the connection.
            self._left = size
            self._watch.body_complete = True
            at_end = False
        self._count(size, at_end=at_end)
        self._watch.body_read(size)
        if at_end:
            self._watch.body_ended()

    def app_failed(self, error: Exception) -> None:
        """Its reading raised."""
        self._watch.body_failed(error)
        self._failed(error)

    # The response, piece by piece.

    def next_piece(self, pieces: Iterator[bytes]) -> bytes | None:
        """The next piece for the server; None at the end.

        A piece that may be the last is kept until the application has said whether it is. Not
        if it comes straight from a generator: what that does behind its last piece may take any
        time.
        """
        exchange = self.exchange
        may_wait = not isinstance(pieces, GeneratorType)
        # An empty piece may be the sign of an application that has nothing to say yet.
        may_wait_empty = type(pieces) in _READY or exchange.ends_with_response
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                step = self._carry_out(exchange.response_completed(time.monotonic()))
                self._close_if(step)
                if exchange.lingers_before_end and not self.pending:
                    if isinstance(step, Respond):
                        self._close_if(self._carry_out(exchange.responded(time.monotonic())))
                    self._end()
                break
            self.pending.append(piece)
            step = exchange.response_piece(len(piece), time.monotonic())
            if isinstance(step, Keep) and (piece or may_wait_empty):
                if may_wait:
                    continue
                step = exchange.release(time.monotonic())
            self._sent(step)
            break
        return self.pending.popleft() if self.pending else None

    def let_go(self) -> None:
        """Let the piece go which was kept because it seemed to be the last: an error followed it.

        That error is the one to be seen, whatever comes of the piece.
        """
        with contextlib.suppress(Exception):
            self._write_pending()

    def make_way(self) -> None:
        """The application has raised, and the server will answer: read the body before it does.

        Not where somebody stands in between, who may have another application to try.
        """
        # inspect.currentframe() would have to be kept in a local, which is a cycle.
        here = sys._getframe  # pyright: ignore[reportPrivateUsage]
        if not self.pending and is_called_by_wsgi_server(here(), self._watch.server):
            self._close_if(self._carry_out(self.exchange.left_to_server(time.monotonic())))
            self.abandon()

    def abandon(self) -> None:
        """The application's response cannot go on."""
        self.exchange.abandoned(time.monotonic())

    def close(self, *, all_sent: bool = True) -> None:
        """The server has written what it will write: see the delivery through.

        Args:
            all_sent: Whether the server has asked for all of the response.
        """
        exchange = self.exchange
        now = time.monotonic()
        step = exchange.app_ended(now)
        if not all_sent:
            exchange.response_lost()
        if isinstance(step, Respond):
            step = exchange.responded(now)
        try:
            self._close_if(self._carry_out(step))
        except BaseException:
            self._close_if(exchange.abandoned(time.monotonic()))
            raise
        finally:
            if exchange.early:
                self._ask_kernel()

    def drop(self) -> None:
        """There will be no `close`: whatever the kernel says now is the end."""
        exchange = self.exchange
        if exchange.treated:
            if isinstance(exchange.step(time.monotonic()), Respond) and not self.pending:
                exchange.responded(time.monotonic())
            self._ask_kernel()
        self.abandon()

    def event(self) -> UploadDrained | None:
        """The event, when all is over."""
        return self.exchange.event(time.monotonic())

    def _sent(self, step: Step) -> None:
        """What is kept back goes out with the call that is under way."""
        if isinstance(step, Respond) and not self.exchange.treated:
            self.exchange.responded(time.monotonic())

    def _write_pending(self) -> None:
        while self.pending and self._watch.status is not None:
            self._watch.write(self.pending.popleft())

    # The steps.

    def _close_if(self, step: Step) -> None:
        if isinstance(step, Respond | Done) and step.close:
            self._force_close()

    def _carry_out(self, step: Step) -> Step:
        while True:
            match step:
                case Read(seconds):
                    step = self._discard(seconds)
                case Hold(seconds):
                    self._sleep(seconds)
                    step = self._ask_kernel()
                case _:
                    return step

    def _discard(self, seconds: float) -> Step:
        exchange = self.exchange
        if self._source is None:
            self._source = self._open_source()
        try:
            result = self._source.read(self._left, seconds)
        except Exception as error:  # noqa: BLE001 - the core is told what it was
            return self._failed(error)
        if isinstance(result, Piece):
            step = self._count(result.size, at_end=result.ended)
            return self._ask_kernel() if exchange.asks_kernel else step
        return self._ask_kernel()

    def _ask_kernel(self) -> Step:
        return self.exchange.connection_state(ask_connection(self._socket), time.monotonic())

    def _failed(self, error: Exception) -> Step:
        """Reading the body failed, whoever read."""
        if self.exchange.treated and Mechanism.of(error) is Mechanism.UNKNOWN:
            # A server's own error for an end that comes too early: gevent's has no number.
            self._ask_kernel()
        return self.exchange.reading_failed(error, time.monotonic())

    def _count(self, size: int, *, at_end: bool) -> Step:
        now = time.monotonic()
        if self._left is not None:
            self._left -= size
        complete = at_end if self._left is None else self._left <= 0
        step = self.exchange.body_received(size, complete, now)
        if at_end and not complete:
            if self.exchange.treated:
                self._ask_kernel()
            # The stream ended before the body: the peer's half of the connection is closed.
            step = self.exchange.peer_gone(Mechanism.EOF, now)
        return step
