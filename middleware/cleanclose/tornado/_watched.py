"""The connection which the application has: tornado's own, which tells the watch what it writes."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Final

from tornado import http1connection, httputil, iostream

from cleanclose.core.blame.watch import GONE
from cleanclose.tornado._witness import TornadoWatch

__all__ = ["WatchedConnection", "watched"]


class WatchedConnection(http1connection.HTTP1Connection):
    """Tornado's own connection, which tells the exchange's watch what it is about to write.

    No object is made for that: `watched` has a connection of tornado's change its class.
    """

    stream: Any
    watch: TornadoWatch
    """The watch of this exchange."""
    tornado_waits: bool = False
    """Whether tornado waits for the application's delegate, and so does not read."""
    tornado_reads: bool = False
    """Whether it has begun to read the body: a client that waits for a 100 has got it."""

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write_headers`."""
        watch = self.watch
        status: Any = start_line[1]
        watch.head_comes(status, headers, chunk)
        future = super().write_headers(start_line, headers, chunk)
        if watch.progress == GONE:
            watch.written(future)
        return future

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Implements `tornado.httputil.HTTPConnection.write`."""
        watch = self.watch
        watch.response_piece(len(chunk))
        future = super().write(chunk)
        if watch.progress == GONE:
            watch.written(future)
        return future

    def finish(self) -> None:
        """Implements `tornado.httputil.HTTPConnection.finish`."""
        super().finish()
        self.watch.app_finished()

    def detach(self) -> iostream.IOStream:
        """As HTTP1Connection's."""
        stream = super().detach()
        self.watch.detached(self._detached_by())
        return stream

    def _detached_by(self) -> object:
        return None


class UpgradedConnection(WatchedConnection):
    """The same for a request that asks for a websocket: whose handler takes the stream."""

    _handler: weakref.ReferenceType[Any] | None = None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """As HTTP1Connection's."""
        if callback is not None:
            self._handler = weakref.ref(getattr(callback, "__self__", self))
        super().set_close_callback(callback)

    def _detached_by(self) -> object:
        return None if self._handler is None else self._handler()


_Classes = tuple[type[WatchedConnection], type[UpgradedConnection]]
_classes: Final[dict[type, _Classes]] = {
    http1connection.HTTP1Connection: (WatchedConnection, UpgradedConnection)
}


def watched(connection: Any, watch: TornadoWatch) -> None:
    """Make tornado's connection a `WatchedConnection`.

    Args:
        connection: The connection.
        watch: The watch of its exchange.
    """
    cls: type = connection.__class__
    connection.watch = watch
    plain, upgraded = _classes.get(cls) or _made(cls)
    connection.__class__ = upgraded if watch.is_websocket else plain


def _made(cls: type) -> _Classes:
    """The same classes for a class that somebody has derived from tornado's."""
    made = (
        type(cls.__name__, (WatchedConnection, cls), {}),
        type(cls.__name__, (UpgradedConnection, cls), {}),
    )
    _classes[cls] = made
    return made
