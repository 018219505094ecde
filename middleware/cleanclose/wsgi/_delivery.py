"""One request with a body, and the delivery of its response: carries out the core's steps."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from cleanclose.core.blame.provenance import caller
from cleanclose.core.blame.watch import OPEN
from cleanclose.core.conduct import is_unanswered
from cleanclose.core.deliver.draining import Draining
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.framing import response_length
from cleanclose.core.deliver.pieces import Source, may_block, may_wait
from cleanclose.core.deliver.table import Keep, Read, Respond, Step
from cleanclose.core.setup import Setup
from cleanclose.linger import can_linger, hand_over
from cleanclose.servers import (
    can_close,
    drain,
    find_connection,
    is_called_by_wsgi_server,
    is_socket_gone,
    threads_of,
    wsgi_response,
)
from cleanclose.wsgi._witness import END, ExcInfo, Headers, Write, fields, size_of

if TYPE_CHECKING:
    from cleanclose.wsgi._upload import UploadWatch

__all__ = ["Delivery"]

_BUFFERED: Final = 64 * 1024
"""Bytes that a server's reader may have taken together with the request's head."""
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
        self._server = server = watch.server
        self._stream: Any = watch.stream
        # A bound method where nothing has wrapped it: gunicorn's Response, for one.
        self._response: object = wsgi_response(watch.server_start_response, server)
        self._connection = find_connection(watch.environ, self._stream, server)
        self._has_drained = False
        self._let_go: Callable[[], None] | None = None
        known = self._known_of_connection()
        if known.blocking:
            setup.places.hold_workers(threads_of(watch.environ, self._response, server))
        self.exchange = watch.delivery = setup.begin_delivery(
            watch, _now(), server=server, connection=known, headers=fields(watch.environ)
        )
        if self._connection is None and is_socket_gone(self._stream, server):
            # Reading from there would wait for the client, as long as that likes.
            self.exchange.leave_alone()

    def _known_of_connection(self) -> Connection:
        watch, server, connection = self.watch, self._server, self._connection
        environ, timeout = watch.environ, self._server.worker_timeout
        relayed = (
            server.relays
            and connection is not None
            and not connection.is_peer(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT"))
        )
        # If the server cannot be made to close, the rest must stay as the server knows it.
        closes = server.close is None or can_close(self._response, server)
        ends = watch.expected_in is not None or bool(environ.get("wsgi.input_terminated"))
        return Connection(
            lingers=connection is not None and can_linger(),
            proxied=relayed,
            half_closes=not relayed,
            blocking=connection is None or not connection.greenlets,
            framed=closes and ends,
            worker_timeout=timeout and timeout(environ, self._response),
        )

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Begin the response."""
        if self._server.keeps_quiet and not self.watch.left_alone:
            headers = [pair for pair in headers if pair[0].lower() != "connection"]
            headers.append(("Connection", "close"))
        try:
            self.watch.start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None
        self._heed_wish()
        # Anything but a number is not in only_statuses.
        self.exchange.response_started(self.watch.status or 0, self._declared, _now())
        return self._write

    @property
    def _declared(self) -> int | None:
        return response_length(self.watch.content_length)

    def _heed_wish(self) -> None:
        if self.watch.left_alone:
            self.exchange.leave_alone()

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
        if not exchange.response_begun or source not in (Source.FILE, Source.THERE):
            self._gather(pieces, source)
        elif source is Source.FILE:
            self._completed(self._declared or 0, None)
            return next(pieces, END)
        elif not exchange.response_complete:
            self.pending.extend(pieces)
            size = sum(map(size_of, self.pending))
            self._completed(size, size)
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
            if not may_wait(source, size, self._server):
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
        if unsent is not None and exchange.early and self.watch.progress == OPEN:
            self.watch.declare_length(unsent, self._response)
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
        ) and is_called_by_wsgi_server(caller(), self._server):
            self._heed_wish()
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
                self._force_close()
            if step.linger:
                self._hand_over(blocks=blocks)
            exchange.responded(_now())
        elif not exchange.body_complete and (exchange.early or self.watch.read_error is not None):
            # What is left of a body that could not be read would be the next request.
            self._force_close()

    def _drain(self) -> Step:
        exchange, watch = self.exchange, self.watch
        self._has_drained = True
        draining = Draining(exchange, watch.left, _now)
        try:
            return drain(self._stream, self._connection, self._server, draining)
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
        exchange, connection, server = self.exchange, self._connection, self._server
        if connection is None:
            return
        # If the reader is not known, its stream would wait for the client.
        if connection.end_reading() and not self._has_drained and exchange.may_read:
            self._count_buffered()
        taken = hand_over(exchange, self._setup, connection.number, _now(), reads=blocks)
        if taken is None:
            return

        def let_go() -> None:
            connection.take_away(closes=closes)
            taken.let_go()

        closes = can_close(self._response, server)
        if server.when_closing is not None:
            server.when_closing(self._response, let_go)
        elif server.closes_last:
            self._let_go = let_go

    def _count_buffered(self) -> None:
        """Count what came with the request's head, in the server's own buffer."""
        left = self.watch.left
        # After it the server finds the end; nobody needs the error that a server may raise for
        # that.
        with contextlib.suppress(Exception):
            if left is not None:
                size = len(self._stream.read(min(left, _BUFFERED)))
                self.exchange.body_received(size, False, _now())

    def _force_close(self) -> None:
        """Make the server close the connection, if there is a way."""
        if self._server.close is not None:
            self._server.close(self._response, self._stream)
