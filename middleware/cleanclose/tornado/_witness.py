"""One request: what its application calls on the connection, and what its stream shows.

The watch stands before tornado's connection: four of the connection's methods are the watch's,
which call the ones that they replace. (To give the connection another class would make the
interpreter lay out all attributes anew, which costs more than everything else here.)
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from tornado import http1connection, httputil, iostream

from cleanclose.core import Facts, Mechanism, Witness
from cleanclose.core.blame.closing import ClosingWatch, left_by
from cleanclose.core.blame.provenance import caller
from cleanclose.core.blame.watch import COMPLETE, CURRENT, GONE, OPEN, STREAMING
from cleanclose.core.deliver.framing import awaited_length
from cleanclose.core.kernel import how_left, tcp_info
from cleanclose.core.setup import Setup
from cleanclose.core.tcp_info import idle_before
from cleanclose.core.tracing import ids_of
from cleanclose.servers.tornado import TORNADO, came_out_of, closer_of, sent_bytes, uncaught

__all__ = ["StartLine", "TornadoSetup", "TornadoWatch", "header", "watch_close"]

StartLine = httputil.RequestStartLine | httputil.ResponseStartLine

_clock: Final = time.monotonic
_LEFT: Final = "_cleanclose_left"
"""How the peer of a closed stream has left, for further requests that it had sent before."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TornadoSetup(Setup):
    """What all requests of an application share.

    Args:
        application: Its error page, if it has one, answers uploads over the limit.
    """

    application: object


