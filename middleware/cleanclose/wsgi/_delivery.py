"""One request with a body, and the delivery of its response: carries out the core's steps."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from cleanclose.core.blame.provenance import caller
from cleanclose.core.blame.watch import OPEN
from cleanclose.core.conduct import is_unanswered
from cleanclose.core.deliver.draining import Draining
from cleanclose.core.deliver.early import leaves_rest, may_read_ahead, says_close
from cleanclose.core.deliver.framing import response_length
from cleanclose.core.deliver.pieces import Source, Taking, may_block, may_wait, taking_of
from cleanclose.core.deliver.table import Keep, Read, Respond, Step
from cleanclose.core.setup import Setup
from cleanclose.linger import can_linger, hand_over
from cleanclose.servers import WsgiSide
from cleanclose.wsgi._witness import END, ExcInfo, Headers, Write, fields, size_of

if TYPE_CHECKING:
    from cleanclose.wsgi._upload import UploadWatch

__all__ = ["Delivery"]

_now: Final = time.monotonic


class Delivery:
    """The path of a response that begins before its request's body has been read to the end.

    Args:
        watch: The witnesses; its input is the application's.
        setup: What all exchanges share.
    """

    def __init__(self, watch: UploadWatch, setup: Setup) -> None:
        self.watch = watch
        self.pending: deque[bytes] = deque()
        self._setup = setup
        self._side = side = WsgiSide(
            watch.environ, watch.stream, watch.server_start_response, watch.server
        )
        self._let_go: Callable[[], None] | None = None
        self.exchange = setup.begin_delivery(
            watch,
            _now(),
            server=side.server,
            connection=side.traits(can_linger=can_linger(), length=watch.expected_in),
            headers=fields(watch.environ),
        )

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Begin the response."""
        if says_close(self.watch, self._side.server):
            headers = [pair for pair in headers if pair[0].lower() != "connection"]
            headers.append(("Connection", "close"))
        try:
            self.watch.start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None
        # Anything but a number is not in only_statuses.
        self.exchange.response_started(self.watch.status or 0, self._declared, _now())
        return self._write

    @property
    def _declared(self) -> int | None:
        return response_length(self.watch.content_length)

    def _write(self, data: bytes) -> object:
        # PEP 3333: written data must not wait for more.
        self.exchange.response_piece(len(data), _now())
        self.exchange.turn_over(_now())
        return self.watch(data)

    def app_reads(self) -> None:
        """The application is about to read."""
        self.exchange.app_read(_now())
        self._write_pending()

    # The response, piece by piece.

    def next_piece(self, pieces: Iterator[bytes], source: Source) -> bytes:
        """The next piece for the server; `END` behind the last one.

        Args:
            pieces: The application's.
            source: What makes them.
        """
        exchange = self.exchange
        match taking_of(source, begun=exchange.response_begun):
            case Taking.ONE_BY_ONE:
                self._gather(pieces, source)
            case Taking.BY_SERVER:
                self._completed(self._declared or 0, None)
                return next(pieces, END)
            case Taking.ALL if not exchange.response_complete:
                self.pending.extend(pieces)
                size = sum(map(size_of, self.pending))
                self._completed(size, size)
            case Taking.ALL:
                pass
        return self.pending.popleft() if self.pending else END

    def _gather(self, pieces: Iterator[bytes], source: Source) -> None:
        """Get pieces as long as they may wait for what comes behind them."""
        exchange = self.exchange
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                self._completed(0, sum(map(size_of, self.pending)))
                return
            if self.watch.refused:
                self.pending.clear()
                return
            self.pending.append(piece)
            size = size_of(piece)
            if not isinstance(exchange.response_piece(size, _now()), Keep):
                return
            if not may_wait(source, size, self._side.server):
                exchange.turn_over(_now())
                return

    def _completed(self, last: int, unsent: int | None) -> None:
        """The response is complete: drain, and hand the connection over.

        Args:
            last: The length of what has not been reported yet.
            unsent: The length of what the server has not got yet; None if nobody knows.
        """
        exchange = self.exchange
        if exchange.response_complete or not exchange.response_begun:
            return
        step = exchange.response_completed(_now(), last)
        if exchange.is_kept_whole and unsent is not None and self.watch.progress == OPEN:
            self.watch.declare_length(unsent, self._side.response)
        self._carry_out(step, blocks=may_block(unsent))

    def let_pending_go(self) -> None:
        """Release the piece that was kept because it seemed to be the last: an error followed it.

        That error is the one to be seen, whatever comes of the piece.
        """
        with contextlib.suppress(Exception):
            self._write_pending()

    def _write_pending(self) -> None:
        while self.pending and self.watch.status is not None:
            self.watch(self.pending.popleft())

    def app_failed(self, error: BaseException) -> None:
        """The application has raised, and the server will answer.

        Not if code in between may try another application.

        Args:
            error: The application's exception.
        """
        if is_unanswered(
            error, begun=bool(self.pending), body_complete=self.watch.body_complete
        ) and self._side.is_caller(caller()):
            self._carry_out(self.exchange.app_failed(_now()), blocks=False)

    def abandon(self) -> None:
        """The application's response cannot go on."""
        self.exchange.abandoned(_now())

    def close(self, *, all_sent: bool) -> None:
        """The server has written everything: report the outcome of an early response.

        Args:
            all_sent: Whether the server has asked for all of the response.
        """
        exchange = self.exchange
        exchange.app_ended(_now())
        if not all_sent:
            # The server may still have an answer of its own to send.
            exchange.response_lost()
        elif self._let_go is not None:
            self._let_go()
        self._let_go = None
        self._setup.reporter.report(exchange.event(_now()))

    # The steps.

    def _carry_out(self, step: Step, *, blocks: bool) -> None:
        exchange = self.exchange
        if isinstance(step, Read):
            step = self._drain()
        if isinstance(step, Respond):
            if step.close:
                self._side.close()
            if step.linger:
                self._hand_over(blocks=blocks)
            exchange.responded(_now())
        elif leaves_rest(exchange, failed=self.watch.read_error is not None):
            self._side.close()

    def _drain(self) -> Step:
        exchange, watch = self.exchange, self.watch
        draining = Draining(exchange, watch.left, _now)
        try:
            return self._side.drain(draining)
        except Exception as error:  # noqa: BLE001 - the core knows what it means
            return exchange.reading_failed(error, _now())
        except BaseException:
            # The worker has to stop, or a time limit has passed.
            self._carry_out(exchange.abandoned(_now()), blocks=False)
            raise
        finally:
            watch.left = draining.left

    def _hand_over(self, *, blocks: bool) -> None:
        """Give the lingerer the connection, while the server sends, and closes."""
        exchange, side = self.exchange, self._side
        # If the reader is not known, its stream would wait for the client.
        if side.end_reading() and may_read_ahead(exchange):
            exchange.body_received(side.read_ahead(self.watch.left), False, _now())
        taken = hand_over(
            exchange,
            self._setup,
            side.number,
            _now(),
            reads=blocks,
            notified=side.says_when_sent and not blocks,
        )
        if taken is not None:
            self._let_go = side.when_sent(taken.let_go)
