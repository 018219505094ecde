"""The application's connection: tornado's own, which reports to the watch what it writes.

Most requests have no body. Their connection keeps its class, and only four methods are replaced by
the watch's: changing the class would make the interpreter lay out all attributes anew, which costs
more than everything else here.

The connection of a request with a body changes its class. It works like tornado's until a response
begins while the body is incomplete: only then is there something to deliver, and we decide about
the response's end.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from tornado import http1connection, httputil, iostream

from cleanclose.core.blame.watch import GONE
from cleanclose.core.deliver.framing import CHUNKED, response_length
from cleanclose.core.deliver.table import Keep
from cleanclose.tornado._delivery import Delivery
from cleanclose.tornado._witness import TornadoWatch

__all__ = ["PlainWatch", "Successor", "WatchedConnection", "watched_class"]

_LINE_ENDS: Final = frozenset("\r\n")
StartLine = httputil.RequestStartLine | httputil.ResponseStartLine


class PlainWatch(TornadoWatch):
    """The watch of a request without a body, which sees its response on tornado's own connection.

    Each method calls the one that it replaces.
    """

    __slots__ = ("_connection",)

    _connection: Callable[[], http1connection.HTTP1Connection]
    """A weak reference: the connection refers to these methods. Whoever calls one of them has it,
    so it is there."""

    def stand_before(self, connection: Any) -> None:
        """Watch what the application does with this connection."""
        reference: Any = weakref.ref(connection)
        self._connection = reference
        connection.watch = self
        connection.write_headers = self.write_headers
        connection.write = self.write
        connection.finish = self.finish
        connection.detach = self.detach

    def write_headers(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        status: Any = start_line[1]
        self.head_comes(status, headers, chunk)
        connection = self._connection()
        cls = type(connection)
        future = cls.write_headers(connection, start_line, headers, chunk)
        if self.progress == GONE:
            self.written(future)
        return future

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        self.response_piece(len(chunk))
        connection = self._connection()
        cls = type(connection)
        future = cls.write(connection, chunk)
        if self.progress == GONE:
            self.written(future)
        return future

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        connection = self._connection()
        cls = type(connection)
        cls.finish(connection)
        self.app_finished()

    def detach(self) -> iostream.IOStream:
        """As HTTP1Connection's."""
        connection = self._connection()
        cls = type(connection)
        stream = cls.detach(connection)
        self.detached(None)
        return stream


def _make_room() -> None:
    # All objects of a class share the names of their attributes, and after the first few objects
    # Python adds no more names: an object with another attribute costs as much as one of another
    # class.
    PlainWatch.stand_before(
        object.__new__(PlainWatch), object.__new__(http1connection.HTTP1Connection)
    )


_make_room()