class TornadoWatch(ClosingWatch):
    """One request on an HTTP1Connection, or one websocket.

    It refers to the stream, and neither to the connection nor to the handler: that would be a
    reference cycle per request.

    Args:
        connection: Tornado's own connection.
        method: The request's method.
        headers: The request's headers.
        setup: What all requests share.
    """

    __slots__ = ("_client", "_connection", "_method", "headers", "stream")

    stream: Any
    _connection: Callable[[], http1connection.HTTP1Connection]
    """A weak reference: the connection refers to the methods below. Whoever calls one of them has
    it, so it is there."""
    _sent_before: int | None = None
    _idle: float | None = None
    _response_headers: httputil.HTTPHeaders | None = None
    drained_by: Callable[[Any], None] | None = None
    """Called in place of the stream's ``close``, while something is kept back for its peer."""

    def __init__(
        self, connection: Any, method: str, headers: httputil.HTTPHeaders, setup: TornadoSetup
    ) -> None:
        self.started = now = _clock()
        self.progress = OPEN
        self._method = method
        self.headers = headers
        self.setup = setup
        if now >= setup.reporter.sample_at:
            setup.reporter.request_begins(self)
        # Asked now: with xheaders, Tornado puts another address there later.
        self._client: object = getattr(connection.context, "remote_ip", None)
        self.stream = connection.stream
        self.stand_before(connection)
        try:
            self.stream.close.watch = self
        except AttributeError:
            self._comes_late()

    def stand_before(self, connection: Any) -> None:
        """Watch what the application does with this connection."""
        reference: Any = weakref.ref(connection)
        self._connection = reference
        connection.watch = self
        connection.write_headers = self.write_headers
        connection.write = self.write
        connection.finish = self.finish
        connection.detach = self.detach

    def _comes_late(self) -> None:
        """The stream is closed: tornado serves what the client had sent before it left."""
        left: Mechanism | None = getattr(self.stream, _LEFT, None)
        if left is not None:
            CURRENT.set(self)
            self.peer_gone(Witness.STREAM, self.started, mechanism=left, late=True)

    # What the application calls.

    def write_headers(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        status: Any = start_line[1]
        error = sys.exc_info()[1]
        self.response_begins(status, failed=error is not None and uncaught(error) is not None)
        self._response_headers = headers
        self._sent_before = sent_bytes(self.stream)
        if chunk:
            # As `response_piece`: nearly every request.
            self.bytes_out += len(chunk)
            if self.progress == OPEN:
                self.progress = STREAMING
        connection = self._connection()
        cls = type(connection)
        future = cls.write_headers(connection, start_line, headers, chunk)
        if self.progress == GONE:
            self._written(future)
        return future

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        self.response_piece(len(chunk))
        connection = self._connection()
        cls = type(connection)
        future = cls.write(connection, chunk)
        if self.progress == GONE:
            self._written(future)
        return future

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        connection = self._connection()
        cls = type(connection)
        cls.finish(connection)
        self.app_finished()

    def detach(self) -> iostream.IOStream:
        """As HTTP1Connection's: the application takes the stream over."""
        connection = self._connection()
        cls = type(connection)
        stream = cls.detach(connection)
        self.detached()
        return stream

    def _written(self, future: asyncio.Future[None]) -> None:
        # HTTP1Connection makes one with an exception if its stream is closed already. The others
        # never get one, even if their bytes are lost.
        if self.departure is not None and future.done() and not future.cancelled():
            error = future.exception()
            if isinstance(error, iostream.StreamClosedError):
                self.peer_gone(Witness.WRITE, _clock(), error)

    def app_finished(self) -> None:
        """The application has called ``finish()``."""
        error = sys.exc_info()[1]
        if error is None and self.progress == STREAMING and not self.is_sample:
            # Nearly every request.
            self.progress = COMPLETE
            return
        self.response_over(_clock(), uncaught(error))

    def detached(self) -> None:
        """The application has the stream now."""
        self.taken_over(_clock())

    # What the stream shows.

    def closes(self) -> None:
        """The stream will be closed next: this is the last moment to ask its socket."""
        if self.progress not in (COMPLETE, GONE):
            self._idle = idle_before(tcp_info(self.stream.socket), _clock() - self.started)

    def closed(self, by: FrameType | None, *, unsent: bool) -> None:
        """The stream has been closed.

        Args:
            by: The frame that closed it; None if Python does not say.
            unsent: Whether there was something left to write.
        """
        stream = self.stream
        closer, mechanism = closer_of(by, stream)
        sent = sent_bytes(stream)
        self.connection_closed(
            closer,
            stream.error,
            _clock(),
            mechanism=mechanism,
            unsent=unsent,
            none_sent=sent is not None and sent == self._sent_before,
            said_goodbye=self.said_goodbye(),
        )

    def said_goodbye(self) -> bool | None:
        """Whether an open websocket's application had finished; None for anything else."""
        return None

    # What the core asks.

    def facts(self) -> Facts:
        client, headers = self._client, self.headers
        return Facts(
            framework="tornado",
            server=TORNADO.name,
            method="WEBSOCKET" if self.is_websocket else self._method,
            client=client if isinstance(client, str) else None,
            **ids_of(lambda name: header(headers, name)),
        )

    def idle_before(self, now: float) -> float | None:
        return self._idle

    def awaited_out(self) -> int | None:
        headers, status = self._response_headers, self.status
        if headers is None or status is None:
            return None
        return awaited_length(self._method, status, header(headers, "Content-Length"))

    def ask(self) -> None:
        if self.progress == GONE or self.progress == COMPLETE:
            return
        # Tornado itself looks when its loop runs, which a handler may keep busy.
        seen = how_left(self.stream.socket)
        if seen is not None:
            self.peer_gone(Witness.SOCKET, _clock(), mechanism=seen, late=True)

    def find_witness(self, error: BaseException) -> None:
        # Or somebody other than the peer has closed the stream.
        if self.departure is not None and came_out_of(error, self.stream):
            self.peer_gone(Witness.STREAM, _clock(), error)


def watch_close(stream: Any) -> None:
    """See who closes a stream, from before its first request's head on.

    Tornado reads on while it gets ready to serve a head. A client that leaves right behind its head
    has closed the stream before there is a watch.

    Args:
        stream: A connection's stream.
    """
    if type(stream.close) is not _StreamClose and not stream.closed():
        stream.close = _StreamClose(stream)


class _StreamClose:
    """Replaces one stream's ``close`` for the connection's whole life, to see who calls it.

    A stream's close callback shows the moment, but neither who closed it nor whether bytes were
    left unsent, and most of the time tornado itself closes it.
    """

    __slots__ = ("_stream", "watch")

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.watch: TornadoWatch | None = None

    def __call__(self, exc_info: Any = False) -> None:
        stream, watch = self._stream, self.watch
        if watch is not None and watch.drained_by is not None:
            watch.drained_by(exc_info)
            return
        # It happens once; and this would be a reference cycle.
        del stream.close
        by = caller()
        try:
            if watch is None:
                stream.close(exc_info)
            else:
                self._close_watched(watch, exc_info, by)
        finally:
            left = left_by(closer_of(by, stream)[0], stream.error)
            if left is not None:
                vars(stream)[_LEFT] = left

    def _close_watched(self, watch: TornadoWatch, exc_info: Any, by: FrameType | None) -> None:
        stream = self._stream
        unsent: bool = stream.writing()
        watch.closes()
        # Those who wait for the end are called in the context of this moment.
        before = CURRENT.set(watch)
        try:
            stream.close(exc_info)
        finally:
            CURRENT.reset(before)
            watch.closed(by, unsent=unsent)


def header(headers: httputil.HTTPHeaders, name: str) -> str | None:
    """A header's value, if it is there."""
    # Its get() raises and catches an exception for each header that is not there.
    return headers[name] if name in headers else None  # noqa: SIM401
