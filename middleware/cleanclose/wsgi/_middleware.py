"""WSGI in, WSGI out: what happens on the connection is told to the core, and its steps are done."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import GeneratorType, TracebackType
from typing import Any, Final, Unpack

from cleanclose.core import (
    CHUNKED,
    NO_BODY,
    Done,
    Exchange,
    Facts,
    Hold,
    Keep,
    Mechanism,
    Outlet,
    Places,
    Read,
    Reporter,
    Respond,
    Settings,
    SettingsOptions,
    Step,
    body_length,
    response_length,
    wants_continue,
    wsgi_server,
)
from cleanclose.wsgi._input import CountingInput
from cleanclose.wsgi._source import Piece, Source, open_source

__all__ = ["CleanCloseMiddleware", "skip"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_ENVIRON_KEY: Final = "cleanclose.exchange"


class CleanCloseMiddleware:
    """WSGI middleware: an early response reaches a client which is still uploading.

    Requests without a body pass through.

    Args:
        app: The WSGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        **settings: The fields of `cleanclose.core.Settings`, with the defaults of
            `cleanclose.core.Settings.for_blocking`.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        outlets: Sequence[Outlet] | None = None,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        self.app = app
        self._settings = Settings.for_blocking(**settings)
        self._reporter = Reporter(outlets)
        self._lock = threading.Lock()
        self._places: Places | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "app":
            # Not constructed yet (copy, pickle): looking it up would ask for it again.
            raise AttributeError(name)
        return getattr(self.app, name)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        transfer_encoding = environ.get("HTTP_TRANSFER_ENCODING")
        if transfer_encoding is None and not environ.get("CONTENT_LENGTH"):
            return self.app(environ, start_response)
        length = body_length(
            method=environ["REQUEST_METHOD"],
            http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
            content_length=environ.get("CONTENT_LENGTH"),
            transfer_encoding=transfer_encoding,
            upgrade=environ.get("HTTP_UPGRADE"),
        )
        if length == CHUNKED and not environ.get("wsgi.input_terminated"):
            # Without that key nothing says where wsgi.input ends.
            length = NO_BODY
        if length == NO_BODY:
            return self.app(environ, start_response)
        return self._serve(environ, start_response, length)

    def _serve(
        self, environ: Environ, start_response: StartResponse, length: int
    ) -> Iterable[bytes]:
        server = wsgi_server(environ)
        # A bound method where nothing has wrapped it: gunicorn's Response, for one.
        response: object = getattr(start_response, "__self__", None)
        sock: object = environ.get(server.socket_key) if server.socket_key else None
        exchange = Exchange(
            self._settings,
            self._places_for(response),
            server=server,
            facts=Facts(
                framework="wsgi",
                server=server.name,
                method=environ["REQUEST_METHOD"],
                client=environ.get("REMOTE_ADDR") or None,
            ),
            length=length,
            expects_continue=wants_continue(environ.get("HTTP_EXPECT")),
            wake=_nobody_waits,
            now=time.monotonic(),
            blocking=True,
            unbounded=not isinstance(sock, socket.socket),
            worker_timeout=_worker_timeout(environ, response),
        )
        stream = environ["wsgi.input"]

        def source() -> Source:
            return open_source(stream, sock, response)

        connection = _Connection(exchange, source, length, self._reporter, start_response, response)
        environ[_ENVIRON_KEY] = exchange
        environ["wsgi.input"] = CountingInput(
            stream, connection.app_reads, connection.app_read, connection.failed
        )
        try:
            result = self.app(environ, connection.start_response)
        except BaseException:
            connection.close()
            raise
        if exchange.body_complete and not connection.pending:
            # Nothing left to do: the server gets what the application made, file wrapper or not.
            connection.close()
            return result
        body = _SizedBody if hasattr(result, "__len__") else _Body
        return body(connection, result)

    def _places_for(self, response: object) -> Places:
        # Only a request knows how many threads there are.
        with self._lock:
            if self._places is None:
                threads = getattr(getattr(response, "cfg", None), "threads", None)
                self._places = Places.for_workers(
                    threads if isinstance(threads, int) else None,
                    most=self._settings.max_draining,
                )
            return self._places


