"""An early response on ASGI: carries out the core's steps on the server's callables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from cleanclose.asgi._messages import Message, fields, size_of, with_close, with_length
from cleanclose.core import Mechanism
from cleanclose.core.deliver.early import is_behind_response, needs_reader
from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.framing import response_length
from cleanclose.core.deliver.patience import LOOKS_BEHIND, SECONDS_TO_END, TURNS, turn_of
from cleanclose.core.deliver.table import Done, Forward, Keep, Read, Respond, State, Step
from cleanclose.core.kernel import taken_from
from cleanclose.core.server import Server
from cleanclose.core.setup import Setup
from cleanclose.linger import Taken, descriptor_of, hand_over, look_soon
from cleanclose.loops import Bell, LateReader, Runtime, current_runtime
from cleanclose.servers import Calls, Stopping

__all__ = ["Delivery"]


class Delivery:
    """The path of an application's messages, once it responds while the body is unread.

    A drain runs in a task of its own, so that the application gets its send() back as fast as
    without us: its background tasks and its teardown do not wait for a slow upload.

    Args:
        exchange: The exchange.
        calls: The server's callables.
        is_app_receiving: Whether the application has a call of ``receive`` under way.
        setup: What all exchanges share.
        server: The server.
        sock: The client's socket, or what stands in for it; None if it is not in reach.
    """

    def __init__(
        self,
        exchange: Exchange,
        calls: Calls,
        is_app_receiving: Callable[[], bool],
        setup: Setup,
        *,
        server: Server,
        sock: object,
    ) -> None:
        self.exchange = exchange
        self.calls = calls
        self.server = server
        self._sock = sock
        self._is_app_receiving = is_app_receiving
        self._setup = setup
        self._kept: list[Message] = []
        self._turns = 0
        self._stopping = Stopping(calls)
        # The application and a task of ours may both have something to send, and several tasks of
        # the application may be at work.
        self._is_writing = False
        self._written = Bell()
        self._received = Bell()
        # From here on: only once there is something to wait for.
        self._runtime: Runtime | None = None
        self._task: object | None = None
        self._delivered: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._error: Exception | None = None

    # What the application does.

    async def app_reads(self) -> Message | None:
        """The application asks for a message.

        Returns:
            What it gets without a call of the server's ``receive``; None if that has to be asked.
        """
        if not self.exchange.early:
            self.exchange.app_read(time.monotonic())
            await self._flush_apart()
        # Checked again: another task of the application may have completed the response. The
        # servers themselves say this then. The drain may have taken their message, and some send it
        # only once.
        return {"type": "http.disconnect"} if self.exchange.early else None

    def app_got(self, message: Message | None) -> None:
        """A call of the server's ``receive`` has returned with this, or has raised (None)."""
        if message is not None:
            self._tell(message)
        self._received.ring()

    async def send(self, message: Message) -> None:
        """What the application has as ``send`` from here on."""
        exchange = self.exchange
        now = time.monotonic()
        step: Step
        match message["type"]:
            case "http.response.start" | "http.response.body" as kind if not exchange.takes(
                head=kind == "http.response.start"
            ):
                await self._misplaced(message)
                return
            case "http.response.start":
                if message.get("trailers", False):
                    # The end is then another message than the last piece of the body.
                    exchange.leave_alone()
                # Any iterables are allowed, even for a single iteration.
                headers = [(name, value) for name, value in message.get("headers", ())]
                message = {**message, "headers": headers}
                length = response_length(fields(message).get("content-length"))
                step = exchange.response_started(message["status"], length, now)
            case "http.response.body" if message.get("more_body", False):
                step = exchange.response_piece(size_of(message), now)
            case "http.response.body":
                step = exchange.response_completed(now, size_of(message))
            case _:
                # Extensions (early hints, pathsend …) go through in their order.
                await self._flush()
                await self.calls.send(message)
                return
        self._kept.append(message)
        await self._do(step)

    async def _misplaced(self, message: Message) -> None:
        """Send a message that does not belong here: the server says so, as always."""
        if self._task is not None and self._delivered is not None:
            await self._delivered.wait()
        await self._flush()
        await self.calls.send(message)

    async def app_failed(self) -> None:
        """The application has raised, and the code that answers for it does not want the body."""
        with contextlib.suppress(Exception):
            # The application's own exception is the one to be seen.
            await self._carry_out(self.exchange.app_failed(time.monotonic()))
            # The code that answers does not read, and what has come since may fill a queue.
            if self.exchange.early and needs_reader(self.exchange, self.server, 0):
                self._task = self._loop.spawn(self._read_on)

    async def app_ended(self, *, failed: bool) -> None:
        """It has returned or raised: complete the drain.

        Args:
            failed: Whether it raised; its exception is then the one to be seen.
        """
        step = self.exchange.app_ended(time.monotonic())
        if self._delivered is not None:
            await self._drained(self._delivered)
        if isinstance(step, Done) and not self.exchange.early:
            try:
                await self._flush()
            except Exception:
                if not failed:
                    raise
        if self._error is not None and not failed:
            raise self._error

    async def _drained(self, delivered: anyio.Event) -> None:
        self._received.ring()
        try:
            await delivered.wait()
        except BaseException:
            # Cancelled: the server is stopping, or somebody's time is up.
            self.exchange.abandoned(time.monotonic())
            if self._scope is not None:
                self._scope.cancel()
            with anyio.move_on_after(SECONDS_TO_END, shield=True):
                await delivered.wait()
            raise

    # The steps.

    async def _do(self, step: Step) -> None:
        """Do at once what needs no waiting for the client; leave the rest to a task."""
        match step:
            case Keep() if self._turns == 0:
                self._turns = TURNS
                self._loop.next_turn(self._turn)
            case Read() if self._task is None:
                self._start_task(self._drain)
            case Read():
                self._received.ring()
            case _:
                await self._carry_out(step)

    def _turn(self) -> None:
        if self.exchange.state is not State.KEPT:
            self._turns = 0
            if self._is_left_behind():
                # Another task of the application has received the message that ended the wait. The
                # task that responds may send nothing more for a long time.
                self._start_task(self._flush_first)
            return
        self._turns -= 1
        if self._turns:
            self._loop.next_turn(self._turn)
        else:
            self.exchange.turn_over(time.monotonic())
            self._start_task(self._flush_first)

    def _is_left_behind(self) -> bool:
        """Whether something is kept back that may go out, and nobody is about to send it."""
        is_free = self._task is None and not self._is_writing
        return is_free and bool(self._kept) and self.exchange.state is State.STREAMING

    @property
    def _loop(self) -> Runtime:
        if self._runtime is None:
            self._runtime = current_runtime()
        return self._runtime

    def _start_task(self, job: Callable[[], Awaitable[None]]) -> None:
        self._delivered = delivered = anyio.Event()

        async def run() -> None:
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - raised where the application can see it
                if not self.exchange.is_moot(error):
                    self._error = error
                # Its place must not be lost with it.
                self.exchange.abandoned(time.monotonic())
            finally:
                delivered.set()
                self._task = None

        self._task = self._loop.spawn(run)

    async def _flush_first(self) -> None:
        """Send what is kept back; the application may complete its response meanwhile."""
        await self._flush()
        if self.exchange.early and self.exchange.state in (State.DRAINING, State.DONE):
            await self._drain()

    async def _flush_apart(self) -> None:
        """Send what is kept back in a task of its own: the caller may be cancelled meanwhile."""
        if self._task is None and self._kept:
            self._start_task(self._flush_first)
        if self._task is not None and self._delivered is not None:
            await self._delivered.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        """Raise, where the application sees it, what a task of ours has raised while it sent."""
        error, self._error = self._error, None
        if error is not None:
            raise error

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
        while isinstance(step, Read):
            step = await self._discard(step.at_most_seconds)
        match step:
            case Respond():
                with self._undisturbed():
                    await self._respond(step)
                self.exchange.responded(time.monotonic())
            case Done(in_one_piece):
                with self._undisturbed():
                    await self._flush(in_one_piece=in_one_piece)
            case Forward():
                await self._flush()
            case Keep():
                pass

    def _undisturbed(self) -> contextlib.AbstractContextManager[object]:
        """Ending a drain ends its read only: otherwise a message on its way out would be lost."""
        if self._scope is None:
            return contextlib.nullcontext()
        return anyio.CancelScope(shield=True)

    async def _discard(self, seconds: float) -> Step:
        exchange = self.exchange
        if self._is_app_receiving():
            # The server's receive() is not for two at a time: what the application's call
            # brings is looked at when it returns.
            await self._received.wait(seconds)
            return exchange.nothing_came(time.monotonic())
        message: Message | None = None
        try:
            with anyio.move_on_after(turn_of(seconds)):
                message = await self.calls.receive()
        except Exception as error:  # noqa: BLE001 - the core knows what it means
            return exchange.reading_failed(error, time.monotonic())
        if self._stopping.has_begun:
            return exchange.abandoned(time.monotonic())
        if message is None:
            return exchange.nothing_came(time.monotonic())
        return self._tell(message)

    def _tell(self, message: Message) -> Step:
        exchange, now = self.exchange, time.monotonic()
        if message["type"] == "http.disconnect":
            return exchange.peer_gone(Mechanism.UNKNOWN, now)
        step = exchange.body_received(size_of(message), not message.get("more_body", False), now)
        return exchange.counted(taken_from(self._sock), now) if exchange.frames_unseen else step

    async def _respond(self, step: Respond) -> None:
        number = descriptor_of(self._sock) if step.linger else None
        taken: Taken | None = None
        if number is not None:
            # Before the server may close it: from now on the lingerer has it. Without a number the
            # connection was lost meanwhile, and sending reports it.
            taken = hand_over(self.exchange, self._setup, number, time.monotonic(), notified=True)
        if step.close:
            self.calls.close()
        try:
            size = sum(map(size_of, self._kept))
            if needs_reader(self.exchange, self.server, size):
                await self._flush_reading(step)
            else:
                await self._flush(close=step.close, in_one_piece=step.in_one_piece)
        except Exception as error:
            if not is_behind_response(self.exchange, error, all_sent=not self._kept):
                raise
        finally:
            if taken is not None:
                look_soon(taken, self._loop.next_turn)

    async def _flush_reading(self, step: Respond) -> None:
        """Send what is kept back; the server may wait until somebody reads."""
        reader = LateReader(self._loop, self._read_on, LOOKS_BEHIND)
        try:
            await self._flush(close=step.close, in_one_piece=step.in_one_piece)
        finally:
            reader.end()

    async def _read_on(self) -> None:
        kind: Any = None
        # An error of the server's receive() is no reason to stop sending.
        with contextlib.suppress(Exception):
            while kind != "http.disconnect":
                if self._is_app_receiving():
                    await self._received.wait()
                else:
                    kind = (await self.calls.receive())["type"]

    async def _flush(self, *, close: bool = False, in_one_piece: bool = False) -> None:
        """Send what is kept back.

        Args:
            close: Whether the head is to say that the connection will be closed.
            in_one_piece: Whether the body must be one message.
        """
        self._raise_error()
        while self._is_writing:
            await self._written.wait()
        self._is_writing = True
        try:
            await self._write_kept(close=close, in_one_piece=in_one_piece)
        finally:
            self._is_writing = False
            self._written.ring()
        if self.exchange.handed_over:
            # At once: the application may go on for a long time after its response.
            self.calls.stop_reading()

    async def _write_kept(self, *, close: bool, in_one_piece: bool) -> None:
        kept = self._kept
        if kept and kept[0]["type"] == "http.response.start":
            if self.exchange.is_kept_whole:
                kept[0] = with_length(kept[0], kept[1:])
            if close:
                kept[0] = with_close(kept[0])
        if in_one_piece:
            self._join()
        while kept:
            await self.calls.send(kept.pop(0))

    def _join(self) -> None:
        pieces = [each for each in self._kept if each["type"] == "http.response.body"]
        if len(pieces) > 1:
            body = b"".join(each.get("body", b"") for each in pieces)
            self._kept[-len(pieces) :] = [{"type": "http.response.body", "body": body}]
