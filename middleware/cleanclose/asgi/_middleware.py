"""ASGI in, ASGI out: what happens on the connection is told to the core, and its steps are done."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Unpack

import anyio

from cleanclose.asgi._runtime import Runtime, current_runtime
from cleanclose.asgi._witness import (
    HttpWatch,
    Message,
    Receive,
    Scope,
    Send,
    UploadWatch,
    WebSocketWatch,
)
from cleanclose.core import (
    CHUNKED,
    COMPLETE,
    CURRENT,
    NO_BODY,
    OPEN,
    Done,
    Exchange,
    Forward,
    Hold,
    Keep,
    Mechanism,
    Outlet,
    Places,
    Read,
    Reporter,
    Respond,
    Settings,
    SettingsOptions,
    Step,
    Watch,
    asgi_server,
    body_length,
    is_called_by_server,
    response_length,
    wants_continue,
)
from cleanclose.integrations.stdlib import install_quiet_logs

__all__ = ["CleanCloseMiddleware", "skip"]

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_new_watch: Final = object.__new__
_enter: Final = CURRENT.set
_SCOPE_KEY: Final = "cleanclose.exchange"


class CleanCloseMiddleware:
    """Pure ASGI middleware: early responses arrive, and it is told whose fault a broken one was.

    An early response reaches a client which is still uploading. A client that leaves, on HTTP or
    on a websocket, is one event; what the application raises for it alone ends here. Everything
    else goes on as it was. All attributes of the wrapped application stay reachable.

    It belongs outermost: what stands around it waits with it until the delivery is over, and the
    answers that something around it gives to an application's exception do not pass it.

    Args:
        app: The ASGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        **settings: The fields of `cleanclose.core.Settings`.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        outlets: Sequence[Outlet] | None = None,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        self.app = app
        self._settings = Settings(**settings)
        self._places = Places(
            reading=self._settings.max_draining, inside=self._settings.max_lingering
        )
        self._reporter = Reporter(
            outlets, levels=self._settings.level_table(), surge=self._settings.surge_detector()
        )
        if self._settings.quiet_logs:
            install_quiet_logs(self._settings.level_table(), app=app)

    def __getattr__(self, name: str) -> Any:
        if name == "app":
            # Not constructed yet (copy, pickle): looking it up would ask for it again.
            raise AttributeError(name)
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        now = _clock()
        watch: HttpWatch | WebSocketWatch
        if scope["type"] == "http":
            # Looking through the headers is a good part of what a GET costs, and what a body
            # might mean in one nobody knows (RFC 9110, sections 9.3.1 and 9.3.2).
            if scope["method"] not in ("GET", "HEAD"):
                for name, _ in scope["headers"]:
                    if name == b"content-length" or name == b"transfer-encoding":
                        await self._serve_upload(scope, receive, send, now)
                        return
            watch = _new_watch(HttpWatch)
            watch.started = now
            watch.progress = OPEN
            watch.scope = scope
            watch.server_receive = receive
            watch.send_to = send
        elif scope["type"] == "websocket":
            watch = WebSocketWatch(scope, receive, send, now)
        else:
            await self.app(scope, receive, send)
            return
        if now >= self._reporter.sample_at:
            self._reporter.request_begins(watch)
        _enter(watch)
        try:
            await self.app(scope, watch.receive, watch.send)
        except BaseException as error:
            if not self._ended(watch, error):
                raise
        else:
            if watch.progress != COMPLETE:
                self._ended(watch, None)
            elif watch.is_sample:
                self._reporter.request_over(watch)

    async def _serve_upload(self, scope: Scope, receive: Receive, send: Send, now: float) -> None:
        headers = _headers(scope["headers"])
        upgrade = headers.get(b"upgrade")
        length = body_length(
            method=scope["method"],
            http_version=scope["http_version"],
            content_length=headers.get(b"content-length"),
            transfer_encoding=headers.get(b"transfer-encoding"),
            upgrade=upgrade,
            ends_at_upgrade=bool(upgrade) and asgi_server(receive, send).ends_at_upgrade,
        )
        watch = UploadWatch(
            scope, receive, send, now, length if length not in (NO_BODY, CHUNKED) else None
        )
        if now >= self._reporter.sample_at:
            self._reporter.request_begins(watch)
        _enter(watch)
        connection: _Connection | None = None
        if length != NO_BODY:
            connection = self._connection(watch, scope, receive, send, headers, length, now)
            watch.stand_behind(connection.receive, connection.send)
        try:
            try:
                await self.app(scope, watch.receive, watch.send)
            except BaseException as error:
                if connection is not None:
                    # inspect.currentframe() would have to be kept in a local, which is a cycle.
                    caller = sys._getframe  # pyright: ignore[reportPrivateUsage]
                    if isinstance(error, Exception) and is_called_by_server(
                        caller(2), receive, send
                    ):
                        await connection.clear()
                    await connection.close(failed=True)
                raise
            if connection is not None:
                await connection.close(failed=False)
        except BaseException as error:
            if not self._ended(watch, error, connection):
                raise
        else:
            self._ended(watch, None, connection)
        finally:
            watch.stand_alone()

    def _ended(
        self,
        watch: HttpWatch | WebSocketWatch,
        error: BaseException | None,
        connection: _Connection | None = None,
    ) -> bool:
        """Report what there is to report.

        Returns:
            Whether the error ends here: the peer has left, and that is all there was to it.
        """
        watch.ask()
        now = time.monotonic()
        drained = None if connection is None else connection.exchange.event(now)
        hidden = error is not None and watch.is_hidden(error)
        end = watch.app_ended(now, error, told=drained is not None, restored=hidden)
        self._reporter.report(drained)
        for event in end.events:
            self._reporter.report(event)
        if watch.is_sample:
            self._reporter.request_over(watch)
        return end.quiet and watch.may_end_without_response

    def _connection(
        self,
        watch: UploadWatch,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, str],
        length: int,
        now: float,
    ) -> _Connection:
        connection = _Connection(watch, receive, send)
        connection.exchange = exchange = Exchange(
            self._settings,
            self._places,
            server=asgi_server(receive, send),
            facts=watch.facts(),
            length=length,
            expects_continue=wants_continue(headers.get(b"expect")),
            wake=connection.wake,
            now=now,
        )
        scope[_SCOPE_KEY] = exchange
        return connection


