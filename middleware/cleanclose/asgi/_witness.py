"""The application's callables, which report to the core what passes through them."""

from __future__ import annotations

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
    client_address,
    fields,
    request_length,
    size_of,
)
from cleanclose.core import Facts, Mechanism, Side, Watch, Witness
from cleanclose.core.blame.calls import (
    LastPiece,
    held_after,
    is_aftermath_of,
    is_late,
    raised_by_calls,
)
from cleanclose.core.blame.provenance import is_call_of
from cleanclose.core.blame.short_uploads import is_cut_short
from cleanclose.core.blame.watch import COMPLETE, GONE, OPEN, STREAMING
from cleanclose.core.conduct import Treatment, asgi_treatment
from cleanclose.core.deliver.early import fails_early, may_be_early
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, awaited_length
from cleanclose.core.kernel import is_reset
from cleanclose.core.server import Server
from cleanclose.core.tracing import ids_of
from cleanclose.loops import as_coroutine_function
from cleanclose.servers import ASGI_CALLS, SETTLED, Calls, Stopping, asgi_server, sign_of

__all__ = ["NO_SCOPE", "SKIP_KEY", "AsgiWatch", "HttpWatch", "UploadWatch"]

SKIP_KEY: Final = "cleanclose.skip"
"""The scope's key for the application's wish to have its response left alone."""
NO_SCOPE: Final[Scope] = {}
"""The scope of a request that is over."""
_clock: Final = time.monotonic


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
    receiving: int = 0
    """How many calls of the application's wait for a message."""
    ear: Ear | None = None
    """The watcher for the departure, if somebody asked for one."""
    messages: Delivery | None = None
    """What the application's calls go through, while there is something to deliver."""
    emptied: tuple[Receive, Send] | None
    """The functions that replace the server's callables once the response is complete."""
    _stopping: Stopping | None = None

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Without arguments."""

    else:
        __init__ = object.__init__

    # What the middleware asks.

    def fails_early(self, error: BaseException) -> bool:
        """Whether an error came while there was a body to read, and before a response."""
        return False

    def deliver(self) -> Delivery:
        """Let the application's calls go through a delivery, from here on."""
        raise NotImplementedError

    @property
    def is_alone(self) -> bool:
        """Whether neither an ear nor a delivery has taken part in the exchange."""
        return self.messages is None and self.ear is None

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
            self.send_to = self.calls.send
            self.messages = None

    # What the ear asks.

    @property
    def only_departure_comes(self) -> bool:
        """Whether nothing else can come, and nobody but the ear waits for it."""
        return False

    def ask_socket(self) -> None:
        """Ask the kernel whether the peer has reset the connection, where its socket is in reach.

        A server that does not read does not see it.
        """
        if self.progress != GONE:
            self._ask_kernel(self.calls.socket)

    def heard(self, message: Message) -> None:
        """The ear has received a message that the application has not received yet."""
        if message["type"] == "http.disconnect":
            self.peer_gone(Witness.RECEIVE, _clock())

    # What the core asks.

    @property
    def status(self) -> int | None:
        # Not set before the response begins: that would be one more store for every request.
        head: Message | None = getattr(self, "_head", None)
        return None if head is None else head["status"]

    @property
    def calls(self) -> Calls:
        """The server's own callables."""
        if self.messages is not None:
            return self.messages.calls
        return Calls(self.server_receive, self.send_to)

    @property
    def server(self) -> Server:
        """The server, as far as its callables show which one it is."""
        if self.messages is not None:
            return self.messages.server
        return asgi_server(self.server_receive, self.send_to)

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, by their names in lower case."""
        return fields(self.scope)

    def is_for(self, request: Mapping[str, Any], /) -> bool:
        # A copied scope keeps its headers; a call of another application has headers of its own.
        own = self.scope
        headers: object = request.get("headers")
        return request is own or (
            headers is not None and headers is own.get("headers") and request["type"] == own["type"]
        )

    def look_out(self) -> None:
        if self.ear is None and not self.ended:
            self._stopping = Stopping(self.calls)
            self.plain = False
            self.ear = Ear(self)
            # From here on it is looked at.
            self.ask()

    def may_stop(self) -> bool:
        stopping = self.calls.is_stopping if self._stopping is None else self._stopping.has_begun
        return super().may_stop() and not stopping

    def is_sending(self, frame: FrameType) -> bool:
        return is_call_of(frame, self.calls.send)

    def is_aftermath(self, error: BaseException) -> bool:
        return is_aftermath_of(error, self.calls.send)

    def ask_transport(self, transport: object) -> None:
        get_extra_info = getattr(transport, "get_extra_info", None)
        if callable(get_extra_info):
            self._ask_kernel(get_extra_info("socket"))

    def _ask_kernel(self, sock: object) -> None:
        if is_reset(sock):
            self.peer_gone(Witness.SOCKET, _clock(), mechanism=Mechanism.RESET, late=True)

    def facts(self) -> Facts:
        scope = self.scope
        route: object = scope.get("route")
        pattern: object = getattr(route, "path_format", None) or getattr(route, "path", None)
        return Facts(
            framework="asgi",
            server=self.server.name,
            method=scope.get("method", "WEBSOCKET"),
            client=client_address(scope),
            route=pattern if isinstance(pattern, str) else None,
            **ids_of(self.headers.get),
        )

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        return asgi_treatment(self.server, error, side, complete=self.progress == COMPLETE)

    def find_witness(self, error: BaseException) -> None:
        for each in raised_by_calls(error, self.server, self.calls, ASGI_CALLS):
            self.peer_gone(Witness.SEND, _clock(), each, unsent=True)


class HttpWatch(AsgiWatch):
    """One HTTP request's ``receive`` and ``send``."""

    __slots__ = ()

    whole: bool = True
    """Whether the application has received the body's end."""

    async def receive(self) -> Message:
        """What the application has as ``receive``."""
        asked = _clock()
        self.has_read = True
        receive = self.server_receive
        if not self.plain:
            said = None if self.messages is None else await self.messages.app_reads()
            if said is not None:
                self._left(asked)
                return said
            if self.ear is not None:
                receive = self.ear.next
        self.receiving += 1
        try:
            message = await receive()
        except BaseException:
            self.receiving -= 1
            self._stir(None)
            raise
        self.receiving -= 1
        if not self.plain:
            # It may have become so meanwhile.
            self._stir(message)
        if message["type"] == "http.disconnect":
            self._left(asked)
            if self.ear is not None:
                await self.ear.hold_back(message)
        else:
            self.bytes_in += len(message.get("body", b""))
            if not message.get("more_body"):
                self.whole = True
        return message

    def _stir(self, message: Message | None) -> None:
        if self.messages is not None:
            self.messages.app_got(message)
        if self.ear is not None:
            self.ear.bell.ring()

    def _left(self, asked: float) -> None:
        """The application receives the departure, which it has asked for at that time."""
        now = _clock()
        self.cut_short = is_cut_short(body_complete=self.body_complete)
        self.peer_gone(Witness.RECEIVE, now, late=is_late(asked, now))

    @property
    def only_departure_comes(self) -> bool:
        return not self.receiving and self.body_complete and self.messages is None

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
        if self.progress == OPEN and sign_of(self.server_receive).shows.watches_each_piece:
            self.progress = STREAMING

    def _send_piece(self, message: Message) -> Awaitable[None]:
        size, waits = size_of(message), sign_of(self.server_receive).shows.waits
        self.response_piece(size)
        held = held_after(size, waits=waits)
        if waits or held or self.in_flight:
            return self._send_slowly(message, size, held)
        return self.send_to(message)

    async def _send_slowly(self, message: Message, size: int, held: int) -> None:
        """Send a piece that the server may not be able to write at once."""
        self.in_flight += size
        await self.send_to(message)
        self.in_flight = held

    async def _send_last(self, message: Message) -> None:
        """Send the last piece if the peer may have left before, or may leave meanwhile."""
        self.ask()
        completes = sign_of(self.server_receive).shows.last_piece(
            size_of(message), streaming=self.progress == STREAMING
        )
        if completes is LastPiece.WHEN_SENT:
            await self.send_to(message)
            self.ask()
            self.response_completed()
            return
        if completes is LastPiece.IN_TWO_STEPS:
            await self.send_to({**message, "more_body": True})
            self.ask()
            message = {"type": "http.response.body", "body": b""}
        self.response_completed()
        await self.send_to(message)

    def awaited_out(self) -> int | None:
        length = fields(self._head).get("content-length")
        return awaited_length(self.scope["method"], self._head["status"], length)

    def ask(self) -> None:
        sign = sign_of(self.server_receive)
        if (
            self.progress != GONE
            and sign.shows.counts(complete=self.progress == COMPLETE)
            and sign.gone(self.server_receive)
        ):
            # If the response was complete, the client left while the server waited to write.
            self.peer_gone(sign.witness, _clock(), late=True, unsent=True)


