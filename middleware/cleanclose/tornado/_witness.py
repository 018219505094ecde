"""What one request's own connection shows: its stream's end, and errors of writing to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import select
import sys
import time
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

from tornado import httputil, iostream, web, websocket

from cleanclose.core import (
    Facts,
    Mechanism,
    Phase,
    Settings,
    Side,
    Watch,
    Witness,
    current,
)
from cleanclose.core.blame.closing import Closer, idle_verdict, left_by, read_closing
from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.provenance import (
    caller,
    is_called_by,
    is_method_of,
    passed_method,
    raised_under,
)
from cleanclose.core.blame.watch import COMPLETE, CURRENT, GONE, OPEN, STREAMING
from cleanclose.core.deliver.framing import awaited_length
from cleanclose.core.deliver.places import Places
from cleanclose.core.kernel import tcp_info
from cleanclose.core.tcp_info import idle_before
from cleanclose.core.tell.reporter import Reporter
from cleanclose.core.tracing import trace_id
from cleanclose.servers import number
from cleanclose.servers.tornado import (
    BODY_TIMEOUT,
    CLOSES_ALL,
    HANDLES,
    PROTOCOLS,
    STREAMS,
    TORNADO,
)

__all__ = ["Setup", "TornadoWatch", "ask_the_kernel", "header"]

_SWITCHING_PROTOCOLS: Final = 101
_clock: Final = time.monotonic
# Linux; elsewhere only a connection that is closed on both sides is recognised.
_PEER_CLOSED: Final[int] = getattr(select, "POLLRDHUP", 0)
_SENT: Final = "_total_write_done_index"
"""How many bytes of the stream the kernel has taken."""
_LEFT: Final = "_cleanclose_left"
"""How the peer of a closed stream has left, for further requests that it had sent before."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all requests of an application share.

    Args:
        settings: The limits.
        places: The places. Waiting for a client needs one.
        reporter: Receives the events.
        application: Its error page, if it has one, answers uploads over the limit.
    """

    settings: Settings
    places: Places
    reporter: Reporter
    application: object


class TornadoWatch(Watch):
    """One request on an HTTP1Connection, or one websocket.

    It refers to the stream, and neither to the connection nor to the handler: that would be a
    reference cycle per request.

    Args:
        connection: Tornado's own connection.
        method: The request's method.
        headers: The request's headers.
        setup: What all requests share.
    """

    __slots__ = ("_client", "_method", "_stream", "headers", "setup")

    _status: int | None = None
    _sent_before: int | None = None
    _has_ended: bool = False
    _idle: float | None = None
    _response_headers: httputil.HTTPHeaders | None = None
    _failed_in: Phase | None = None
    """How far it had come when the application failed: tornado's error page does not count."""
    _protocol: Any = None
    """A websocket's protocol object, while it is open."""

    def __init__(
        self, connection: Any, method: str, headers: httputil.HTTPHeaders, setup: Setup
    ) -> None:
        self.started = now = _clock()
        self.progress = OPEN
        self._method = method
        self.headers = headers
        self.setup = setup
        if now >= setup.reporter.sample_at:
            setup.reporter.request_begins(self)
        # Asked now: behind a proxy (xheaders) it is another address later.
        self._client: object = getattr(connection.context, "remote_ip", None)
        self._stream: Any = connection.stream
        try:
            self._stream.close.watch = self
        except AttributeError:
            self._watch_close()

    def _watch_close(self) -> None:
        """The first request on a stream; or one on a stream that is closed."""
        stream = self._stream
        if not stream.closed():
            stream.close = _StreamClose(stream, self)
        elif (left := _left_before(stream)) is not None:
            # Tornado serves what a client had sent before it left.
            CURRENT.set(self)
            self.peer_gone(Witness.STREAM, self.started, mechanism=left, late=True)

    @property
    def status(self) -> int | None:
        return self._status

    @property
    def phase(self) -> Phase:
        return self._failed_in or super().phase

    def facts(self) -> Facts:
        client, headers = self._client, self.headers
        return Facts(
            framework="tornado",
            server=TORNADO.name,
            method="WEBSOCKET" if self.is_websocket else self._method,
            client=client if isinstance(client, str) else None,
            request_id=header(headers, "X-Request-ID"),
            trace_id=trace_id(header(headers, "Traceparent")),
            idempotency_key=header(headers, "Idempotency-Key"),
        )

    def idle_before(self, now: float) -> float | None:
        return self._idle

    def ask(self) -> None:
        if self.progress == GONE or self.progress == COMPLETE:
            return
        # Tornado itself looks when its loop runs, which a handler may keep busy.
        seen = ask_the_kernel(self._stream)
        if seen is not None:
            self.peer_gone(Witness.SOCKET, _clock(), mechanism=seen, late=True)

    def find_witness(self, error: BaseException) -> None:
        if self.departure is None:
            # Somebody other than the peer closed the stream.
            return
        stream = self._stream
        if isinstance(error, iostream.StreamClosedError):
            real: object = error.real_error
            if (real is not None and real is stream.error) or passed_method(error, STREAMS, stream):
                self.peer_gone(Witness.STREAM, _clock(), error)
        elif error is stream.error:
            self.peer_gone(Witness.STREAM, _clock(), error)

    # Reports from the connection.

    def head_comes(
        self, status: int, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> None:
        """Tornado is about to get the response's head, perhaps with some of its body."""
        error = sys.exc_info()[1]
        if error is not None and _uncaught(error) is not None:
            self._failed_in = super().phase
        if self.is_websocket and status != _SWITCHING_PROTOCOLS and self.departure is None:
            # A request for an upgrade that got a plain answer.
            self.is_websocket = False
        self._response_headers = headers
        self._status = status
        try:
            self._sent_before = self._stream._total_write_done_index
        except AttributeError:
            number(self._stream, _SENT)
        if chunk:
            self.bytes_out += len(chunk)
            if self.progress == OPEN:
                self.progress = STREAMING

    def written(self, future: asyncio.Future[None]) -> None:
        """Tornado has received a piece, and returned this future for it."""
        # HTTP1Connection makes one with an exception if its stream is closed already. The
        # others never get one, even if their bytes are lost.
        if self.departure is not None and future.done() and not future.cancelled():
            error = future.exception()
            if isinstance(error, iostream.StreamClosedError):
                self.peer_gone(Witness.WRITE, _clock(), error)

    def app_finished(self) -> None:
        """The application has called ``finish()``."""
        error = sys.exc_info()[1]
        is_plain = error is None and self.delivery is None and not self.is_sample
        if is_plain and self.progress == STREAMING:
            # Nearly every request.
            self.progress = COMPLETE
            return
        if self.ended or self._status == _SWITCHING_PROTOCOLS:
            return
        self.response_completed()
        if self.is_sample:
            self.setup.reporter.request_over(self)
        if error is not None:
            error = _uncaught(error)
        # If there is nothing to say yet, the stream's end may still find bytes unsent.
        if self._is_delivered or error is not None or self.progress != COMPLETE:
            self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """The exchange is over.

        Args:
            error: The application's error that tornado has logged, if any.
        """
        if self.ended or self._has_ended:
            return
        self._has_ended = True
        for event in self.app_ended(_clock(), error).events:
            self.setup.reporter.report(event)
        # A websocket's handler goes on when its peer has left, and may ask whether it has.
        self.ended = not self.is_websocket

    def detached(self, handler: Any) -> None:
        """The application has taken the stream over.

        Args:
            handler: Who has, if it is a handler.
        """
        protocol: Any = getattr(handler, "ws_connection", None)
        if self.departure is None and protocol is not None:
            self._protocol = protocol
            for name, seen in (
                ("write_message", _seen_call),
                ("ping", _seen_call),
                ("log_exception", _seen_log),
            ):
                if name not in vars(handler):
                    setattr(handler, name, seen(self, handler, name))
            return
        if self.departure is None:
            # A protocol which only the application knows.
            self.response_completed()
        self.end()

    def stream_closes(self) -> None:
        """The stream will be closed next: this is the last moment to ask its socket."""
        if self.progress not in (COMPLETE, GONE):
            self._idle = idle_before(tcp_info(self._stream.socket), _clock() - self.started)

    def stream_closed(self, by: FrameType | None, *, unsent: bool) -> None:
        """The stream has been closed.

        Args:
            by: The frame that closed it; None if Python does not say.
            unsent: Whether there was something left to write.
        """
        stream = self._stream
        closer, mechanism = _closer(by, stream)
        left = left_by(closer, stream.error)
        if left is not None:
            vars(stream)[_LEFT] = left
        if self.ended:
            return
        finished = self.progress == COMPLETE
        if unsent:
            # The peer has not received all of it.
            self.in_flight = self.bytes_out + 1
            self.response_failed()
        status = self._status
        sent = number(stream, _SENT)
        if status is not None and sent is not None and sent == self._sent_before:
            # Nothing of the response has left: the peer was gone before it began.
            self._status, self.bytes_out = None, 0
        protocol, self._protocol = self._protocol, None
        closed = read_closing(
            closer,
            stream.error,
            whole=finished and not unsent,
            # A close frame has been sent: the application had finished.
            said_goodbye=bool(getattr(protocol, "server_terminated", False)),
            mechanism=mechanism,
        )
        if closed.completed:
            self.response_completed()
        if closed.stopping:
            self.stopping = True
        if closed.idle and closed.error is not None:
            # Tornado may log it, and it is certainly the peer's.
            mark(closed.error, idle_verdict(closed.error))
        elif closed.witness is not None:
            self.peer_gone(closed.witness, _clock(), closed.error, closed.mechanism)
        self._status = status
        if protocol is not None or (finished and self.departure is not None):
            self.end()

    def awaited_out(self) -> int | None:
        """How many bytes of the response's body the peer waits for, by the head that it has."""
        headers, status = self._response_headers, self._status
        if headers is None or status is None:
            return None
        return awaited_length(self._method, status, header(headers, "Content-Length"))

    def websocket_closed(self, error: websocket.WebSocketClosedError) -> None:
        """An exception from the application's own call on its websocket."""
        # Elsewhere (in another client's handler, in a task that serves all clients) it is that
        # code's own error, whose remaining work has not been done.
        if self.departure is None or current() is not self:
            return
        if error.__context__ is not None and raised_under(error, *PROTOCOLS):
            self.peer_gone(Witness.WRITE, _clock(), error.__context__)
        self.peer_gone(Witness.WRITE, _clock(), error)

    def websocket_failed(self, error: BaseException | None) -> None:
        """Tornado logs an exception of one of the application's callbacks.

        It closes the websocket then; and it may be long after the peer has left.
        """
        if not isinstance(error, Exception):
            return
        # Tornado does not look while a callback runs.
        self.ask()
        verdict = self.judge(error)
        if verdict.side is Side.UPSTREAM:
            self.setup.reporter.report(self.upstream_reset(error, verdict, _clock()))


class _StreamClose:
    """Replaces one stream's ``close`` for the connection's whole life, to see who calls it.

    A stream's close callback shows the moment, but neither who closed it nor whether bytes were
    left unsent, and most of the time tornado itself closes it.
    """

    __slots__ = ("_stream", "watch")

    def __init__(self, stream: Any, watch: TornadoWatch) -> None:
        self._stream = stream
        self.watch = watch

    def __call__(self, exc_info: Any = False) -> None:
        stream, watch = self._stream, self.watch
        # It happens once; and this would be a reference cycle.
        del stream.close
        by = caller()
        unsent: bool = stream.writing()
        watch.stream_closes()
        # Those who wait for the end are called in the context of this moment.
        before = CURRENT.set(watch)
        try:
            stream.close(exc_info)
        finally:
            CURRENT.reset(before)
            watch.stream_closed(by, unsent=unsent)


def header(headers: httputil.HTTPHeaders, name: str) -> str | None:
    """A header's value, if it is there."""
    # Its get() raises and catches an exception for each header that is not there.
    return headers[name] if name in headers else None  # noqa: SIM401


def _seen_log(watch: TornadoWatch, handler: Any, name: str) -> Callable[..., Any]:
    """A websocket handler's ``log_exception``, which lets us see what it logs."""
    method, reference = _method_of(handler, name)

    @functools.wraps(method)
    def log_exception(
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        watch.websocket_failed(value)
        method(reference(), typ, value, tb)

    return log_exception


def _method_of(handler: Any, name: str) -> tuple[Callable[..., Any], weakref.ReferenceType[Any]]:
    cls: Any = type(handler)  # pyright: ignore[reportUnknownVariableType]
    # The method is called on the handler, which is alive then; a plain reference would be a cycle.
    return getattr(cls, name), weakref.ref(handler)


def _seen_call(watch: TornadoWatch, handler: Any, name: str) -> Callable[..., Any]:
    """A websocket handler's own method, which lets us see what it raises."""
    method, reference = _method_of(handler, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            future: Any = method(reference(), *args, **kwargs)
        except websocket.WebSocketClosedError as error:
            watch.websocket_closed(error)
            raise
        if asyncio.isfuture(future):
            future.add_done_callback(done)
        return future

    def done(future: asyncio.Future[Any]) -> None:
        # Checked only if the peer has left: then asyncio need not log that nobody awaits it.
        # Awaiting it works as before.
        if watch.departure is not None and not future.cancelled():
            error = future.exception()
            if isinstance(error, websocket.WebSocketClosedError):
                watch.websocket_closed(error)

    return call


def _uncaught(error: BaseException) -> BaseException | None:
    """The error that tornado is handling, which nobody has caught."""
    if isinstance(error, web.HTTPError | web.Finish) or not isinstance(error, Exception):
        # The application's own answer.
        return None
    return error if is_called_by(HANDLES) else None


def _closer(by: FrameType | None, stream: Any) -> tuple[Closer, Mechanism | None]:
    """Who closed a stream, by the closing frame; and how, if it was the server."""
    if by is None:
        return Closer.UNSEEN, None
    if is_method_of(by, STREAMS, stream):
        return Closer.STREAM, None
    if CLOSES_ALL.has(by):
        return Closer.SERVER, Mechanism.ABORTED
    if BODY_TIMEOUT.has(by):
        return Closer.SERVER, Mechanism.TIMEOUT
    return Closer.APPLICATION, None


def _left_before(stream: Any) -> Mechanism | None:
    left: Mechanism | None = getattr(stream, _LEFT, None)
    return left


def ask_the_kernel(stream: Any) -> Mechanism | None:
    """How the peer has left, if it has. This reads nothing, and takes no error from the socket."""
    sock: Any = stream.socket
    if sock is None or not hasattr(select, "poll"):
        return None
    asking = select.poll()
    with contextlib.suppress(OSError, ValueError):
        asking.register(sock.fileno(), _PEER_CLOSED)
        for _, state in asking.poll(0):
            if state & select.POLLERR:
                return Mechanism.RESET
            if state & (select.POLLHUP | _PEER_CLOSED):
                return Mechanism.EOF
    return None
