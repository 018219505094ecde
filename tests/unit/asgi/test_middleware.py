"""What the ASGI shim must leave as it is, and what only a server held by the test can show.

Delivery is proven on real servers in ``tests/delivery``. Here the test is the server: it decides
when a message comes, which no real one lets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import inspect
import math
import socket
import sys
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cleanclose.asgi import CleanCloseMiddleware, skip
from cleanclose.asgi._witness import UploadWatch
from cleanclose.core import Cap, Event, Mechanism, Outcome, UploadDrained

Message = Any
START: Message = {
    "type": "http.response.start",
    "status": 413,
    "headers": [(b"content-length", b"2")],
}
BODY = {"type": "http.response.body", "body": b"no"}
END = {"type": "http.response.body", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}


def piece(size: int = 10, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


is_coroutine_function = (
    inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
)
"""What asgiref asks with."""


class Server:
    """The server's end: what the client sends is given, what the app sends is recorded."""

    def __init__(self, *, length: int | None = 100, headers: Any = ()) -> None:
        self.sent: list[Message] = []
        self.ended = anyio.Event()
        self._give, self._take = anyio.create_memory_object_stream[Message](math.inf)
        self.receiving = 0
        own = [] if length is None else [(b"content-length", str(length).encode())]
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/",
            "headers": [(b"host", b"test"), *own, *headers],
            "client": ("192.0.2.1", 1234),
        }

    def client_sends(self, *messages: Message) -> None:
        for message in messages:
            self._give.send_nowait(message)

    async def receive(self) -> Message:
        assert self.receiving == 0, "receive() was called concurrently"
        self.receiving += 1
        try:
            return await self._take.receive()
        finally:
            self.receiving -= 1

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        if self.has_ended():
            self.ended.set()

    async def serve(self, app: Any) -> Any:
        with self._give, self._take:
            return await app(self.scope, self.receive, self.send)

    def has_ended(self) -> bool:
        return any(
            message["type"] == "http.response.body" and not message.get("more_body")
            for message in self.sent
        )

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class SocketServer(Server):
    """The same with a connection in reach, where the lingerer finds uvicorn's."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.client, self.sock = socket.socketpair()
        self.transport = self
        self.disconnected = False
        self.keep_alive = True
        self.calls = 0

    def get_extra_info(self, name: str) -> Any:
        return self.sock if name == "socket" else None

    async def receive(self) -> Message:
        self.calls += 1
        return await super().receive()

    receive.__module__ = "uvicorn.protocols.http.h11_impl"

    async def serve(self, app: Any) -> Any:
        with self.client, self.sock:
            return await super().serve(app)


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await send(dict(START))
    await send(dict(BODY))


def wrap(app: Any, events: list[Event] | None = None, **settings: Any) -> CleanCloseMiddleware:
    return CleanCloseMiddleware(
        app, outlets=[(events if events is not None else []).append], **settings
    )


def only(events: list[Event]) -> UploadDrained:
    assert len(events) == 1
    assert isinstance(events[0], UploadDrained)
    return events[0]


@pytest.mark.anyio
async def test_drain_then_respond() -> None:
    events: list[Event] = []
    server = Server(length=30)
    server.client_sends(piece(), piece(), piece(more=False))
    await server.serve(wrap(refuse, events))
    assert server.sent == [START, BODY]
    event = only(events)
    assert (event.outcome, event.drained, event.status) == (Outcome.DELIVERED, 30, 413)
    assert event.facts.client == "192.0.2.1"


@pytest.mark.anyio
async def test_without_a_connection_in_reach_drain_for_a_while_then_respond() -> None:
    events: list[Event] = []
    server = Server()
    server.client_sends(piece())
    await server.serve(wrap(refuse, events, respond_after=0.05))
    assert server.closes
    assert server.sent[1:] == [BODY]
    event = only(events)
    assert (event.outcome, event.cap, event.status) == (Outcome.CUT, Cap.MAX_SECONDS, 413)
    assert (event.drained, event.expected_in) == (10, 100)


@pytest.mark.anyio
@pytest.mark.parametrize("length", [64 * 1024 * 1024, None])
async def test_respond_at_once_then_linger(length: int | None) -> None:
    events: list[Event] = []
    chunked = () if length is not None else ((b"transfer-encoding", b"chunked"),)
    server = SocketServer(length=length, headers=chunked)
    await server.serve(wrap(refuse, events))
    assert server.closes
    assert not server.keep_alive
    assert server.body == b"no"
    # Both ends are closed. The event comes from the lingerer's thread.
    with anyio.fail_after(30):
        while not events:  # noqa: ASYNC110 - the middleware has no event for it
            await anyio.sleep(0.001)
    event = only(events)
    assert (event.outcome, event.status) == (Outcome.DELIVERED, 413)
    assert (event.mechanism, event.expected_in) == (Mechanism.EOF, length)


@pytest.mark.anyio
async def test_a_small_body_is_drained_first_and_its_connection_is_used_again() -> None:
    events: list[Event] = []
    server = SocketServer(length=30)
    server.client_sends(piece(), piece(), piece(more=False))
    await server.serve(wrap(refuse, events))
    assert server.sent == [START, BODY]
    assert server.keep_alive
    assert (only(events).outcome, only(events).drained) == (Outcome.DELIVERED, 30)


@pytest.mark.anyio
async def test_what_a_proxy_sends_is_drained_while_it_is_due() -> None:
    events: list[Event] = []
    server = SocketServer(length=1_000_000, headers=[(b"via", b"1.1 example")])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await refuse(scope, receive, send)
        for _ in range(9):
            server.client_sends(piece(100_000))
            await anyio.lowlevel.checkpoint()
            assert not server.sent
        server.client_sends(piece(100_000, more=False))

    await server.serve(wrap(app, events))
    assert server.sent == [START, BODY]
    assert (only(events).outcome, only(events).drained) == (Outcome.DELIVERED, 1_000_000)


@pytest.mark.anyio
@pytest.mark.parametrize("length", [10, 1_000_000, None])
async def test_who_waits_for_a_100_is_answered_at_once_and_never_read_from(
    length: int | None,
) -> None:
    server = SocketServer(
        length=length,
        headers=[
            (b"expect", b"100-continue"),
            *([(b"transfer-encoding", b"chunked")] if length is None else []),
        ],
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await refuse(scope, receive, send)
        assert server.sent[1] == BODY

    await server.serve(wrap(app))
    assert server.closes
    assert server.calls == 0


@pytest.mark.parametrize("turns", range(1, 30))
def test_a_complete_response_goes_out_wherever_its_drain_is_cancelled(turns: int) -> None:
    """Also where the server's own send is waiting before it has written anything."""

    async def cancelled() -> None:
        server = Server()
        server.client_sends(piece(), piece(), piece(more=False))
        completed: list[bool] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await refuse(scope, receive, send)
            completed.append(True)

        task = asyncio.ensure_future(server.serve(wrap(app)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not completed or (server.has_ended() and server.body == b"no")

    asyncio.run(cancelled())


@pytest.mark.anyio
async def test_who_leaves_while_its_body_is_drained_troubles_nobody() -> None:
    """A server may raise then from what the middleware sends for the application (ASGI 2.4)."""
    events: list[Event] = []
    server = Server()
    server.client_sends(piece(), DISCONNECT)

    async def send(message: Message) -> None:
        raise OSError("the client has left")

    server.send = send  # type: ignore[method-assign]
    await server.serve(wrap(refuse, events))
    assert only(events).outcome is Outcome.UNKNOWN
    assert only(events).drained == 10


@pytest.mark.anyio
async def test_a_stream_of_http_2_is_drained_and_its_connection_stays() -> None:
    events: list[Event] = []
    server = SocketServer(length=None)
    server.scope["http_version"] = "2"
    server.client_sends(piece())
    await server.serve(wrap(refuse, events, respond_after=0.05))
    assert server.sent == [START, BODY]
    assert server.keep_alive
    assert (only(events).outcome, only(events).cap) == (Outcome.CUT, Cap.MAX_SECONDS)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [413, 204])
async def test_what_is_kept_whole_gets_its_length(status: int) -> None:
    server = Server(length=10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"" if status == 204 else b"no"})
        server.client_sends(piece(more=False))

    await server.serve(wrap(app))
    assert server.sent[0]["headers"] == ([] if status == 204 else [(b"content-length", b"2")])