class WatchedConnection(http1connection.HTTP1Connection):
    """Tornado's own connection, of a request with a body or for an upgrade.

    No object is made for that: a connection of tornado's changes its class, before its request's
    body is read.
    """

    upgraded: ClassVar[type[UpgradedConnection]]
    """The same for a request that asks for a websocket."""
    stream: Any
    watch: TornadoWatch
    """The watch of this exchange."""
    delivery: Delivery | None = None
    """The delivery, once the response has begun before the body's end."""
    tornado_waits: bool = False
    """Whether tornado waits for the application's delegate, and so does not read."""
    tornado_reads: bool = False
    """Whether it has begun to read the body: a client that waits for a 100 has received it."""
    max_body_size: int = 0
    """How much of a body the application accepts; for a chunked one, how much more."""
    left_alone: bool = False
    """The per-response opt-out."""
    reading_over: bool = False
    """Whether tornado reads no more of the body."""
    retired: bool = False
    """Whether somebody else answers: for code that still has this connection, it is closed."""

    # What the application calls.

    def write_headers(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        watch = self.watch
        if watch.body_complete and self.delivery is None and not self.retired:
            # As `send_head`: nearly every request.
            status: Any = start_line[1]
            watch.head_comes(status, headers, chunk)
            future = super().write_headers(start_line, headers, chunk)
            if watch.progress == GONE:
                watch.written(future)
            return future
        return _closed() if self.retired else self.begin(start_line, headers, chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        return _closed() if self.retired else self.go_on(chunk)

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        if self.retired:
            return
        if self.watch.body_complete and self.delivery is None:
            # As `send_end`.
            super().finish()
            self.watch.app_finished()
        else:
            self.end()

    def set_max_body_size(self, max_body_size: int) -> None:
        """As HTTP1Connection's."""
        self.max_body_size = max_body_size
        if self.watch.body_complete or self.watch.expected_in is not None:
            self.take_at_most(max_body_size)

    def detach(self) -> iostream.IOStream:
        """As HTTP1Connection's."""
        stream = super().detach()
        self.watch.detached(self._detached_by())
        return stream

    def _detached_by(self) -> object:
        return None

    # The response, to be delivered if the body is incomplete.

    def begin(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None
    ) -> asyncio.Future[None]:
        """Begin the response."""
        assert isinstance(start_line, httputil.ResponseStartLine)
        delivery = None if _is_refused(start_line, headers, chunk) else self._begun()
        if delivery is not None:
            exchange = delivery.exchange
            length = response_length(headers.get("Content-Length"))
            step = exchange.response_started(start_line.code, length, delivery.now)
            if chunk:
                step = exchange.response_piece(len(chunk), delivery.now)
            if isinstance(step, Keep):
                return delivery.keep(chunk, (start_line, headers))
            delivery.do(step)
        return self.send_head(start_line, headers, chunk)

    def go_on(self, chunk: bytes) -> asyncio.Future[None]:
        """Go on with the response."""
        delivery = self.delivery
        if delivery is not None:
            step = delivery.exchange.response_piece(len(chunk), delivery.now)
            if isinstance(step, Keep):
                return delivery.keep(chunk)
            delivery.do(step)
        return self.send(chunk)

    def end(self) -> None:
        """End the response."""
        delivery = self._begun()
        if delivery is None:
            self.send_end()
        else:
            delivery.finish()
            self._let_go()

    def _begun(self) -> Delivery | None:
        """The delivery; None if there is nothing to deliver."""
        watch = self.watch
        may_begin = not (self.reading_over or watch.body_complete or self.stream.closed())
        if may_begin and self.delivery is None:
            self.delivery = Delivery(self, watch)
            if self.left_alone:
                self.delivery.exchange.leave_alone()
        return self.delivery

    # Tornado's own part.

    def send_head(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None
    ) -> asyncio.Future[None]:
        """Send the response's head."""
        status: Any = start_line[1]
        self.watch.head_comes(status, headers, chunk)
        return self._seen(super().write_headers(start_line, headers, chunk))

    def send(self, chunk: bytes) -> asyncio.Future[None]:
        """Send a piece of the response."""
        self.watch.response_piece(len(chunk))
        return self._seen(super().write(chunk))

    def send_end(self) -> None:
        """Send the response's end."""
        super().finish()
        self.watch.app_finished()

    def take_at_most(self, size: int) -> None:
        """Make tornado refuse larger bodies."""
        super().set_max_body_size(size)

    def _seen(self, future: asyncio.Future[None]) -> asyncio.Future[None]:
        if self.watch.progress == GONE:
            self.watch.written(future)
        return future

    # The body.

    def body_announced(self, length: int) -> None:
        """The request has a body.

        Args:
            length: Its length, or `cleanclose.core.CHUNKED`.
        """
        self.watch.body_complete = False
        self.watch.expected_in = None if length == CHUNKED else length
        limit: int | None = self.params.max_body_size
        self.max_body_size = limit if limit is not None else self.stream.max_buffer_size

    def rest(self) -> Awaitable[None] | None:
        """What tornado has to wait for before it reads on; None if it may."""
        self.tornado_waits, self.tornado_reads = False, True
        return None if self.delivery is None else self.delivery.rest()

    def body_over(self) -> None:
        """Tornado reads no more of the body."""
        self.reading_over = True
        self._let_go()

    def _let_go(self) -> None:
        # They refer to each other, which would leave them to the garbage collector.
        if self.reading_over and self.delivery is not None and self.delivery.is_over:
            self.delivery = None


class UpgradedConnection(WatchedConnection):
    """The same for a request that asks for a websocket, whose handler takes the stream."""

    _handler: weakref.ReferenceType[Any] | None = None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """As HTTP1Connection's."""
        if callback is not None:
            self._handler = weakref.ref(getattr(callback, "__self__", self))
        super().set_close_callback(callback)

    def _detached_by(self) -> object:
        return None if self._handler is None else self._handler()


WatchedConnection.upgraded = UpgradedConnection


class Successor(httputil.HTTPConnection):
    """The connection for an answer in the application's place.

    Args:
        connection: The connection that the application has; it is retired.
    """

    def __init__(self, connection: WatchedConnection) -> None:
        connection.retired = True
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """As HTTP1Connection's."""
        self._connection.set_close_callback(callback)

    def write_headers(
        self, start_line: StartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        return self._connection.begin(start_line, headers, chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        return self._connection.go_on(chunk)

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        self._connection.end()


_classes: Final[dict[type, type[WatchedConnection]]] = {
    http1connection.HTTP1Connection: WatchedConnection
}


def watched_class(cls: type) -> type[WatchedConnection]:
    """The class for connections that are watched.

    Args:
        cls: The class that they have: tornado's, or one that somebody has derived from it.
    """
    known = _classes.get(cls)
    if known is None:
        known = type(cls.__name__, (WatchedConnection, cls), {})
        known.upgraded = type(cls.__name__, (UpgradedConnection, cls), {})
        _classes[cls] = known
    return known


def _is_refused(
    start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders, chunk: bytes | None
) -> bool:
    """Whether HTTP1Connection.write_headers raises: where the application can catch it."""
    length = response_length(headers.get("Content-Length"))
    if length is None:
        if "Content-Length" in headers:
            return True
    elif chunk and len(chunk) > length:
        return True
    pairs = (("", start_line.reason), *headers.get_all())
    return any(_LINE_ENDS.intersection(name + value) for name, value in pairs)


def _closed() -> asyncio.Future[None]:
    # What HTTP1Connection returns when its stream is closed.
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(iostream.StreamClosedError())
    future.exception()
    return future
