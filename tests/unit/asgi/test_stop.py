"""Work that is stopped at every await there is, behind Starlette's middleware, on both loops.

The test is the server here: it decides in which turn of the loop the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cleanclose.asgi import CleanCloseMiddleware, Stoppable, stop_work
from cleanclose.core import ClientDeparted, Event
from cleanclose.core.blame.provenance import leaves
from tests.harness.turns import (
    LEFT_OPEN,
    Passing,
    Server,
    is_older,
    nothing_is_left,
    on_asyncio,
    tasks_now,
)

STEPS: Final = 25
MOST_TURNS: Final = 80
pytestmark = [
    # On trio: Starlette leaves its own unread, as bare.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings(LEFT_OPEN),
]
WHERE: Final = ("handler", "stream", "unread", "upload", "whole", "whole-stream")
BASES: Final = (0, 1)
FORWARDS_IN_A_GROUP: Final = is_older("starlette", 0, 38, 3)
"""Whether a ``BaseHTTPMiddleware`` hands the application's response on in a task group, which
listens for the departure by itself."""
LOST: Final = {
    (where, base)
    for where in WHERE
    for base in BASES
    # A group that ends by cancelling itself takes another cancellation of that moment for its own.
    if (is_older("anyio", 4, 16) and where == "whole-stream")
    or (FORWARDS_IN_A_GROUP and base and where in ("handler", "whole", "whole-stream"))
}
"""Where a server's cancelling is lost in these versions, also with a bare application."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def no_stream_is_left_to_other_tests() -> Iterator[None]:
    yield
    gc.collect()


class Work:
    """Work, what became of it, and the application that does it.

    Args:
        base: How many ``BaseHTTPMiddleware`` stand around it.
        failing: Whether its clean-up raises an error.
    """

    def __init__(self, base: int, *, failing: bool = False) -> None:
        self.notes: list[str] = []
        self.events: list[Event] = []
        self._failing = failing
        routes: dict[str, Callable[[Request], Any]] = {
            "handler": self._handler,
            "stream": self._stream,
            # The response goes through a delivery.
            "unread": self._stream,
            "upload": self._upload,
            "whole": self._whole,
            "whole-stream": self._whole_stream,
        }
        starlette = Starlette(
            routes=[
                Route(f"/{name}", endpoint, methods=["GET", "POST"])
                for name, endpoint in routes.items()
            ],
            middleware=[Middleware(Passing)] * base,
        )
        self.bare = starlette
        self.app = CleanCloseMiddleware(
            starlette,
            outlets=[self.events.append],
            stop_work=Stoppable(paths=["/whole{rest:path}"]),
        )

    async def _work(self, awaited: Callable[[], Awaitable[object]] | None = None) -> None:
        self.notes.append("begun")
        try:
            for _ in range(STEPS):
                await anyio.lowlevel.checkpoint()
            if awaited is not None:
                await awaited()
            self.notes.append("worked")
        finally:
            await self._clean_up()

    async def _clean_up(self) -> None:
        # On trio clean-up that waits has to shield itself.
        with contextlib.nullcontext() if on_asyncio() else anyio.CancelScope(shield=True):
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
        self.notes.append("cleaned")
        if self._failing:
            raise ValueError("told")

    async def _handler(self, request: Request) -> Response:
        async with stop_work():
            await self._work()
        return PlainTextResponse("done")

    async def _upload(self, request: Request) -> Response:
        async with stop_work():
            await self._work(request.body)
        return PlainTextResponse("done")

    async def _stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            async with stop_work():
                self.notes.append("begun")
                try:
                    for _ in range(STEPS):
                        for _ in range(4):
                            await anyio.lowlevel.checkpoint()
                        yield b"piece"
                    self.notes.append("worked")
                finally:
                    await self._clean_up()

        return StreamingResponse(pieces())

    async def _whole(self, request: Request) -> Response:
        await self._work()
        return PlainTextResponse("done")

    async def _whole_stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            # Nothing is handed out meanwhile: what becomes of a generator that nobody reads any
            # more is not the block's to say.
            await self._work()
            yield b"done"

        return StreamingResponse(pieces())


async def served(app: Any, where: str, turns: int) -> list[Exception]:
    """Serve a request whose client leaves after so many turns; what came out of it."""
    server = Server(where)
    raised: list[Exception] = []

    async def call() -> None:
        try:
            await app(server.scope, server.receive, server.send)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        server.leave()
    return raised


@pytest.mark.anyio
@pytest.mark.parametrize("base", [0, 1, 3])
@pytest.mark.parametrize("where", WHERE)
async def test_at_every_await(where: str, base: int) -> None:
    stopped = 0
    before = tasks_now()
    for turns in range(0, MOST_TURNS, 2):
        work = Work(base)
        raised = await served(work.app, where, turns)
        assert raised == [], (turns, raised)
        if "begun" in work.notes and "worked" not in work.notes:
            # It was cut short: its clean-up has run to its end, and that is told, once.
            assert work.notes == ["begun", "cleaned"], turns
            (event,) = work.events
            assert isinstance(event, ClientDeparted)
            assert event.stopped is True, turns
            stopped += 1
        assert len(work.events) <= 1
        await nothing_is_left(before)
    assert stopped >= STEPS // 5


