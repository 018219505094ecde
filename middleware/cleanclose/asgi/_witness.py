"""The callables that an application gets: what passes through them is told to the core."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

from cleanclose.core import COMPLETE, GONE, OPEN, Facts, Watch, Witness, asgi_server, trace_id

__all__ = ["HttpWatch", "Message", "Receive", "Scope", "Send", "UploadWatch", "WebSocketWatch"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SERVICE_RESTART: Final = 1012
_ABNORMAL: Final = 1006


class _AsgiWatch(Watch):
    """What HTTP and websockets have in common.

    `CleanCloseMiddleware` sets these attributes by itself for most requests: calling a class is
    a good part of what a GET costs.

    Args:
        scope: The scope.
        receive: The server's ``receive``.
        send: The server's ``send``.
        now: The time.
    """

    __slots__ = ("_head", "scope", "send_to", "server_receive")

    _head: Message

    def __init__(self, scope: Scope, receive: Receive, send: Send, now: float) -> None:
        super().__init__(now)
        self.scope = scope
        self.server_receive = receive
        self.send_to = send

    @property
    def status(self) -> int | None:
        # Not set before the response begins: another store for every request.
        head: Message | None = getattr(self, "_head", None)
        return None if head is None else head["status"]

    def server_send(self) -> Send:
        """The server's own ``send``."""
        return self.send_to

    def facts(self) -> Facts:
        scope = self.scope
        client = scope.get("client")
        route: object = scope.get("route")
        pattern: object = getattr(route, "path_format", None) or getattr(route, "path", None)
        headers = dict(scope.get("headers", ()))
        return Facts(
            framework="asgi",
            server=asgi_server(self.server_receive, self.server_send()).name,
            method=scope.get("method", "WEBSOCKET"),
            client=str(client[0]) if client else None,
            route=pattern if isinstance(pattern, str) else None,
            request_id=_text(headers.get(b"x-request-id")),
            trace_id=trace_id(_text(headers.get(b"traceparent"))),
            idempotency_key=_text(headers.get(b"idempotency-key")),
        )


class HttpWatch(_AsgiWatch):
    """One HTTP request's ``receive`` and ``send``."""

    __slots__ = ()

    _ahead: Message | None = None

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        message, self._ahead = self._ahead, None
        if message is None:
            try:
                message = await self.pass_receive()
            except OSError as error:
                self.peer_gone(Witness.RECEIVE, time.monotonic(), error)
                raise
        if message["type"] == "http.disconnect":
            self.peer_gone(Witness.RECEIVE, time.monotonic())
        else:
            self.bytes_in += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.body_complete = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """What the application has as ``send``.

        The server's own coroutine is handed on, without one around it; what it raises is found
        out in `find_witness`.
        """
        kind = message["type"]
        if kind == "http.response.start":
            try:
                getter = _GETTERS[self.server_receive.__func__]  # type: ignore[attr-defined]
            except (AttributeError, KeyError):
                getter = _learn(self.server_receive)
            if getter is not None:
                self.ask()
            self._head = message
        elif kind == "http.response.body":
            if message.get("more_body"):
                self.response_piece(len(message.get("body", b"")))
            elif self.progress == OPEN:
                # Before it is sent: while it is, the server may tell of the end, and that is
                # then no departure.
                self.progress = COMPLETE
            else:
                self.ask()
                self.response_completed()
        return self.send_to(message)

    def pass_receive(self) -> Awaitable[Message]:
        """What `receive` waits for."""
        return self.server_receive()

    def ask(self) -> None:
        if self.progress == GONE:
            return
        owner: object = getattr(self.server_receive, "__self__", None)
        getter = _learn(self.server_receive)
        if getter is None:
            return
        if getter(owner):
            # If the response was complete, it left while the server waited for room to write.
            self.response_failed()
            self.peer_gone(Witness.SERVER, time.monotonic(), late=True)
        elif isinstance(owner, asyncio.Queue):
            self._look_ahead(cast("asyncio.Queue[Message]", owner))

    def find_witness(self, error: BaseException) -> None:
        if isinstance(error, OSError) and _passed(error, self.server_send()):
            self.response_failed()
            self.peer_gone(Witness.SEND, time.monotonic(), error)

    def _look_ahead(self, queue: asyncio.Queue[Message]) -> None:
        # A queue is its own thread's only, and a handler may run in another.
        if self.progress == COMPLETE or not self.body_complete or not _on_a_loop():
            return
        while not queue.empty() and self._ahead is None:
            message = queue.get_nowait()
            if message["type"] == "http.disconnect":
                self.peer_gone(Witness.RECEIVE, time.monotonic(), late=True)
            # The application may still ask for it.
            self._ahead = message