def skip(environ: Environ) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. Without effect where the middleware is not installed.

    Args:
        environ: The request's environ (``request.environ`` in Flask, ``request.META`` in
            Django).
    """
    exchange = environ.get(_ENVIRON_KEY)
    if isinstance(exchange, Exchange):
        exchange.leave_alone()


class _Connection:
    """One request's side of the connection: the app's callables, and the delivery behind them."""

    def __init__(
        self,
        exchange: Exchange,
        source: Callable[[], Source],
        length: int,
        reporter: Reporter,
        start_response: StartResponse,
        response: object,
    ) -> None:
        self.exchange = exchange
        # gunicorn's Response.force_close: it puts Connection: close into the head, and keeps
        # the connection from being used again.
        self._force_close: object = getattr(response, "force_close", None)
        self.pending: deque[bytes] = deque()
        self._open_source = source
        self._source: Source | None = None
        self._left = None if length == CHUNKED else length
        self._reporter = reporter
        self._server_start_response = start_response
        self._server_write: Write | None = None

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        # Handed on at once: a server may need it before the first piece.
        if exc_info is None:
            self._server_write = self._server_start_response(status, headers)
        else:
            try:
                self._server_write = self._server_start_response(status, headers, exc_info)
            finally:
                # PEP 3333: the traceback would be a reference cycle.
                exc_info = None
        length = [value for name, value in headers if name.lower() == "content-length"]
        code = status[:3]
        self.exchange.response_started(
            # The server has taken it as it is; what is no number is none of only_statuses.
            int(code) if code.isdigit() else 0,
            response_length(length[0]) if length else None,
            time.monotonic(),
        )
        return self._write

    def _write(self, data: bytes) -> object:
        # PEP 3333: what is written must not wait for more.
        exchange = self.exchange
        exchange.response_piece(len(data), time.monotonic())
        self.sent(exchange.release(time.monotonic()))
        if self._server_write is None:
            raise AssertionError("write() before start_response()")
        return self._server_write(data)

    def app_reads(self) -> None:
        self.sent(self.exchange.app_read(time.monotonic()))
        self._write_pending()

    def app_read(self, size: int, *, at_end: bool) -> None:
        self._count(size, at_end=at_end)

    # The response, piece by piece.

    def next_piece(self, pieces: Iterator[bytes]) -> bytes | None:
        """The next piece for the server; None at the end.

        A piece that may be the last is kept until the application has said whether it is. Not
        if it comes straight from a generator: what that does behind its last piece may take any
        time.
        """
        exchange = self.exchange
        may_wait = not isinstance(pieces, GeneratorType)
        try:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration:
                    self._close_if(self._carry_out(exchange.response_completed(time.monotonic())))
                    break
                self.pending.append(piece)
                step = exchange.response_piece(len(piece), time.monotonic())
                if isinstance(step, Keep) and piece:
                    if may_wait:
                        continue
                    step = exchange.release(time.monotonic())
                self.sent(step)
                break
        except BaseException:
            exchange.abandoned(time.monotonic())
            self._write_pending()
            raise
        return self.pending.popleft() if self.pending else None

    def sent(self, step: Step) -> None:
        """What is kept back goes out with the call that is under way."""
        if isinstance(step, Respond) and not self.exchange.treated:
            self.exchange.responded(time.monotonic())

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
            self._reporter.report(exchange.event(time.monotonic()))

    def _write_pending(self) -> None:
        """Let the piece go which was kept because it seemed to be the last."""
        while self.pending and self._server_write is not None:
            self._server_write(self.pending.popleft())

    # The steps.

    def _close_if(self, step: Step) -> None:
        if isinstance(step, Respond | Done) and step.close and callable(self._force_close):
            self._force_close()

    def _carry_out(self, step: Step) -> Step:
        while True:
            match step:
                case Read(seconds):
                    step = self._discard(seconds)
                case Hold(seconds):
                    time.sleep(seconds)
                    step = self.exchange.tick(time.monotonic())
                case _:
                    return step

    def _discard(self, seconds: float) -> Step:
        exchange = self.exchange
        if self._source is None:
            self._source = self._open_source()
        try:
            result = self._source.read(self._left, seconds)
        except Exception as error:  # noqa: BLE001 - the core is told what it was
            return self.failed(error)
        if isinstance(result, Piece):
            return self._count(result.size, at_end=result.ended)
        return exchange.tick(time.monotonic())

    def failed(self, error: Exception) -> Step:
        """Reading the body failed, whoever read."""
        return self.exchange.reading_failed(error, time.monotonic())

    def _count(self, size: int, *, at_end: bool) -> Step:
        now = time.monotonic()
        if self._left is not None:
            self._left -= size
        complete = at_end if self._left is None else self._left <= 0
        step = self.exchange.body_received(size, complete, now)
        if at_end and not complete:
            # The stream ended before the body: the peer's half of the connection is closed.
            step = self.exchange.peer_gone(Mechanism.EOF, now)
        return step


class _Body:
    """The response's iterable. Not a generator: its close() must work before the first next()."""

    def __init__(self, connection: _Connection, result: Iterable[bytes]) -> None:
        self._connection = connection
        self._result = result
        self._pieces: Iterator[bytes] | None = None
        self._closed = False
        self._all_sent = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._connection.pending:
            return self._connection.pending.popleft()
        if self._pieces is None:
            self._pieces = iter(self._result)
        piece = self._connection.next_piece(self._pieces)
        if piece is None:
            self._all_sent = True
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close the application's iterable, then see the delivery through."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._connection.close(all_sent=self._all_sent)


class _SizedBody(_Body):
    """The same over a list: some servers make a Content-Length of a list with one piece."""

    def __len__(self) -> int:
        size: int = len(self._result)  # type: ignore[arg-type]
        return size


def _worker_timeout(environ: Environ, response: object) -> float | None:
    # gunicorn's sync worker says that it is alive between two requests only.
    timeout: object = getattr(getattr(response, "cfg", None), "timeout", None)
    if environ.get("wsgi.multithread") or not isinstance(timeout, int | float) or timeout <= 0:
        return None
    return float(timeout)


def _nobody_waits() -> None:
    """On a blocking server no exchange waits for its turn."""
