"""What the callables take for a sign of the peer, and what they must not.

Real servers are in ``tests/promises/blame``. Here the test is the server, in states that
a real one is in
for a moment only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import (
    ClientDeparted,
    Event,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UpstreamReset,
    client_gone,
)

Message = Any
App = Callable[[Any, Any, Any], Awaitable[None]]

SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "headers": [],
    "client": ("192.0.2.1", 1),
}
START: Final[dict[str, Any]] = {"type": "http.response.start", "status": 200, "headers": []}
DISCONNECT: Final = {"type": "http.disconnect"}


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Uvicorn:
    """What uvicorn has behind the callables, as far as it is looked at."""

    def __init__(self) -> None:
        self.disconnected = False
        self.sent: list[Message] = []
        self.raises: Exception | None = None
        self.while_sending: Callable[[], None] | None = None

    async def receive(self) -> Message:
        return DISCONNECT

    async def send(self, message: Message) -> None:
        if self.while_sending is not None:
            self.while_sending()
        if self.raises is not None:
            raise self.raises
        self.sent.append(message)

    def leave(self) -> None:
        self.disconnected = True

    more_body = False

    def arrives(self) -> None:
        """All of the body is there, and nobody has read it."""
        self.more_body = False


class Gunicorn(Uvicorn):
    """The same for gunicorn's own worker, whose sign is also true behind the response."""

    class Protocol:
        _closed = False

    def __init__(self) -> None:
        super().__init__()
        self.protocol = self.Protocol()

    async def receive(self) -> Message:
        return DISCONNECT

    _complete = True

    def leave(self) -> None:
        self.protocol._closed = True  # pyright: ignore[reportPrivateUsage]


Uvicorn.receive.__module__ = Uvicorn.send.__module__ = "uvicorn.protocols.http.h11_impl"
Gunicorn.receive.__module__ = "gunicorn.asgi.protocol"