class UploadWatch(HttpWatch):
    """The same for a request with a body, where the exchange stands in between.

    Args:
        scope: The scope.
        receive: The server's ``receive``.
        send: The server's ``send``.
        now: The time.
        length: The body's length; None if it is chunked.
    """

    __slots__ = ("_inner_receive", "_server_send")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, now: float, length: int | None
    ) -> None:
        super().__init__(scope, receive, send, now)
        self._server_send = send
        self._inner_receive = receive
        self.body_complete = False
        self.expected_in = length

    def stand_behind(self, receive: Receive, send: Send) -> None:
        """Let the application's calls go through these.

        Afterwards they have to be taken out again: they refer to this watch, which would be a
        cycle.
        """
        self._inner_receive = receive
        self.send_to = send

    def stand_alone(self) -> None:
        """Let the application's calls go to the server, as at first."""
        self._inner_receive = self.server_receive
        self.send_to = self._server_send

    def pass_receive(self) -> Awaitable[Message]:
        return self._inner_receive()

    def server_send(self) -> Send:
        return self._server_send


class WebSocketWatch(_AsgiWatch):
    """One websocket's ``receive`` and ``send``."""

    __slots__ = ()

    is_websocket = True

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        try:
            message = await self.server_receive()
        except OSError as error:
            self.peer_gone(Witness.RECEIVE, time.monotonic(), error)
            raise
        if message["type"] == "websocket.disconnect":
            self._closed(message.get("code", _ABNORMAL))
        return message

    async def send(self, message: Message) -> None:
        """What the application has as ``send``."""
        if message["type"] == "websocket.close":
            self.response_completed()
        try:
            await self.send_to(message)
        except OSError as error:
            self.peer_gone(Witness.SEND, time.monotonic(), error)
            raise

    def _closed(self, code: int) -> None:
        if code == _SERVICE_RESTART:
            # IANA's registry of close codes: the server's own word when it stops.
            self.stopping = True
        elif code != _ABNORMAL:
            # A closing handshake took place: nobody left without a word.
            self.response_completed()
        self.peer_gone(Witness.RECEIVE, time.monotonic())


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _passed(error: BaseException, call: object) -> bool:
    """Whether an exception came out of this very callable: a method of this very object."""
    code: object = getattr(getattr(call, "__func__", call), "__code__", None)
    owner: object = getattr(call, "__self__", None)
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is code and owner is not None and frame.f_locals.get("self") is owner:
            return True
        traceback = traceback.tb_next
    return False


_Getter = Callable[[object], object]

_GETTERS: Final[dict[object, _Getter | None]] = {}
"""By the function behind ``receive``: what tells whether the peer has left; None if nothing does.

A memo, and no state.
"""
_MOST_GETTERS: Final = 64


def _learn(receive: Receive) -> _Getter | None:
    function: object = getattr(receive, "__func__", None)
    if function is None:
        # No method: there is no object behind it that could be asked.
        return None
    if function not in _GETTERS:
        if len(_GETTERS) >= _MOST_GETTERS:
            # Somebody makes a function for each request.
            _GETTERS.clear()
        _GETTERS[function] = _getter(receive)
    return _GETTERS[function]


def _getter(receive: Receive) -> _Getter | None:
    owner: object = getattr(receive, "__self__", None)
    if isinstance(owner, asyncio.Queue):
        return _ask_the_queue
    attribute = asgi_server(receive).gone_attribute
    if attribute is None:
        return None
    getter = operator.attrgetter(attribute)

    def get(owner: object) -> object:
        try:
            return getter(owner)
        except AttributeError:
            # Another version of the server has it under another name.
            return False

    return get


def _ask_the_queue(owner: object) -> bool:
    """A queue itself knows nothing; what is in it may."""
    return False