@pytest.mark.anyio
async def test_what_is_never_completed_gets_no_length_that_makes_it_look_whole() -> None:
    server = Server(length=10)
    half = {"type": "http.response.body", "body": b"half of", "more_body": True}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(half)

    await server.serve(wrap(app))
    assert server.sent == [{"type": "http.response.start", "status": 200, "headers": []}, half]


@pytest.mark.anyio
async def test_the_application_does_not_wait_for_the_delivery() -> None:
    """Its send() returns, and it can do what it likes, while the body is still coming."""
    server = Server()
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await refuse(scope, receive, send)
        order.append("app has sent")
        assert not server.has_ended()
        server.client_sends(piece(100, more=False))
        with anyio.fail_after(5):
            while not server.has_ended():  # noqa: ASYNC110 - the middleware has no event for it
                await anyio.sleep(0.001)
        order.append("app ends")

    await server.serve(wrap(app))
    assert order == ["app has sent", "app ends"]


@pytest.mark.anyio
async def test_receive_is_never_called_twice_at_a_time() -> None:
    """An application task sits in receive(), as Starlette's disconnect listener does."""
    server = Server(length=30)
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                while True:
                    message = await receive()
                    heard.append(message["type"])
                    if message["type"] == "http.disconnect":
                        return

            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await refuse(scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            server.client_sends(piece(), piece(), piece(more=False))

    with anyio.fail_after(5):
        await server.serve(wrap(app))
    assert server.sent == [START, BODY]
    # What its own call brought is the application's; then it hears what servers say.
    assert heard == ["http.request", "http.disconnect"]


@pytest.mark.anyio
async def test_a_listener_that_is_cancelled_leaves_the_reading_to_us() -> None:
    server = Server(length=10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await refuse(scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        server.client_sends(piece(more=False))

    with anyio.fail_after(5):
        await server.serve(wrap(app))
    assert server.sent == [START, BODY]


@pytest.mark.anyio
async def test_cancellation_reaches_the_server_and_the_end_is_sent() -> None:
    events: list[Event] = []
    server = Server()
    with anyio.CancelScope() as scope:

        async def app(*args: Any) -> None:
            await refuse(*args)
            scope.cancel()

        await server.serve(wrap(app, events))
    assert scope.cancelled_caught
    assert server.has_ended()
    assert only(events).cap is Cap.APPLICATION


@pytest.mark.anyio
@pytest.mark.parametrize("last", [piece(more=False), DISCONNECT], ids=["read", "gone"])
async def test_who_asks_after_the_delivery_gets_an_answer(last: Message) -> None:
    """A server whose messages are in a queue says only once that there are no more."""
    server = Server(length=10)
    answers: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await refuse(scope, receive, send)
        server.client_sends(last)
        with anyio.fail_after(5):
            await server.ended.wait()
            answers.append(await receive())

    await server.serve(wrap(app))
    assert answers == [DISCONNECT]


@pytest.mark.anyio
async def test_an_error_behind_a_response_is_raised_when_the_response_is_delivered() -> None:
    server = Server(length=10)

    async def app(*args: Any) -> None:
        await refuse(*args)
        server.client_sends(piece(more=False))
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        await server.serve(wrap(app))
    assert server.sent == [START, BODY]


@pytest.mark.anyio
async def test_an_error_before_a_response_passes_at_once() -> None:
    server = Server()

    async def app(*args: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await server.serve(wrap(app))
    assert server.sent == []


@pytest.mark.anyio
async def test_an_error_of_the_servers_send_is_the_applications() -> None:
    """As without us: the server's complaint about a response ends up in the server's log."""

    class Strict(Server):
        async def send(self, message: Message) -> None:
            raise RuntimeError("Response content longer than Content-Length")

    app = wrap(refuse, max_draining=1, max_lingering=1)
    for _ in range(3):
        strict = Strict(length=10)
        strict.client_sends(piece(more=False))
        with pytest.raises(RuntimeError, match="longer"):
            await strict.serve(app)
    # Nor does it take its place with it.
    server = Server(length=10)
    server.client_sends(piece(more=False))
    await server.serve(app)
    assert not server.closes


@pytest.mark.anyio
async def test_a_head_that_nothing_follows_is_not_kept_for_long() -> None:
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(dict(START))
        with anyio.fail_after(5):
            while not server.sent:  # noqa: ASYNC110 - the middleware has no event for it
                await anyio.sleep(0.001)
        assert not server.closes
        server.client_sends(piece(100, more=False))
        await send(dict(BODY))

    await server.serve(wrap(app, respond_after=0.02))
    assert server.body == b"no"


@pytest.mark.anyio
async def test_a_stream_goes_out_as_it_is_made() -> None:
    server = Server(length=10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            assert server.body.endswith(b"%d" % number)
        server.client_sends(piece(more=False))
        await send(dict(END))

    await server.serve(wrap(app))
    assert server.has_ended()
    assert not server.closes


@pytest.mark.anyio
async def test_an_echo_reads_all_of_its_body() -> None:
    server = Server(length=30)
    server.client_sends(piece(), piece(), piece(more=False))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    events: list[Event] = []
    await server.serve(wrap(app, events))
    assert server.body == b"x" * 30
    assert events == []


@pytest.mark.anyio
async def test_a_response_that_is_followed_by_reading_keeps_its_body() -> None:
    """The whole Content-Length is out, yet the application has not said that it is done."""
    server = Server(length=30)
    server.client_sends(piece(), piece(), piece(more=False))
    got = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal got
        await send(dict(START))
        await send({**BODY, "more_body": True})
        more = True
        while more:
            message = await receive()
            got += len(message["body"])
            more = message["more_body"]
        with anyio.fail_after(5):
            while not server.body:  # noqa: ASYNC110 - the middleware has no event for it
                await anyio.sleep(0.001)
        await send(dict(END))

    await server.serve(wrap(app))
    assert got == 30


@pytest.mark.anyio
async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    """Neither the head that was kept back, nor the message that the server had given."""
    server = Server(length=10)
    heard: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            heard.append(await receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await send(dict(START))
            server.client_sends(piece(more=False))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await send(dict(BODY))

    await server.serve(wrap(app))
    assert heard == [piece(more=False)]
    assert server.sent == [START, BODY]


@pytest.mark.anyio
async def test_a_head_goes_out_though_another_task_receives_the_end_of_the_body() -> None:
    """A framework that streams listens for a departure; its first event may be a minute away."""
    server = Server(length=10)
    server.client_sends(piece(more=False))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            # Its call is under way when the response begins.
            tasks.start_soon(receive)
            await anyio.lowlevel.checkpoint()
            await send({**START, "headers": []})
            with anyio.fail_after(5):
                while not server.sent:  # noqa: ASYNC110 - the middleware has no event for it
                    await anyio.sleep(0.001)
            await send(dict(BODY))

    await server.serve(wrap(app))


@pytest.mark.anyio
async def test_a_head_is_not_lost_with_the_task_that_receives() -> None:
    """A receive() sends what is kept back; whoever cancels it has not cancelled the response."""
    server = Server(length=10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            await send({**START, "headers": []})
            tasks.start_soon(receive)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    await server.serve(wrap(app))
    assert len(server.sent) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("listens", [False, True])
async def test_a_response_that_is_completed_while_its_head_goes_out_is_delivered(
    listens: bool,
) -> None:
    """The middleware sends the head, in a task of its own; the drain must not wait for another."""
    server = Server(length=10)
    reached, go_on = anyio.Event(), anyio.Event()
    send_on = server.send

    async def slow_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reached.set()
            await go_on.wait()
        await send_on(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            if listens:
                tasks.start_soon(receive)
                await anyio.lowlevel.checkpoint()
            await send(dict(START))
            await reached.wait()
            await send(dict(BODY))
            server.client_sends(piece(more=False))
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    middleware = wrap(app)
    server.send = slow_send  # type: ignore[method-assign]
    with anyio.fail_after(5):
        await server.serve(middleware)
    assert server.sent == [START, BODY]
    assert vars(middleware)["_serving"].setup.places.taken == 0


@pytest.mark.anyio
@pytest.mark.parametrize("message", [START, {**BODY, "more_body": True}, BODY])
async def test_a_message_at_the_wrong_place_is_the_servers_to_reject(message: Message) -> None:
    """At once, as without the middleware, though what came before is still kept back."""
    server = Server(length=10)
    server.client_sends(piece(more=False))
    rejected: list[Message] = []
    send_on = server.send

    async def strict_send(message: Message) -> None:
        if server.has_ended() or bool(server.sent) is (message["type"] == "http.response.start"):
            rejected.append(message)
            raise RuntimeError("this cannot come here")
        await send_on(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if message is not START:
            with pytest.raises(RuntimeError):
                await send(dict(message))
        await send(dict(START))
        if message is START:
            with pytest.raises(RuntimeError):
                await send(dict(START))
        await send(dict(BODY))
        with pytest.raises(RuntimeError):
            await send(dict(message))

    server.send = strict_send  # type: ignore[method-assign]
    await server.serve(wrap(app))
    assert server.sent == [START, BODY]
    assert rejected == [message, message]


@pytest.mark.anyio
@pytest.mark.parametrize("reads", [True, False])
async def test_headers_may_be_any_iterable(reads: bool) -> None:
    server = Server(length=10)
    server.client_sends(piece(more=False))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if reads:
            await receive()
        await send({**START, "headers": (pair for pair in START["headers"])})
        await send(dict(BODY))

    await server.serve(wrap(app))
    head, body = server.sent
    assert {**head, "headers": list(head["headers"])} == START
    assert body == BODY


@pytest.mark.anyio
async def test_unknown_messages_keep_their_order() -> None:
    server = Server(length=10)
    server.client_sends(piece(more=False))
    hint: Message = {"type": "http.response.early_hint", "links": []}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(dict(hint))
        await refuse(scope, receive, send)

    await server.serve(wrap(app))
    assert server.sent == [hint, START, BODY]


@pytest.mark.anyio
async def test_trailers_are_left_alone() -> None:
    server = Server(length=10)
    start: Message = {**START, "trailers": True}
    trailers: Message = {"type": "http.response.trailers", "headers": [], "more_trailers": False}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in (start, BODY, trailers):
            await send(message)

    await server.serve(wrap(app))
    assert server.sent == [start, BODY, trailers]


@pytest.mark.anyio
async def test_the_opt_out() -> None:
    events: list[Event] = []
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        skip(scope)
        await refuse(scope, receive, send)

    await server.serve(wrap(app, events))
    assert server.sent == [START, BODY]
    assert events == []


def test_the_opt_out_without_the_middleware() -> None:
    skip({"type": "http"})


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_without_a_head_is_the_servers_to_judge(method: str) -> None:
    server = Server(length=None)
    server.scope["method"] = method

    async def app(scope: Any, receive: Any, send: Any) -> str:
        await send(END)
        return "returned"

    assert await server.serve(wrap(app)) == "returned"
    assert server.sent == [END]


@pytest.mark.anyio
@pytest.mark.parametrize("own", [{"type": "lifespan"}, {}])
async def test_other_scopes_pass_through(own: dict[str, Any]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    server = Server()
    server.scope = dict(own)
    await server.serve(wrap(app))
    assert seen == [own, server.receive, server.send]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "server",
    [
        lambda: Server(length=None),
        lambda: Server(length=0),
        lambda: Server(headers=[(b"upgrade", b"x")]),
    ],
)
async def test_requests_without_a_body_go_straight_to_the_server(
    server: Callable[[], Server],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "cleanclose.exchange" not in scope
        await send({"type": "http.response.start", "status": 204, "headers": []})
        assert [message["type"] for message in end.sent] == ["http.response.start"]
        await send({"type": "http.response.body"})

    end = server()
    await end.serve(wrap(app))
    assert [message["type"] for message in end.sent] == [
        "http.response.start",
        "http.response.body",
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_leaves_nothing_to_the_cyclic_collector(anyio_backend: str) -> None:
    async def one(app: Any) -> None:
        server = Server(length=10)
        server.client_sends(piece(more=False))
        await server.serve(app)

    async def read(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await refuse(scope, receive, send)

    for inner in (refuse, read):
        app = wrap(inner)
        await one(app)
        gc.collect()
        gc.disable()
        try:
            await one(app)
            await anyio.lowlevel.checkpoint()
            assert gc.collect() == 0
        finally:
            gc.enable()


def endpoint(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def test_attributes_of_the_application_stay_in_reach() -> None:
    app = Starlette(routes=[Route("/", endpoint, name="home")])
    wrapped = CleanCloseMiddleware(app)
    assert wrapped.routes is app.routes
    assert wrapped.url_path_for("home") == "/"
    wrapped.state.answer = 42
    assert app.state.answer == 42
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        wrapped.nothing_of_the_kind  # noqa: B018
    assert copy.copy(wrapped).routes is app.routes


@pytest.mark.anyio
async def test_the_three_ways_of_installing_it() -> None:
    routes = [Route("/", endpoint, methods=["GET", "POST"])]
    added = Starlette(routes=routes)
    added.add_middleware(CleanCloseMiddleware, max_bytes=1024)
    apps: list[Any] = [
        CleanCloseMiddleware(Starlette(routes=routes)),
        added,
        Starlette(routes=routes, middleware=[Middleware(CleanCloseMiddleware, max_bytes=1024)]),
    ]
    for app in apps:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/")).text == "ok"
            assert (await client.post("/", content=b"x" * 1000)).text == "ok"


def test_bad_settings_are_refused_where_they_are_given() -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        CleanCloseMiddleware(refuse, max_bytes=-1)


@pytest.mark.anyio
async def test_what_the_application_returns_is_handed_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> str:
        await refuse(scope, receive, send)
        return "a mistake, and the server's to tell of"

    server = Server(length=0)
    assert await server.serve(wrap(app)) == "a mistake, and the server's to tell of"


def readable_once(headers: Any) -> Any:
    """As Falcon's test client has them."""
    return iter([iter(pair) for pair in headers])


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_requests_headers_and_their_pairs_may_be_for_one_reading(method: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((name, value) for name, value in scope["headers"])
        seen.append(list(scope["client"]))
        await send({**START, "headers": readable_once(START["headers"])})
        await send(dict(BODY))

    server = Server(length=10)
    server.client_sends(piece(more=False))
    headers = [*server.scope["headers"], (b"x", b"y")]
    server.scope |= {
        "method": method,
        "headers": readable_once(headers),
        "client": iter(["192.0.2.1", 1234]),
    }
    await server.serve(wrap(app))
    assert seen == [*headers, ["192.0.2.1", 1234]]
    head, body = server.sent
    assert [tuple(pair) for pair in head["headers"]] == START["headers"]
    assert body == BODY


@pytest.mark.anyio
async def test_a_departure_is_told_where_headers_were_for_one_reading() -> None:
    events: list[Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        list(scope["headers"])
        await receive()

    server = Server(length=None)
    server.scope |= {"method": "GET", "headers": readable_once(server.scope["headers"])}
    server.client_sends(dict(DISCONNECT))
    await server.serve(wrap(app, events))
    assert [event.name for event in events] == ["client_departed"]


@pytest.mark.anyio
async def test_send_counts_as_a_coroutine_function() -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(is_coroutine_function(send))
        await refuse(scope, receive, send)

    server = Server(length=0)
    await server.serve(wrap(app))
    assert seen == [True]
    assert is_coroutine_function(UploadWatch.send)
