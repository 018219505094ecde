"""Work of a ``BaseHTTPMiddleware``'s own beside that of the application behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from cleanclose.asgi import CleanCloseMiddleware, stop_work
from cleanclose.core import ClientLeft, Event
from tests.harness.turns import LEFT_OPEN, Server, nothing_is_left

pytestmark = pytest.mark.filterwarnings(LEFT_OPEN)

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
Dispatch = Callable[[Request, RequestResponseEndpoint], Any]


class Work:
    """What happened, and the client that leaves when the work has come to some point."""

    def __init__(self) -> None:
        self.server = Server("handler")
        self.notes: list[str] = []

    async def long(self) -> None:
        """Work that takes long, whose client leaves at once, with clean-up that waits."""
        self.server.leave()
        try:
            await anyio.sleep(60)
            self.notes.append("worked")
        finally:
            await self.clean_up()

    async def clean_up(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.005)
        self.notes.append("cleaned")

    def serve(self, app: Any, dispatch: Dispatch | None = None, *, whole: bool = False) -> Any:
        """Serve the request; the events."""
        events: list[Event] = []

        async def main() -> None:
            inner = app if dispatch is None else BaseHTTPMiddleware(app, dispatch=dispatch)
            wrapped = CleanCloseMiddleware(inner, outlets=[events.append], stop_work=whole)
            async with asyncio.timeout(20):
                await wrapped(self.server.scope, self.server.receive, self.server.send)
            await nothing_is_left(set())

        asyncio.run(main())
        # Not in another test.
        gc.collect()
        return events


def test_a_block_behind_the_response_leaves_the_application_alone() -> None:
    work = Work()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(5):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await send({"type": "http.response.body"})
        work.notes.append("all sent")

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        with pytest.raises(ClientLeft):
            async with stop_work():
                await work.long()
        return response

    work.serve(app, dispatch)
    assert work.notes == ["cleaned", "all sent"]


def test_a_block_around_the_application_stops_it_once() -> None:
    work = Work()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await work.long()

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        async with stop_work():
            return await call_next(request)

    (event,) = work.serve(app, dispatch)
    assert work.notes == ["cleaned"]
    assert event.stopped is True


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_stream_of_the_middlewares_own_around_the_applications(spec_version: str) -> None:
    work = Work()
    work.server.scope["asgi"]["spec_version"] = spec_version

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await work.long()

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response: Any = await call_next(request)

        async def changed() -> AsyncIterator[bytes]:
            async for piece in response.body_iterator:
                yield piece.upper()

        return StreamingResponse(changed())

    (event,) = work.serve(app, dispatch, whole=True)
    assert work.notes == ["cleaned"]
    assert event.stopped is True


def test_a_stream_of_the_middlewares_own() -> None:
    work = Work()

    async def pieces() -> AsyncIterator[bytes]:
        await work.long()
        yield b"never"

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return StreamingResponse(pieces())

    (event,) = work.serve(None, dispatch, whole=True)
    assert work.notes == ["cleaned"]
    assert event.stopped is True


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shielded", [False, True])
def test_starlettes_group_cuts_the_clean_up_of_dispatch_short(shielded: bool, whole: bool) -> None:
    """In a whole request, and bare: whenever the application behind it ends by a cancellation."""
    work = Work()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        if not whole:
            raise asyncio.CancelledError
        await work.long()

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            return await call_next(request)
        finally:
            with anyio.CancelScope(shield=shielded):
                await asyncio.sleep(0.005)
                work.notes.append("dispatch cleaned")

    with contextlib.suppress(RuntimeError):
        work.serve(app, dispatch, whole=whole)
    assert ("dispatch cleaned" in work.notes) is shielded
    assert ("cleaned" in work.notes) is whole


@pytest.mark.parametrize("behind", [False, True])
def test_what_runs_behind_a_whole_response_goes_on(behind: bool) -> None:
    work = Work()

    async def background() -> None:
        work.server.leave()
        await asyncio.sleep(0.1)
        work.notes.append("done")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("whole", background=BackgroundTask(background))(
            scope, receive, send
        )

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    assert work.serve(app, dispatch if behind else None, whole=True) == []
    assert work.notes == ["done"]


def test_the_clean_up_of_a_generator_is_not_cut_short_by_the_block_in_it() -> None:
    work = Work()

    async def pieces() -> AsyncIterator[int]:
        async with stop_work():
            try:
                yield 1
            finally:
                await work.clean_up()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with stop_work():
            made = pieces()
            async for _ in made:
                work.server.leave()
                try:
                    await asyncio.sleep(60)
                finally:
                    await made.aclose()  # type: ignore[attr-defined]

    (event,) = work.serve(app)
    assert work.notes == ["cleaned"]
    assert event.stopped is True


def test_the_clean_up_of_a_time_limit_is_not_cut_short() -> None:
    work = Work()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with stop_work():
            try:
                async with asyncio.timeout(0.01):
                    try:
                        await asyncio.sleep(60)
                    finally:
                        work.server.leave()
                        await work.clean_up()
            except TimeoutError:
                work.notes.append("too late")
            await asyncio.sleep(60)

    (event,) = work.serve(app)
    assert work.notes == ["cleaned", "too late"]
    assert event.stopped is True