class UploadWatch(HttpWatch):
    """The same for a request with a body: an early response to it is delivered."""

    __slots__ = (
        "_headers",
        "_length",
        "begin_delivery",
        "bytes_in",
        "has_read",
        "receiving",
        "whole",
    )

    begin_delivery: Callable[[UploadWatch], Delivery]
    """Makes the delivery, when a response begins while the body is incomplete."""
    whole: bool
    receiving: int
    has_read: bool
    _headers: Mapping[str, str]
    _length: int

    @property
    def headers(self) -> Mapping[str, str]:
        # Asked several times for a response that is early, and never for another.
        try:
            return self._headers
        except AttributeError:
            self._headers = fields(self.scope)
            return self._headers

    @property
    def length(self) -> int:
        """The body's length, `CHUNKED` or `NO_BODY`."""
        # Nearly every body is read to the end, and then nobody asks for its length.
        try:
            return self._length
        except AttributeError:
            self._length = request_length(
                self.scope, self.headers, ends_at_upgrade=self.server.ends_at_upgrade
            )
            return self._length

    @property
    def body_complete(self) -> bool:  # type: ignore[override]
        return self.whole or self.length == NO_BODY

    @property
    def body_arrived(self) -> bool:  # type: ignore[override]
        return self.calls.has_all

    @property
    def left_alone(self) -> bool:  # type: ignore[override]
        return bool(self.scope.get(SKIP_KEY))

    @property
    def expected_in(self) -> int | None:  # type: ignore[override]
        return None if self.length in (CHUNKED, NO_BODY) else self.length

    def send(self, message: Message) -> Awaitable[None]:
        """What the application has as ``send``."""
        if not self.whole and message["type"] == "http.response.start" and may_be_early(self):
            self.deliver()
        return HttpWatch.send(self, message)

    def fails_early(self, error: BaseException) -> bool:
        return fails_early(self, error)

    def deliver(self) -> Delivery:
        if self.messages is None:
            self.ask()
            self.plain = False
            self.messages = self.begin_delivery(self)
            self.delivery = self.messages.exchange
            self.send_to = self.messages.send
        return self.messages


as_coroutine_function(HttpWatch.send)
as_coroutine_function(UploadWatch.send)
