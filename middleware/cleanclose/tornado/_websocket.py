"""A request for a websocket, and the websocket, whose handler takes the stream."""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tornado import websocket

from cleanclose.core.blame.provenance import raised_under
from cleanclose.servers.tornado import PROTOCOLS
from cleanclose.tornado._witness import TornadoWatch, make_room

__all__ = ["WebSocketWatch"]


class WebSocketWatch(TornadoWatch):
    """The watch of a websocket, which goes on after its request."""

    __slots__ = ()

    is_websocket = True
    _handler: Callable[[], Any] | None = None
    """A weak reference to the handler."""
    _protocol: Any = None
    """The websocket's protocol object, while it is open."""

    def stand_before(self, connection: Any) -> None:
        super().stand_before(connection)
        connection.set_close_callback = self.set_close_callback

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """As HTTP1Connection's: a handler's own method shows which handler it is."""
        handler: object = getattr(callback, "__self__", None)
        if handler is not None:
            self._handler = weakref.ref(handler)
        connection = self._connection()
        cls = type(connection)
        cls.set_close_callback(connection, callback)

    def detached(self) -> None:
        """The application has the stream now, for a websocket or for something else."""
        handler: Any = None if self._handler is None else self._handler()
        protocol: Any = getattr(handler, "ws_connection", None)
        if self.departure is not None or protocol is None:
            super().detached()
            return
        self._protocol = protocol
        for name, seen in (
            ("write_message", _seen_call),
            ("ping", _seen_call),
            ("log_exception", _seen_log),
        ):
            if name not in vars(handler):
                setattr(handler, name, seen(self, handler, name))

    def said_goodbye(self) -> bool | None:
        """Whether the application has sent a close frame; None if no websocket is open."""
        protocol, self._protocol = self._protocol, None
        return None if protocol is None else bool(getattr(protocol, "server_terminated", False))

    def call_failed(self, error: websocket.WebSocketClosedError) -> None:
        """The application's own call on its websocket has raised."""
        lost = error.__context__ if raised_under(error, *PROTOCOLS) else None
        self.websocket_call_failed(error, lost, time.monotonic())


make_room(WebSocketWatch)


def _seen_log(watch: WebSocketWatch, handler: Any, name: str) -> Callable[..., Any]:
    """A websocket handler's ``log_exception``, which lets us see what it logs."""
    method, reference = _method_of(handler, name)

    @functools.wraps(method)
    def log_exception(
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        watch.callback_failed(value, time.monotonic())
        method(reference(), typ, value, tb)

    return log_exception


def _seen_call(watch: WebSocketWatch, handler: Any, name: str) -> Callable[..., Any]:
    """A websocket handler's own method, which lets us see what it raises."""
    method, reference = _method_of(handler, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            future: Any = method(reference(), *args, **kwargs)
        except websocket.WebSocketClosedError as error:
            watch.call_failed(error)
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
                watch.call_failed(error)

    return call


def _method_of(handler: Any, name: str) -> tuple[Callable[..., Any], weakref.ReferenceType[Any]]:
    cls: Any = type(handler)  # pyright: ignore[reportUnknownVariableType]
    # The method is called on the handler, which is alive then; a plain reference would be a cycle.
    return getattr(cls, name), weakref.ref(handler)
