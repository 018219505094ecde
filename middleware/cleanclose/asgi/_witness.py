"""The application's callables, which report to the core what passes through them."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from cleanclose.asgi._delivery import Delivery
from cleanclose.asgi._ear import Ear
from cleanclose.asgi._messages import (
    Message,
    Receive,
    Scope,
    Send,
    can_be_read_again,
    client_address,
    header,
    request_length,
)
from cleanclose.asgi._probe import SETTLED, probe_of
from cleanclose.core import Facts, Mechanism, Phase, Side, Watch, Witness
from cleanclose.core.blame.provenance import (
    behind,
    is_call_of,
    is_closed_handle,
    passed_methods,
    was_inside,
)
from cleanclose.core.blame.short_uploads import is_said_to_application
from cleanclose.core.blame.watch import COMPLETE, GONE, OPEN, STREAMING
from cleanclose.core.conduct import Treatment, asgi_treatment, is_unanswered
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, awaited_length
from cleanclose.core.kernel import ask_connection
from cleanclose.core.server import UNKNOWN, Server
from cleanclose.core.tracing import trace_id
from cleanclose.servers import ASGI_CALLS, asgi_server, asgi_socket, has_arrived, is_asgi_stopping

__all__ = ["NO_SCOPE", "AsgiWatch", "HttpWatch", "UploadWatch"]

NO_SCOPE: Final[Scope] = {}
"""The scope of a request that is over."""
_AT_ONCE: Final = 0.0005
"""Seconds in which a call returns that has nothing to wait for."""
_clock: Final = time.monotonic
_HIGH_WATER: Final = 64 * 1024
"""Bytes that a transport takes before a writer has to wait (asyncio's ``FlowControlMixin``)."""


class AsgiWatch(Watch):
    """What HTTP and websockets have in common.

    `CleanCloseMiddleware` sets these attributes by itself: calling an ``__init__`` is a good part
    of what a GET costs.
    """

    __slots__ = ("_head", "emptied", "plain", "scope", "send_to", "server_receive")

    plain: bool
    """Whether only the application takes part in this exchange, as in nearly all of them: no ear,
    no delivery, no sample."""

    scope: Scope
    server_receive: Receive
    send_to: Send
    """The destination of the application's messages: the server, or a delivery."""
    _head: Message
    ear: Ear | None = None
    """The watcher for the departure, if somebody asked for one."""
    messages: Delivery | None = None
    """What the application's calls go through, while there is something to deliver."""
    emptied: tuple[Receive, Send] | None
    """The functions that replace the server's callables once the response is complete."""
    _was_stopping: bool = False

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Without arguments."""

    else:
        __init__ = object.__init__

    def is_unanswered(self, error: BaseException) -> bool:
        """Whether an error came while there was a body to read, and before a response."""
        return False

    def deliver(self) -> Delivery:
        """Let the application's calls go through a delivery, from here on."""
        raise NotImplementedError

    def let_go(self) -> None:
        """The response is complete: refer to the request's objects no longer.

        Timers and callbacks have copied the context, and outlive the request.
        """
        if self.emptied is not None:
            self.server_receive, self.send_to = self.emptied
            self.scope = NO_SCOPE

    def stand_alone(self) -> None:
        """The exchange is over: what refers to this watch is a cycle."""
        if self.ear is not None:
            self.ear.close()
        if self.messages is not None:
            self.send_to = self.server_send()
            self.messages = None

    @property
    def is_receiving(self) -> bool:
        """Whether the application waits for a message that it asked the server itself for."""
        return False

    @property
    def has_all(self) -> bool:
        """Whether nothing but the departure can still come."""
        return False

    @property
    def status(self) -> int | None:
        # Not set before the response begins: another store for every request.
        head: Message | None = getattr(self, "_head", None)
        return None if head is None else head["status"]

    @property
    def server(self) -> Server:
        """The server, as far as its callables show which one it is."""
        return asgi_server(self.server_receive, self.server_send())

    def server_send(self) -> Send:
        """The server's own ``send``."""
        return self.send_to if self.messages is None else self.messages.server_send

    def is_for(self, request: Mapping[str, Any], /) -> bool:
        # A copied scope keeps its headers; a call of another application has headers of its own.
        own = self.scope
        headers: object = request.get("headers")
        return request is own or (
            headers is not None and headers is own.get("headers") and request["type"] == own["type"]
        )

    def look_out(self) -> None:
        if self.ear is None and not self.ended:
            # Some servers' sign is also that of a connection which will not be used again.
            self._was_stopping = is_asgi_stopping(self.server_receive, self.server_send())
            self.plain = False
            self.ear = Ear(self)
            # From here on it is looked at.
            self.ask()

    def may_stop(self) -> bool:
        if not super().may_stop():
            return False
        return self._was_stopping or not is_asgi_stopping(self.server_receive, self.server_send())

    def ask_socket(self) -> None:
        """Ask the kernel whether the peer has reset the connection, where its socket is in reach.

        A server that does not read does not see it.
        """
        if self.progress != GONE and _is_reset(
            asgi_socket(self.server_receive, self.server_send())
        ):
            self.peer_gone(Witness.SOCKET, _clock(), mechanism=Mechanism.RESET, late=True)

    def heard(self, message: Message) -> None:
        """The ear has received a message that the application has not received yet."""
        if message["type"] == "http.disconnect":
            self.peer_gone(Witness.RECEIVE, _clock())

    def is_sending(self, frame: FrameType) -> bool:
        return is_call_of(frame, self.server_send())

    def is_aftermath(self, error: BaseException) -> bool:
        if not isinstance(error, ConnectionError) and not is_closed_handle(error):
            return False
        if error.__cause__ is not None or error.__context__ is not None:
            return False
        return was_inside(error, self.server_send())

    def ask_transport(self, transport: object) -> None:
        get_extra_info = getattr(transport, "get_extra_info", None)
        if callable(get_extra_info) and _is_reset(get_extra_info("socket")):
            self.peer_gone(Witness.SOCKET, time.monotonic(), mechanism=Mechanism.RESET, late=True)

    def facts(self) -> Facts:
        scope = self.scope
        route: object = scope.get("route")
        pattern: object = getattr(route, "path_format", None) or getattr(route, "path", None)
        found: Any = scope.get("headers", ())
        headers: dict[bytes, bytes] = dict(found) if can_be_read_again(found) else {}
        return Facts(
            framework="asgi",
            server=self.server.name,
            method=scope.get("method", "WEBSOCKET"),
            client=client_address(scope),
            route=pattern if isinstance(pattern, str) else None,
            request_id=_text(headers.get(b"x-request-id")),
            trace_id=trace_id(_text(headers.get(b"traceparent"))),
            idempotency_key=_text(headers.get(b"idempotency-key")),
        )

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        return asgi_treatment(self.server, error, side, complete=self.progress == COMPLETE)

    def find_witness(self, error: BaseException) -> None:
        if self._is_from_the_server(error):
            self.response_failed()
            now = time.monotonic()
            self.peer_gone(Witness.SEND, now, error)
            # What the server was handling when it raised that one: the websockets library's
            # drain() catches its own ConnectionResetError, and raises ConnectionClosedError. What
            # the application was handling is not among these.
            for each in behind(error):
                if isinstance(each, Exception) and any(
                    was_inside(each, call) for call in (self.server_receive, self.server_send())
                ):
                    self.peer_gone(Witness.SEND, now, each)

    def _is_from_the_server(self, error: BaseException) -> bool:
        """Whether an error came out of the server's own code, at work for this exchange."""
        # uvloop raises a RuntimeError for a write to a connection that is lost.
        if not isinstance(error, OSError) and not is_closed_handle(error):
            return False
        if self.server is UNKNOWN:
            # Something stands around us, whose own connections pass its callables as well.
            return False
        owners = [
            owner
            for call in (self.server_receive, self.server_send())
            if (owner := getattr(call, "__self__", None)) is not None
        ]
        return passed_methods(error, ASGI_CALLS, owners)


class HttpWatch(AsgiWatch):
    """One HTTP request's ``receive`` and ``send``."""

    __slots__ = ()

    whole: bool = True
    receiving: int = 0
    """How many calls of the application's wait in the server's own ``receive``."""

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        asked = _clock()
        if self.ear is None:
            # Only the calls that the ear did not make itself: it may come to be meanwhile.
            self.receiving += 1
            try:
                message = await self.server_receive()
            finally:
                self.receiving -= 1
        else:
            message = await self.ear.next()
        self.took(message, asked)
        if self.ear is not None:
            await self._pass_on(self.ear, message)
        return message

    async def _pass_on(self, ear: Ear, message: Message) -> None:
        ear.notify()
        if message["type"] == "http.disconnect":
            await ear.hold_back(message)

    @property
    def is_receiving(self) -> bool:
        return self.receiving > 0

    @property
    def has_all(self) -> bool:
        return self.body_complete

    def took(self, message: Message, asked: float) -> None:
        """The application gets a message that it has asked for at that time."""
        if message["type"] == "http.disconnect":
            self.cut_short = not self.body_complete and not is_said_to_application()
            now = _clock()
            # A message that comes at once has been there for longer.
            self.peer_gone(Witness.RECEIVE, now, late=now - asked < _AT_ONCE)
        else:
            self.bytes_in += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.whole = True

    def send(self, message: Message) -> Awaitable[None]:
        """What the application has as ``send``.

        Nearly always it returns the server's own coroutine, without one around it; `find_witness`
        finds out later what that raises.
        """
        kind = message["type"]
        if kind == "http.response.start":
            try:
                owner = self.server_receive.__self__  # type: ignore[attr-defined]
                gone, self.emptied = SETTLED[type(owner)]
            except (AttributeError, KeyError):
                self._begin()
            else:
                if gone(owner):
                    self.ask()
            self._head = message
        elif kind == "http.response.body":
            if "more_body" in message and message["more_body"]:  # noqa: RUF019 - cheaper than get()
                return self._send_piece(message)
            if not self.progress:
                # As nearly always: `OPEN`. Before it is sent: while it is, the server may tell of
                # the end, and that is then no departure.
                self.progress = COMPLETE
            else:
                return self._send_last(message)
        elif kind == "http.response.pathsend":
            self.response_completed()
        # Not `self.send_to(message)`: the interpreter looks for a method first, in all classes.
        send = self.send_to
        return send(message)

    def _begin(self) -> None:
        self.ask()
        probe = probe_of(self.server_receive)
        if probe is not None and not probe.settled and self.progress == OPEN:
            # Its send() of a single piece may wait as well, and has to be watched.
            self.progress = STREAMING

    def _send_piece(self, message: Message) -> Awaitable[None]:
        size = len(message.get("body", b""))
        self.response_piece(size)
        probe = probe_of(self.server_receive)
        if probe is not None and probe.settled and size <= _HIGH_WATER and not self.in_flight:
            return self.send_to(message)
        return self._send_slowly(message, size, waits=probe is None or not probe.settled)

    async def _send_slowly(self, message: Message, size: int, *, waits: bool) -> None:
        """Send a piece that the server may not be able to write at once.

        Args:
            message: The piece.
            size: Its length in bytes.
            waits: Whether the server's call returns when it has written. If not, its next one
                waits before it writes.
        """
        self.in_flight += size
        await self.send_to(message)
        self.in_flight = 0 if waits or size <= _HIGH_WATER else size

    def awaited_out(self) -> int | None:
        head = self._head
        headers = head.get("headers", ())
        length = header(headers, b"content-length") if can_be_read_again(headers) else None
        return awaited_length(self.scope["method"], head["status"], length)

    async def _send_last(self, message: Message) -> None:
        """Send the last piece if the peer may have left before, or may leave meanwhile."""
        self.ask()
        probe = probe_of(self.server_receive)
        if probe is None or probe.is_queue:
            size = len(message.get("body", b""))
            if probe is not None and size >= _HIGH_WATER and self.progress == STREAMING:
                # What is in the queue behind the end is no sign. The same bytes, in two steps.
                await self.send_to({**message, "more_body": True})
                self.ask()
                message = {"type": "http.response.body", "body": b""}
            self.response_completed()
            await self.send_to(message)
            return
        await self.send_to(message)
        self.ask()
        self.response_completed()

    def ask(self) -> None:
        if self.progress == GONE:
            return
        probe = probe_of(self.server_receive)
        if probe is None or (self.progress == COMPLETE and not probe.settled):
            return
        if probe.gone(self.server_receive):
            # If the response was complete, it left while the server waited for room to write.
            self.response_failed()
            self.peer_gone(probe.witness, time.monotonic(), late=True)


class UploadWatch(HttpWatch):
    """The same for a request with a body: an early response to it is delivered."""

    __slots__ = ("_length", "begin_delivery", "bytes_in", "has_read", "pending", "whole")

    begin_delivery: Callable[[UploadWatch], Delivery]
    """Makes the delivery, when a response begins while the body is incomplete."""
    whole: bool
    """Whether the application has received the body's end."""
    pending: int
    """How many calls of the application's wait for a message."""
    has_read: bool
    """Whether it has called ``receive``."""
    _length: int

    @property
    def length(self) -> int:
        """The body's length, `CHUNKED` or `NO_BODY`."""
        # Nearly every body is read to the end, and then nobody asks for its length.
        try:
            return self._length
        except AttributeError:
            self._length = request_length(self.scope, self.server_receive, self.server_send())
            return self._length

    @property
    def body_complete(self) -> bool:  # type: ignore[override]
        return self.whole or self.length == NO_BODY

    @property
    def body_arrived(self) -> bool:  # type: ignore[override]
        return has_arrived(self.server_receive, self.server_send())

    @property
    def expected_in(self) -> int | None:  # type: ignore[override]
        return None if self.length in (CHUNKED, NO_BODY) else self.length

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        asked = _clock()
        if not self.plain and self.messages is not None:
            message = await self.messages.receive()
            self.took(message, asked)
            return message
        self.has_read = True
        self.pending += 1
        receive = self.server_receive if self.plain or self.ear is None else self.ear.next
        try:
            message = await receive()
        except BaseException:
            self._came(None)
            raise
        self.pending -= 1
        if not self.plain and self.messages is not None:
            # The response has begun meanwhile.
            self.messages.came(message)
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            if not message.get("more_body"):
                self.whole = True
        else:
            self.took(message, asked)
        if not self.plain and self.ear is not None:
            await self._pass_on(self.ear, message)
        return message

    @property
    def is_receiving(self) -> bool:
        return self.pending > 0

    @property
    def has_all(self) -> bool:
        return self.body_complete and self.messages is None

    def _came(self, message: Message | None) -> None:
        self.pending -= 1
        if self.messages is not None:
            self.messages.came(message)

    def send(self, message: Message) -> Awaitable[None]:
        """What the application has as ``send``."""
        if (
            not self.whole
            and message["type"] == "http.response.start"
            # In this case nobody is uploading any more: the connection can be used again as it is.
            and not self.body_arrived
            and self.length != NO_BODY
            and not self.is_stopped
        ):
            self.ask()
            if self.departure is None or self.phase is Phase.REQUEST_BODY:
                self.deliver()
        return HttpWatch.send(self, message)

    @property
    def is_stopped(self) -> bool:
        """Whether the work was stopped, so that there is nobody to deliver a response to."""
        return self.stops is not None and self.stops.stopped

    def is_unanswered(self, error: BaseException) -> bool:
        return is_unanswered(
            error,
            begun=self.status is not None,
            body_complete=self.body_arrived or self.body_complete,
            stopped=self.is_stopped,
        )

    def deliver(self) -> Delivery:
        if self.messages is None:
            self.ask()
            self.plain = False
            self.messages = self.begin_delivery(self)
            self.delivery = self.messages.exchange
            self.send_to = self.messages.send
        return self.messages


def _as_coroutine(function: Any) -> None:
    """Mark a function that returns another one's coroutine as a coroutine function.

    asgiref's ``AsyncToSync`` warns of every call otherwise.
    """
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(function)
    else:
        # Python 3.11: what `asyncio.iscoroutinefunction` looks for.
        function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)


_as_coroutine(HttpWatch.send)
_as_coroutine(UploadWatch.send)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _is_reset(sock: object) -> bool:
    """Whether the kernel says that a socket that nobody here has closed has lost its peer."""
    connection = ask_connection(sock)
    return connection is not None and connection.reset