def skip(scope: Scope) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. Without effect where the middleware is not installed.

    Args:
        scope: The request's scope (``request.scope`` in Starlette and FastAPI).
    """
    exchange = scope.get(_SCOPE_KEY)
    if isinstance(exchange, Exchange):
        exchange.leave_alone()


class _Connection:
    """One request's side of the connection: the app's callables, and the delivery behind them.

    The delivery runs in a task of its own, so that the application gets its send() back as fast
    as without us: its background tasks and its teardown do not wait for a slow upload.
    """

    exchange: Exchange

    def __init__(self, watch: Watch, receive: Receive, send: Send) -> None:
        self._watch = watch
        self._server_receive = receive
        self._server_send = send
        self._kept: list[Message] = []
        self._app_receiving = 0
        # From here on: only once there is something to deliver.
        self._runtime: Runtime | None = None
        self._writing: anyio.Lock | None = None
        self._changed: anyio.Event | None = None
        self._delivery: object | None = None
        self._delivered: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._error: Exception | None = None

    # What the application calls.

    async def receive(self) -> Message:
        exchange = self.exchange
        if exchange.early:
            # What the servers themselves say once a response is complete. The delivery may have
            # taken that word from theirs, and some say it only once.
            return {"type": "http.disconnect"}
        # What is kept back goes out by the delivery: an application may cancel its receive(), and
        # neither a message that was taken from the server nor a head may be lost with it.
        exchange.app_read(time.monotonic())
        self._notify()
        self._app_receiving += 1
        try:
            message = await self._server_receive()
        finally:
            self._app_receiving -= 1
            self._notify()
        self._tell(message)
        return message

    async def send(self, message: Message) -> None:
        exchange = self.exchange
        now = time.monotonic()
        step: Step
        match message["type"]:
            case "http.response.start":
                if message.get("trailers", False):
                    # The end is then another message than the last piece of the body.
                    exchange.leave_alone()
                # Any iterable will do, and it may be for one reading only.
                headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
                message = {**message, "headers": headers}
                length = response_length(_headers(headers).get(b"content-length"))
                step = exchange.response_started(message["status"], length, now)
            case "http.response.body":
                size = len(message.get("body", b""))
                if message.get("more_body", False):
                    step = exchange.response_piece(size, now)
                else:
                    step = exchange.response_completed(now, size)
            case _:
                # Extensions (early hints, pathsend …) go through in their order.
                await self._flush(end=True)
                await self._server_send(message)
                return
        self._kept.append(message)
        await self._do(step)

    # Afterwards.

    async def clear(self) -> None:
        """The application has raised, and whoever answers for it does not want the body."""
        exchange = self.exchange
        exchange.app_failed(time.monotonic())
        if self._delivery is not None or not exchange.treated:
            return
        try:
            await self._carry_out()
        except Exception as error:  # noqa: BLE001 - the application's own is the one to be seen
            exchange.reading_failed(error, time.monotonic())
        except BaseException:
            exchange.abandoned(time.monotonic())
            raise

    async def close(self, *, failed: bool) -> None:
        """The application has returned or raised: see the delivery through.

        Args:
            failed: Whether the application raised; its exception is then the one to be seen.
        """
        step = self.exchange.app_ended(time.monotonic())
        if self._delivery is None:
            if isinstance(step, Done):
                try:
                    await self._flush(end=True)
                except Exception:
                    # The application's own exception is the one to be seen.
                    if not failed:
                        raise
        elif self._delivered is not None:
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
        error = self._error
        if error is None:
            return
        self._watch.find_witness(error)
        if not failed:
            raise error

    def wake(self) -> None:
        """The exchange's turn has come. From any thread."""
        if self._runtime is not None:
            self._runtime.call_soon(self._notify)

    # The steps.

    async def _do(self, step: Step) -> None:
        """Do at once what takes no waiting; leave the rest to the delivery."""
        match step:
            case Forward():
                if self._kept:
                    await self._flush(end=True)
            case Respond(close=False) if not self.exchange.treated:
                await self._flush(end=False)
                self.exchange.responded(time.monotonic())
                self._notify()
            case Done(read_on=False) if self._delivery is None:
                await self._flush(end=True)
            case _ if self._delivery is None:
                self._delivered = anyio.Event()
                self._writing = anyio.Lock(fast_acquire=True)
                self._runtime = current_runtime()
                self._delivery = self._runtime.spawn(self._deliver)
            case _:
                self._notify()

    async def _deliver(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                await self._carry_out()
            if self._scope.cancelled_caught:
                await self._carry_out()
        except Exception as error:  # noqa: BLE001 - close() raises it in the server's own task
            self._error = error
            # Its place must not be lost with it.
            self.exchange.abandoned(time.monotonic())
        except BaseException:
            # The loop is being torn down.
            self.exchange.abandoned(time.monotonic())
            raise
        finally:
            if self._delivered is not None:
                self._delivered.set()
            self._delivery = None

    async def _carry_out(self) -> None:
        exchange = self.exchange
        step = exchange.step(time.monotonic())
        while True:
            match step:
                case Keep(seconds) | Hold(seconds):
                    await self._wait(seconds)
                    step = exchange.tick(time.monotonic())
                case Read(seconds):
                    step = await self._discard(seconds)
                case Respond(close, whole):
                    if exchange.reads:
                        # The client may write everything before it reads, and the server may
                        # wait until it does.
                        await self._flush_reading(end=whole, close=close, whole=whole)
                    else:
                        await self._flush(end=whole, close=close, whole=whole)
                    step = exchange.responded(time.monotonic())
                case Forward() if self._kept:
                    await self._flush(end=True)
                    step = exchange.step(time.monotonic())
                case Forward():
                    return
                case Done(_, read_on):
                    if read_on:
                        await self._flush_reading(end=True, always=True)
                    else:
                        await self._flush(end=True)
                    return

    async def _discard(self, seconds: float) -> Step:
        if self._app_receiving:
            # The server's receive() is not for two at a time: what the application's call
            # brings is looked at when it returns.
            await self._wait(seconds)
            return self.exchange.tick(time.monotonic())
        message: Message | None = None
        with anyio.move_on_after(seconds):
            message = await self._server_receive()
        if message is None:
            return self.exchange.tick(time.monotonic())
        return self._tell(message)

    def _tell(self, message: Message) -> Step:
        now = time.monotonic()
        if message["type"] == "http.disconnect":
            return self.exchange.peer_gone(Mechanism.UNKNOWN, now)
        size = len(message.get("body", b""))
        return self.exchange.body_received(size, not message.get("more_body", False), now)

    async def _flush_reading(
        self, *, end: bool, close: bool = False, whole: bool = False, always: bool = False
    ) -> None:
        """Send what is kept back, and read meanwhile: as far as the core has it, or always."""
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_on, always)
            try:
                await self._flush(end=end, close=close, whole=whole)
            except Exception as error:  # noqa: BLE001 - raised below, without the group's wrapping
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _read_on(self, always: bool) -> None:
        message: Message = {"type": "http.request"}
        # What a server's receive() raises is no reason to give up sending: if there is anything
        # left to be read afterwards, it is raised again.
        with contextlib.suppress(Exception):
            while message["type"] != "http.disconnect" and (always or self.exchange.reads):
                if self._app_receiving:
                    await self._wait(math.inf)
                else:
                    message = await self._server_receive()
                    self._tell(message)

    async def _flush(self, *, end: bool, close: bool = False, whole: bool = False) -> None:
        """Send what is kept back: all of it, or all but the exchange's end."""
        if self._writing is None:
            await self._flush_in_order(end=end, close=close)
            return
        # The application and the delivery may both have something to send.
        async with self._writing:
            if whole:
                self._join()
            await self._flush_in_order(end=end, close=close)

    def _join(self) -> None:
        """Make one message of the pieces of a body: nearly always it is one already."""
        pieces = [each for each in self._kept if each["type"] == "http.response.body"]
        if len(pieces) > 1:
            body = b"".join(each.get("body", b"") for each in pieces)
            self._kept[-len(pieces) :] = [{"type": "http.response.body", "body": body}]

    async def _flush_in_order(self, *, end: bool, close: bool) -> None:
        while self._kept:
            message = self._kept[0]
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and not end:
                body = message.get("body", b"")
                if body:
                    self._kept[0] = {"type": "http.response.body", "body": b""}
                    await self._server_send({**message, "more_body": True})
                return
            del self._kept[0]
            if close and message["type"] == "http.response.start":
                message = _with_close(message)
            await self._server_send(message)

    async def _wait(self, seconds: float) -> None:
        self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """The framing headers, each with all of its values."""
    found: dict[bytes, str] = {}
    for name, value in headers:
        # Names come in lower case from servers; not always from applications.
        name = name.lower()
        if name in _FRAMING:
            text = value.decode("latin-1")
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _with_close(head: Message) -> Message:
    headers = [pair for pair in head.get("headers", ()) if pair[0].lower() != b"connection"]
    return {**head, "headers": [*headers, (b"connection", b"close")]}