@pytest.mark.anyio
@pytest.mark.parametrize("base", [0, 1, 3])
@pytest.mark.parametrize("where", WHERE)
async def test_an_error_of_the_clean_up_is_raised(where: str, base: int) -> None:
    for turns in range(0, MOST_TURNS, 4):
        work = Work(base, failing=True)
        raised = await served(work.app, where, turns)
        if "cleaned" in work.notes and not is_dropped(where, base):
            assert [type(error) for error in map(innermost, raised)] == [ValueError], turns
        if "worked" in work.notes:
            break


def is_dropped(where: str, base: int) -> bool:
    """Whether Starlette's ``BaseHTTPMiddleware`` raises nothing: where all of it is cancelled."""
    return bool(base) and (
        (where.startswith("whole") and not on_asyncio())
        or (where in ("stream", "unread") and FORWARDS_IN_A_GROUP)
    )


@pytest.mark.skipif(not FORWARDS_IN_A_GROUP, reason="this Starlette raises it")
def test_a_bare_application_drops_it_as_well() -> None:
    async def main() -> None:
        # What nobody reads any more ends when the loop does.
        asyncio.get_running_loop().set_exception_handler(lambda _, __: None)
        for turns in range(MOST_TURNS // 2, MOST_TURNS, 4):
            work = Work(1, failing=True)
            assert await served(work.bare, "stream", turns) == []
            assert work.notes == ["begun"]

    asyncio.run(main())


def innermost(error: BaseException) -> BaseException:
    while held := leaves(error):
        error = held[0]
    return error


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("between", [None, -8, -4, -1, 0, 2])
def test_the_servers_own_cancelling_is_never_swallowed(
    where: str, base: int, between: int | None
) -> None:
    """Cancelled at every await, and the client leaves so many turns later (before, or never)."""
    if (where, base) in LOST:
        pytest.skip("these versions of anyio and Starlette lose it")
    assert swallowed(lambda: Work(base).app, where, between) == []


@pytest.mark.parametrize(("where", "base"), sorted(LOST))
def test_a_bare_application_loses_it_as_well(where: str, base: int) -> None:
    assert swallowed(lambda: Work(base).bare, where, None) != []


def swallowed(make: Callable[[], Any], where: str, between: int | None) -> list[int]:
    """The turns in which a server's cancelling of this application is lost."""

    async def main(turns: int) -> bool | None:
        server = Server(where)
        task = asyncio.ensure_future(make()(server.scope, server.receive, server.send))
        first = turns if between is None or between >= 0 else max(0, turns + between)
        for _ in range(first):
            await asyncio.sleep(0)
        if between is not None and between < 0:
            server.leave()
            for _ in range(-between):
                await asyncio.sleep(0)
        if task.done():
            return None
        task.cancel()
        for _ in range(max(0, between or 0)):
            await asyncio.sleep(0)
        if between is not None and between >= 0:
            server.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await task
            return True
        await nothing_is_left(set())
        return False

    lost: list[int] = []
    for turns in range(1, MOST_TURNS, 2):
        is_lost = asyncio.run(main(turns))
        if is_lost is None:
            break
        if is_lost:
            lost.append(turns)
    return lost


def test_a_clean_up_may_ask_for_a_message() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with stop_work(cleanup_seconds=5):
            try:
                await receive()
                await asyncio.sleep(60)
            finally:
                messages.append(await receive())

    async def main() -> list[Event]:
        events: list[Event] = []
        server = Server("handler")
        asyncio.get_running_loop().call_later(0.01, server.leave)
        await CleanCloseMiddleware(app, outlets=[events.append])(
            server.scope, server.receive, server.send
        )
        return events

    (event,) = asyncio.run(main())
    assert [each["type"] for each in messages] == ["http.disconnect"]
    assert isinstance(event, ClientDeparted)
    assert event.stopped is True
    assert event.overdue is None


@pytest.mark.anyio
async def test_a_request_that_asks_gets_one_task_and_another_one_none() -> None:
    counted: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = tasks_number()
        await anyio.lowlevel.checkpoint()
        counted.append(tasks_number() - before)
        async with stop_work(), stop_work():
            await anyio.lowlevel.checkpoint()
            counted.append(tasks_number() - before)

    server = Server("handler")
    await CleanCloseMiddleware(app, outlets=[])(server.scope, server.receive, server.send)
    assert counted == [0, 1]


def tasks_number() -> int:
    if on_asyncio():
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(6))
async def test_no_piece_of_a_body_is_taken_nor_the_word_of_the_departure(turns: int) -> None:
    give, take = anyio.create_memory_object_stream[Any](20)
    server = Server("upload")
    all_taken = anyio.Event()
    taken: list[bytes] = []
    words: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with stop_work(quiet=True) as block:
            more = True
            while more:
                # Time for whoever listens beside the application.
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                message = await receive()
                taken.append(message["body"])
                more = message["more_body"]
            all_taken.set()
            await anyio.sleep(60)
        assert block.stopped
        words.append((await receive())["type"])

    async def client() -> None:
        for number in range(10):
            await give.send(
                {"type": "http.request", "body": b"%d" % number, "more_body": number < 9}
            )
            await anyio.lowlevel.checkpoint()
        await all_taken.wait()
        await give.send({"type": "http.disconnect"})

    async def receive() -> Any:
        return await take.receive()

    with give, take:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client)
            await CleanCloseMiddleware(app, outlets=[])(server.scope, receive, server.send)
    assert b"".join(taken) == b"0123456789"
    assert words == ["http.disconnect"]
