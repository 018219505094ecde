"""An early response on ASGI: carries out the core's steps on the server's callables."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Final

import anyio

from cleanclose.asgi._messages import Message, Receive, Send, header
from cleanclose.asgi._runtime import Runtime, current_runtime
from cleanclose.core import Event, Mechanism
from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.framing import needs_length, response_length
from cleanclose.core.deliver.table import Done, Forward, Keep, Read, Respond, State, Step
from cleanclose.core.kernel import taken_from
from cleanclose.core.server import Server
from cleanclose.linger import LINGERER, Handover, descriptor_of
from cleanclose.servers import asgi_socket, close_asgi, is_asgi_stopping, stop_reading

__all__ = ["Delivery"]

_TURNS: Final = 32
"""Turns of the event loop in which an application may still complete a response that it has
begun: middleware may hand each message on through a task of its own."""
_ASK_STOPPING: Final = 0.25
"""Seconds after which a drain asks whether the server is stopping: it must not wait for us."""
_LOOK: Final = 0.002
"""Seconds in which the event loop sees what has arrived."""
_SMALL_RESPONSE: Final = 64 * 1024
"""Bytes of a response that fit into the socket buffers of a client that is not reading yet. A
server that sends more may wait for a client that waits for the server to read."""


class Delivery:
    """The callables of the application from its response's head on, while its body is unread.

    A drain runs in a task of its own, so that the application gets its send() back as fast as
    without us: its background tasks and its teardown do not wait for a slow upload.

    Args:
        exchange: The exchange.
        server: The server.
        receive: The server's ``receive``.
        send: The server's ``send``.
        report: Receives the lingerer's event.
        most: How many connections may linger.
        pending: How many calls of ``receive`` the application has under way.
    """

    def __init__(
        self,
        exchange: Exchange,
        server: Server,
        receive: Receive,
        send: Send,
        report: Callable[[Event], None],
        most: int,
        pending: int,
    ) -> None:
        self.exchange = exchange
        self._server = server
        self._server_receive = receive
        self.server_send = send
        self._report = report
        self._most = most
        self._kept: list[Message] = []
        self._app_receiving = pending
        self._turns = 0
        # If it says so from the start, it proves nothing later.
        self._stopping = is_asgi_stopping(receive, send)
        # The application and a task of ours may both have something to send, and several tasks of
        # the application may be at work.
        self._writing = anyio.Lock(fast_acquire=True)
        # From here on: only once there is something to wait for.
        self._runtime: Runtime | None = None
        self._changed: anyio.Event | None = None
        self._task: object | None = None
        self._delivered: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._error: Exception | None = None
        self._taken_before: tuple[int, int] | None = None

    # What the application calls.

    async def receive(self) -> Message:
        """What the application has as ``receive`` from here on."""
        if not self.exchange.early:
            self.exchange.app_read(time.monotonic())
            await self._flush()
        # Checked again: another task of the application may have completed the response.
        if self.exchange.early:
            # The servers themselves say this once a response is complete. The drain may have taken
            # their message, and some send it only once.
            return {"type": "http.disconnect"}
        self._app_receiving += 1
        try:
            message = await self._server_receive()
        finally:
            self._app_receiving -= 1
            self._notify()
        self._tell(message)
        return message

    def came(self, message: Message | None) -> None:
        """A call of ``receive`` that began before this object has returned (with None: raised)."""
        self._app_receiving -= 1
        if message is not None:
            self._tell(message)
        self._notify()

    async def send(self, message: Message) -> None:
        """What the application has as ``send`` from here on."""
        exchange = self.exchange
        now = time.monotonic()
        step: Step
        match message["type"]:
            case "http.response.start":
                if message.get("trailers", False):
                    # The end is then another message than the last piece of the body.
                    exchange.leave_alone()
                # Any iterables are allowed, even for a single iteration.
                headers = [(name, value) for name, value in message.get("headers", ())]
                message = {**message, "headers": headers}
                length = response_length(header(headers, b"content-length"))
                step = exchange.response_started(message["status"], length, now)
            case "http.response.body":
                size = len(message.get("body", b""))
                if message.get("more_body", False):
                    step = exchange.response_piece(size, now)
                else:
                    step = exchange.response_completed(now, size)
            case _:
                # Extensions (early hints, pathsend …) go through in their order.
                await self._flush()
                await self.server_send(message)
                return
        self._kept.append(message)
        await self._do(step)

    # Afterwards.

    async def fail(self) -> None:
        """The application has raised, and the code that answers for it does not want the body."""
        with contextlib.suppress(Exception):
            # The application's own exception is the one to be seen.
            await self._carry_out(self.exchange.app_failed(time.monotonic()))
            if self._server.end_waits and self.exchange.early and self.exchange.may_read:
                # The answering code does not read, and the server holds the answer's end until
                # somebody does: what has come since would fill its queue again.
                self._runtime = self._runtime or current_runtime()
                self._task = self._runtime.spawn(self._read_on)

    async def close(self, *, failed: bool) -> None:
        """The application has returned or raised: complete the drain.

        Args:
            failed: Whether the application raised; its exception is then the one to be seen.
        """
        step = self.exchange.app_ended(time.monotonic())
        if self._delivered is not None:
            await self._drained()
        elif isinstance(step, Done):
            try:
                await self._flush()
            except Exception:
                if not failed:
                    raise
        if self._error is not None and not failed:
            raise self._error

    async def _drained(self) -> None:
        assert self._delivered is not None
        self._notify()
        try:
            await self._delivered.wait()
        except BaseException:
            # Cancelled: the server is stopping, or somebody's time is up.
            self.exchange.abandoned(time.monotonic())
            if self._scope is not None:
                self._scope.cancel()
            with anyio.move_on_after(1, shield=True):
                await self._delivered.wait()
            raise

    # The steps.

    async def _do(self, step: Step) -> None:
        """Do at once what needs no waiting for the client; leave the rest to a task."""
        match step:
            case Keep():
                self._await_turn()
            case Read() if self._task is None:
                self._start_task(self._drain)
            case Read():
                self._notify()
            case _:
                await self._carry_out(step)

    def _await_turn(self) -> None:
        if self._turns == 0:
            self._turns = _TURNS
            self._runtime = self._runtime or current_runtime()
            self._runtime.next_turn(self._turn)

    def _turn(self) -> None:
        if self.exchange.state is not State.KEPT:
            self._turns = 0
            return
        self._turns -= 1
        assert self._runtime is not None
        if self._turns:
            self._runtime.next_turn(self._turn)
        else:
            self.exchange.turn_over(time.monotonic())
            self._start_task(self._flush)

    def _start_task(self, job: Callable[[], Any]) -> None:
        self._runtime = self._runtime or current_runtime()
        self._delivered = delivered = anyio.Event()

        async def run() -> None:
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - raised where the application can see it
                # A server may raise in send() when the client has left (ASGI 2.4). Without us the
                # application would have ended before that, and nobody would have noticed.
                if not (isinstance(error, OSError) and self.exchange.left_while_draining):
                    self._error = error
                # Its place must not be lost with it.
                self.exchange.abandoned(time.monotonic())
            finally:
                delivered.set()
                self._task = None

        self._task = self._runtime.spawn(run)

    async def _drain(self) -> None:
        exchange = self.exchange
        try:
            with anyio.CancelScope() as self._scope:
                await self._carry_out(exchange.step(time.monotonic()))
            if self._scope.cancelled_caught:
                await self._carry_out(exchange.step(time.monotonic()))
        except BaseException:
            exchange.abandoned(time.monotonic())
            raise

    async def _carry_out(self, step: Step) -> None:
        exchange = self.exchange
        while True:
            match step:
                case Read(seconds):
                    step = await self._discard(seconds)
                case Respond():
                    with self._undisturbed():
                        await self._respond(step)
                    exchange.responded(time.monotonic())
                    return
                case Done(in_one_piece):
                    with self._undisturbed():
                        await self._flush(whole=True, in_one_piece=in_one_piece)
                    return
                case Forward():
                    await self._flush()
                    return
                case Keep():
                    return

    def _undisturbed(self) -> contextlib.AbstractContextManager[object]:
        """Ending a drain ends its read only: otherwise a message on its way out would be lost."""
        if self._scope is None:
            return contextlib.nullcontext()
        return anyio.CancelScope(shield=True)

    async def _discard(self, seconds: float) -> Step:
        exchange = self.exchange
        if self._app_receiving:
            # The server's receive() is not for two at a time: what the application's call
            # brings is looked at when it returns.
            await self._wait(seconds)
            return exchange.nothing_came(time.monotonic())
        message: Message | None = None
        try:
            with anyio.move_on_after(min(seconds or _LOOK, _ASK_STOPPING)):
                message = await self._server_receive()
        except Exception as error:  # noqa: BLE001 - the core knows what it means
            return exchange.reading_failed(error, time.monotonic())
        if is_asgi_stopping(self._server_receive, self.server_send) and not self._stopping:
            return exchange.abandoned(time.monotonic())
        if message is None:
            return exchange.nothing_came(time.monotonic())
        return self._tell(message)

    def _tell(self, message: Message) -> Step:
        now = time.monotonic()
        if message["type"] == "http.disconnect":
            return self.exchange.peer_gone(Mechanism.UNKNOWN, now)
        exchange = self.exchange
        size = len(message.get("body", b""))
        step = exchange.body_received(size, not message.get("more_body", False), now)
        if exchange.frames_unseen and isinstance(step, Read):
            return self._look_at_wire()
        return step

    def _look_at_wire(self) -> Step:
        """Count a chunked body's framing, which the server does not show."""
        exchange, now = self.exchange, time.monotonic()
        taken = taken_from(asgi_socket(self._server_receive, self.server_send))
        if taken is None:
            return exchange.step(now)
        if self._taken_before is None:
            self._taken_before = taken, exchange.drained
        before, drained = self._taken_before
        return exchange.on_wire(taken - before, exchange.drained - drained, now)

    async def _respond(self, step: Respond) -> None:
        exchange = self.exchange
        if step.linger:
            # Before the server may close it: from now on the lingerer has it.
            number = descriptor_of(asgi_socket(self._server_receive, self.server_send))
            if number is not None:
                self._hand_over(number)
            # Otherwise the connection was lost meanwhile, and sending reports it.
        if step.close:
            close_asgi(self._server_receive, self.server_send)
        size = sum(len(each.get("body", b"")) for each in self._kept)
        try:
            if exchange.may_read and (self._server.end_waits or size > _SMALL_RESPONSE):
                await self._flush_reading(step)
            else:
                await self._flush(whole=True, close=step.close, in_one_piece=step.in_one_piece)
        except OSError:
            # The server closes the connection within its send(): hypercorn's raises the errors of
            # ending TLS. The response is out, and the lingerer knows how it ended.
            if self._kept or not exchange.handed_over:
                raise

    def _hand_over(self, number: int) -> None:
        handover = Handover(
            linger=self.exchange.linger(time.monotonic()),
            report=self._report,
            most=self._most,
            held_as=number,
        )
        if LINGERER.take(number, handover) is None:
            self.exchange.no_descriptor()

    async def _flush_reading(self, step: Respond) -> None:
        """Send what is kept back, and read meanwhile: the server may wait until somebody does."""
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_on)
            try:
                await self._flush(whole=True, close=step.close, in_one_piece=step.in_one_piece)
            except Exception as error:  # noqa: BLE001 - raised below, without the group's wrapping
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _read_on(self) -> None:
        message: Message = {"type": "http.request"}
        # An error of the server's receive() is no reason to stop sending.
        with contextlib.suppress(Exception):
            while message["type"] != "http.disconnect":
                if self._app_receiving:
                    await self._wait(math.inf)
                else:
                    message = await self._server_receive()

    async def _flush(
        self, *, whole: bool = False, close: bool = False, in_one_piece: bool = False
    ) -> None:
        """Send what is kept back.

        Args:
            whole: Whether that is all of the response, if its head is among it.
            close: Whether the head is to say that the connection will be closed.
            in_one_piece: Whether the body must be one message.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        async with self._writing:
            kept = self._kept
            if kept and kept[0]["type"] == "http.response.start":
                if whole:
                    kept[0] = _with_length(kept[0], kept[1:])
                if close:
                    kept[0] = _with_close(kept[0])
            if in_one_piece:
                self._join()
            while kept:
                await self.server_send(kept.pop(0))
            if whole and self.exchange.handed_over:
                # At once: the application may go on for a long time after its response.
                stop_reading(self._server_receive, self.server_send)

    def _join(self) -> None:
        pieces = [each for each in self._kept if each["type"] == "http.response.body"]
        if len(pieces) > 1:
            body = b"".join(each.get("body", b"") for each in pieces)
            self._kept[-len(pieces) :] = [{"type": "http.response.body", "body": body}]

    async def _wait(self, seconds: float) -> None:
        self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _with_length(head: Message, pieces: list[Message]) -> Message:
    """The head of a complete response, with its length.

    Without one the connection's end would be the response's, or a chunk's: some proxies make an
    error of an end that comes behind a response which they have passed on.
    """
    headers: list[tuple[bytes, bytes]] = list(head.get("headers", ()))
    names = ((name.decode("latin-1"), "") for name, _ in headers)
    if not needs_length(str(head["status"]), names):
        return head
    size = sum(len(each.get("body", b"")) for each in pieces)
    return {**head, "headers": [*headers, (b"content-length", b"%d" % size)]}


def _with_close(head: Message) -> Message:
    headers = [pair for pair in head.get("headers", ()) if pair[0].lower() != b"connection"]
    return {**head, "headers": [*headers, (b"connection", b"close")]}