class Queued:
    """hypercorn and daphne hand on a queue's own get."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()
        self.receive = self.queue.get
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def arrives(self) -> None:
        self.queue.put_nowait({"type": "http.request", "body": b"{}", "more_body": False})

    def leave(self) -> None:
        self.queue.put_nowait(DISCONNECT)


Server = Uvicorn | Queued


def serve(app: App, server: Server, scope: Any = SCOPE) -> tuple[list[Event], Exception | None]:
    """Let an application answer one request; its events, and what it raised at the server."""
    events: list[Event] = []
    wrapped = CleanCloseMiddleware(app, outlets=[events.append], quiet_logs=False)
    try:
        asyncio.run(wrapped(dict(scope), server.receive, server.send))
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        return events, error
    return events, None


@pytest.mark.parametrize("kind", [Uvicorn, Gunicorn, Queued])
def test_who_leaves_behind_a_complete_response_has_not_departed(kind: type[Server]) -> None:
    server = kind()
    asked: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"a", more=True))
        await send(piece(b"b", more=False))
        # uvicorn's own sign is for the others only.
        if type(server) is not Uvicorn:
            server.leave()
        asked.append(client_gone())
        raise ValueError("in the background")

    events, error = serve(app, server)
    assert (events, asked) == ([], [False])
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("kind", [Uvicorn, Gunicorn])
@pytest.mark.parametrize("streamed", [False, True])
def test_who_leaves_while_the_server_waits_to_send_the_end_has_departed(
    kind: type[Uvicorn], *, streamed: bool
) -> None:
    server = kind()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if streamed:
            await send(piece(b"a", more=True))
        server.while_sending = server.leave
        await send(piece(b"b", more=False))

    events, error = serve(app, server)
    assert error is None
    if kind is Uvicorn and not streamed:
        # uvicorn takes a single piece at once, whatever its size.
        assert events == []
    else:
        (event,) = events
        assert isinstance(event, ClientDeparted)


def test_what_is_in_a_queue_is_seen_and_stays_there() -> None:
    server = Queued()
    heard: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not client_gone()
        server.queue.put_nowait({"type": "http.request", "body": b"late", "more_body": False})
        assert not client_gone()
        server.leave()
        assert client_gone()
        assert await asyncio.to_thread(client_gone)
        heard.extend([await receive(), await receive()])

    events, error = serve(app, server)
    assert error is None
    assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]
    assert heard[0]["body"] == b"late"
    assert len(events) == 1


def test_a_listener_gets_its_message_although_somebody_asks() -> None:
    server = Queued()
    heard: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            heard.append(await receive())

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        server.leave()
        assert client_gone()
        await asyncio.wait_for(listener, 1)

    serve(app, server)
    assert heard == [DISCONNECT]


def test_a_large_last_piece_is_the_same_for_the_client() -> None:
    server = Queued()
    large = b"x" * 100_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(large, more=False))

    serve(app, server)
    _, *bodies = server.sent
    assert b"".join(message["body"] for message in bodies) == large
    assert [message.get("more_body", False) for message in bodies] == [True, False]


def test_an_error_of_the_servers_own_send_is_the_clients() -> None:
    server = Uvicorn()
    server.raises = ConnectionResetError(104, "reset")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    events, error = serve(app, server)
    (event,) = events
    assert isinstance(event, ClientDeparted)
    assert (event.verdict.side, error) == (Side.CLIENT, None)


def test_what_uvloop_raises_for_a_lost_connection_is_the_clients() -> None:
    server = Uvicorn()
    server.raises = RuntimeError("unable to perform operation on <T>; the handler is closed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    events, error = serve(app, server)
    assert [type(event) for event in events] == [ClientDeparted]
    assert error is None


def test_any_other_error_of_the_servers_own_send_is_not() -> None:
    server = Uvicorn()
    server.raises = RuntimeError("Unexpected ASGI message")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    events, error = serve(app, server)
    assert events == []
    assert error is server.raises


def test_an_upstream_of_a_middleware_around_us_is_not_the_client() -> None:
    class Around:
        """It keeps something in a store of its own whenever something is sent."""

        def __init__(self, server: Server) -> None:
            self._server = server

        async def receive(self) -> Message:
            return await self._server.receive()

        async def send(self, message: Message) -> None:
            raise ConnectionResetError(104, "the store is away")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    events, error = serve(app, Around(Uvicorn()))  # type: ignore[arg-type]
    (event,) = events
    assert isinstance(event, UpstreamReset)
    assert isinstance(error, ConnectionResetError)


def test_inside_of_a_middleware_that_wants_a_response_the_error_goes_on() -> None:
    server = Uvicorn()

    async def wrapped_receive() -> Message:
        return DISCONNECT

    wrapped_receive.__module__ = "starlette.middleware.base"
    server.receive = wrapped_receive  # type: ignore[method-assign]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ClientDisconnect

    events, error = serve(app, server)
    assert [type(event) for event in events] == [ClientDeparted]
    assert isinstance(error, ClientDisconnect)


@pytest.mark.parametrize("kind", [Uvicorn, Gunicorn, Queued])
def test_a_departure_leaves_nothing_to_the_cyclic_collector(kind: type[Server]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        servers[0].leave()
        client_gone()
        if scope["type"] == "http":
            await send(START)
        await receive()
        with contextlib.suppress(ConnectionError):
            raise ConnectionResetError
        raise ClientDisconnect

    async def serve_once(scope: Any) -> None:
        await wrapped(dict(scope), servers[0].receive, servers[0].send)

    servers: list[Server] = []
    wrapped = CleanCloseMiddleware(app, outlets=[], quiet_logs=False)
    body = {**SCOPE, "method": "POST", "headers": [(b"content-length", b"5")]}
    with asyncio.Runner() as runner:
        for scope in (SCOPE, body, {**SCOPE, "type": "websocket"}):
            for measured in (False, True):
                servers[:] = [kind()]
                gc.collect()
                with without_collector():
                    runner.run(serve_once(scope))
                    servers.clear()
                    left = gc.collect()
                assert not measured or left <= baseline(runner)


def baseline(runner: asyncio.Runner) -> int:
    """What running a coroutine leaves by itself."""

    async def nothing() -> None:
        with contextlib.suppress(ConnectionError):
            raise ConnectionResetError

    gc.collect()
    with without_collector():
        runner.run(nothing())
        return gc.collect()


@contextlib.contextmanager
def without_collector() -> Generator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("waits", [False, True])
def test_the_moment_is_known_to_those_who_waited_for_it(waits: bool) -> None:
    """A receive() that returns at once tells of something that was so before."""
    told: list[Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def receive() -> Message:
        if waits:
            await asyncio.sleep(0.05)
        return DISCONNECT

    async def send(message: Message) -> None:
        raise AssertionError

    asyncio.run(CleanCloseMiddleware(app, outlets=[told.append])(dict(SCOPE), receive, send))
    (event,) = told
    assert isinstance(event, ClientDeparted)
    assert (event.wasted_seconds is not None) is waits


POST: Final = {**SCOPE, "method": "POST", "headers": [(b"content-length", b"2")]}


@pytest.mark.parametrize("has_arrived", [True, False])
@pytest.mark.parametrize("kind", [Uvicorn, Queued])
def test_a_body_that_has_arrived_needs_no_delivery(kind: type[Server], has_arrived: bool) -> None:
    """Its connection can be used again as it is, and there is nothing to tell."""
    server = kind()
    if has_arrived:
        server.arrives()
    elif isinstance(server, Uvicorn):
        server.more_body = True
    answer = [
        {**START, "status": 413, "headers": [(b"content-length", b"2")]},
        piece(b"no", more=False),
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in answer:
            await send(message)

    events, error = serve(app, server, POST)
    assert error is None
    assert [event.name for event in events] == ([] if has_arrived else ["upload_drained"])
    if has_arrived:
        assert server.sent == answer


@pytest.mark.parametrize("kind", [Uvicorn, Gunicorn, Queued])
def test_a_post_whose_body_nobody_has_read_is_undelivered_if_its_client_left(
    kind: type[Server],
) -> None:
    server = kind()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        server.arrives()
        server.leave()
        await send({**START, "status": 201})
        await send(piece(b"made", more=False))

    (event,), error = serve(app, server, POST)
    assert error is None
    assert isinstance(event, ResponseUndelivered)
    assert event.verdict.phase is Phase.HANDLER


@pytest.mark.parametrize("length", [None, b"0"])
def test_a_post_without_a_body_is_with_its_handler(length: bytes | None) -> None:
    server = Uvicorn()
    server.more_body = True
    headers = [] if length is None else [(b"content-length", length)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        server.leave()

    (event,), _ = serve(app, server, {**POST, "headers": headers})
    assert isinstance(event, ClientDeparted)
    assert event.verdict.phase is Phase.HANDLER


@pytest.mark.parametrize("how", ["catches", "polls", "ignores"])
def test_who_hears_of_the_departure_has_accepted_nothing(how: str) -> None:
    server = Uvicorn()
    server.more_body = True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if how == "catches":
            with pytest.raises(ClientDisconnect):
                await request.body()
        elif how == "polls":
            assert await request.is_disconnected()
        else:
            # As a framework does that takes any end for the right one.
            await receive()
        await Response(status_code=204)(scope, receive, send)

    (event,), _ = serve(app, server, POST)
    assert isinstance(event, ClientDeparted | TruncatedUpload)
    assert isinstance(event, TruncatedUpload) == (how == "ignores")
    assert event.verdict.phase is Phase.REQUEST_BODY
