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
from cleanclose.tornado._witness import TornadoWatch

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
            self.taken_over(time.monotonic())
            return
        self._protocol = protocol
        for name, around in (
            ("write_message", self._called),
            ("ping", self._called),
            ("log_exception", self._logged),
        ):
            if name not in vars(handler):
                setattr(handler, name, _stand_around(handler, name, around))

    def said_goodbye(self) -> bool | None:
        """Whether the application has sent a close frame; None if no websocket is open."""
        protocol, self._protocol = self._protocol, None
        return None if protocol is None else bool(getattr(protocol, "server_terminated", False))

    # What the handler's own methods do.

    def _called(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The application calls one that writes: see what it raises, at once or later."""
        try:
            future: Any = method(*args, **kwargs)
        except websocket.WebSocketClosedError as error:
            self._call_failed(error)
            raise
        if asyncio.isfuture(future):
            future.add_done_callback(self._call_done)
        return future

    def _call_done(self, future: asyncio.Future[Any]) -> None:
        # Checked only if the peer has left: then asyncio need not log that nobody awaits it.
        # Awaiting it works as before.
        if self.departure is not None and not future.cancelled():
            error = future.exception()
            if isinstance(error, websocket.WebSocketClosedError):
                self._call_failed(error)

    def _call_failed(self, error: websocket.WebSocketClosedError) -> None:
        lost = error.__context__ if raised_under(error, *PROTOCOLS) else None
        self.websocket_call_failed(error, lost, time.monotonic())

    def _logged(
        self,
        method: Callable[..., Any],
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Tornado logs what a callback has raised, and closes the websocket then."""
        self.callback_failed(value, time.monotonic())
        method(typ, value, tb)


def _stand_around(handler: Any, name: str, around: Callable[..., Any]) -> Callable[..., Any]:
    """A handler's own method, which another function calls, with the arguments behind it."""
    cls: Any = type(handler)  # pyright: ignore[reportUnknownVariableType]
    method: Callable[..., Any] = getattr(cls, name)
    # The method is called on the handler, which is alive then; a plain reference would be a cycle.
    reference = weakref.ref(handler)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(functools.partial(method, reference()), *args, **kwargs)

    return call
