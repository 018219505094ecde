"""Any conversation of an application with an ASGI server: the middleware may change none of it.

The application and the server are scripts, played once bare and once wrapped. What the application
receives, what goes out and what is raised must be the same; and nothing may be left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from hypothesis import strategies as st

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import ClientDeparted, Event, UploadDrained
from cleanclose.core.deliver.patience import TURNS
from tests.fuzz.comparing import compare

__all__ = ["CONVERSATIONS", "Conversation", "check"]

Message = dict[str, Any]

_SETTINGS: Final[Mapping[str, Any]] = {
    "max_seconds": 0.02,
    "idle_seconds": 0.02,
    "hold_seconds": 0.0,
    "quiet_logs": False,
    "surge": False,
}
_PATIENCE: Final = 20.0
"""Seconds for a conversation in which nothing is waited for that never comes."""


class BoomError(Exception):
    """The application's own."""


class MisuseError(Exception):
    """The server's, for a message at the wrong place."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One exchange, as it is to go."""

    pieces: tuple[int, ...]
    ending: Literal["end", "gone", "silence"]
    """What comes behind the pieces."""
    actions: tuple[tuple[str, int], ...]
    """What the application does, one after the other."""
    declared: bool
    """Whether the body has a length."""
    response_length: bool
    """Whether the response says its own."""
    status: int
    expects: bool
    proxied: bool
    http_version: str
    raises_when_gone: bool
    """Whether the server's ``send`` raises when the client has left (ASGI 2.4)."""
    cancel_at: int | None
    """After how many turns of the loop the request is cancelled."""
    cancels: int
    """How many times, once a turn: anyio's scopes go on until the request has ended."""
    misuses: bool
    """Whether the application also sends what may not be sent at that place."""
    catches: bool
    """Whether it goes on after what the server raises of that."""
    listens: bool
    """Whether another of its tasks receives meanwhile, as frameworks wait for a departure."""


_ACTIONS: Final = st.one_of(
    st.tuples(st.sampled_from(["read", "start", "read", "start"]), st.just(0)),
    # Up to where a response that is kept back goes out.
    st.tuples(st.just("pause"), st.one_of(st.just(1), st.integers(TURNS - 3, TURNS + 5))),
    st.tuples(st.sampled_from(["piece", "end", "end"]), st.sampled_from([0, 1, 10, 70_000])),
    st.tuples(st.sampled_from(["fail", "return"]), st.just(0)),
)

CONVERSATIONS: Final = st.builds(
    Conversation,
    pieces=st.lists(st.sampled_from([0, 1, 100, 70_000]), max_size=4).map(tuple),
    ending=st.sampled_from(["end", "end", "gone", "silence"]),
    actions=st.lists(_ACTIONS, min_size=1, max_size=8).map(tuple),
    declared=st.booleans(),
    response_length=st.booleans(),
    status=st.sampled_from([200, 204, 303, 413]),
    expects=st.booleans(),
    proxied=st.booleans(),
    http_version=st.sampled_from(["1.1", "1.1", "2", "1.0"]),
    raises_when_gone=st.booleans(),
    cancel_at=st.one_of(st.none(), st.integers(0, 25)),
    cancels=st.sampled_from([1, 1, 2, 100]),
    misuses=st.booleans(),
    catches=st.booleans(),
    listens=st.booleans(),
)
"""Any of them."""


@dataclass
class _Played:
    """What came of it."""

    received: list[object] = field(default_factory=list[object])
    sent: list[Message] = field(default_factory=list[Message])
    raised: list[int] = field(default_factory=list[int])
    """Behind how many good messages the server has raised for a bad one."""
    done: list[Message] = field(default_factory=list[Message])
    """What the application has sent, as far as its ``send`` has returned."""
    outcome: object = None

    @property
    def body(self) -> bytes:
        return _body(self.sent)

    @property
    def complete(self) -> bool:
        return any(_is_end(message) for message in self.sent)


def _body(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def _is_end(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


class _Server:
    """The server's end, which lets a script happen."""

    def __init__(self, conversation: Conversation, played: _Played) -> None:
        self.conversation = conversation
        self.played = played
        self.leaves = asyncio.Event()
        self.receiving = False
        self.gone = False
        self.queue: list[Message] = [
            {"type": "http.request", "body": b"x" * size, "more_body": True}
            for size in conversation.pieces
        ]
        if conversation.ending == "end":
            self.queue.append({"type": "http.request", "body": b"", "more_body": False})

    def scope(self) -> dict[str, Any]:
        conversation = self.conversation
        headers = [(b"host", b"test")]
        if conversation.declared:
            size = sum(conversation.pieces) + (conversation.ending != "end")
            headers.append((b"content-length", str(size).encode()))
        elif conversation.http_version == "1.1":
            headers.append((b"transfer-encoding", b"chunked"))
        if conversation.expects:
            headers.append((b"expect", b"100-continue"))
        if conversation.proxied:
            headers.append((b"x-forwarded-for", b"192.0.2.7"))
        return {
            "type": "http",
            "http_version": conversation.http_version,
            "method": "POST",
            "path": "/",
            "headers": headers,
            "client": ("192.0.2.1", 1234),
        }

    async def receive(self) -> Message:
        assert not self.receiving, "receive() was called concurrently"
        self.receiving = True
        try:
            await asyncio.sleep(0)
            if self.played.complete:
                return {"type": "http.disconnect"}
            if self.queue:
                return self.queue.pop(0)
            # Behind the body nothing comes until the client leaves, as with uvicorn.
            if self.conversation.ending != "gone":
                await self.leaves.wait()
            self.gone = True
            return {"type": "http.disconnect"}
        finally:
            self.receiving = False

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if self.gone and self.conversation.raises_when_gone:
            raise OSError("the client has left")
        started = any(each["type"] == "http.response.start" for each in self.played.sent)
        is_start = message["type"] == "http.response.start"
        if self.played.complete or started is is_start:
            # As uvicorn does.
            assert self.conversation.misuses, "the order is wrong"
            raise MisuseError
        self.played.sent.append(dict(message))


def _application(conversation: Conversation, played: _Played) -> Any:
    total = sum(size for action, size in conversation.actions if action in ("piece", "end"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not conversation.listens:
            await act(receive, send)
            return
        listening = asyncio.ensure_future(listen(receive))
        try:
            await act(receive, send)
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def listen(receive: Any) -> None:
        kind = None
        while kind != "http.disconnect":
            kind = (await receive())["type"]

    async def act(receive: Any, send: Any) -> None:
        started = ended = False

        async def say(message: Message) -> None:
            try:
                await send(dict(message))
            except MisuseError:
                played.raised.append(len(played.done))
                if not conversation.catches:
                    raise
            else:
                played.done.append(message)

        for action, size in conversation.actions:
            if action == "read":
                if conversation.listens:
                    continue
                message = await receive()
                size = len(message.get("body", b""))
                played.received.append((message["type"], size, message.get("more_body")))
            elif action == "pause":
                for _ in range(size or 1):
                    await asyncio.sleep(0)
            elif action == "fail":
                raise BoomError
            elif action == "return":
                return
            elif action == "start" and (conversation.misuses or not started):
                started = True
                length = [(b"content-length", str(_until_end(conversation)).encode())]
                headers = length if conversation.response_length else []
                await say(
                    {
                        "type": "http.response.start",
                        "status": conversation.status,
                        "headers": headers,
                    }
                )
            elif action in ("piece", "end") and (conversation.misuses or (started and not ended)):
                ended = action == "end"
                body = b"y" * size
                await say({"type": "http.response.body", "body": body, "more_body": not ended})

    assert total >= 0
    return app


def _until_end(conversation: Conversation) -> int:
    """How long the response is that the script makes."""
    total = 0
    started = False
    for action, size in conversation.actions:
        started = started or action == "start"
        if started and action in ("piece", "end"):
            total += size
        if action in ("fail", "return") or (started and action == "end"):
            break
    return total


async def _play(conversation: Conversation, app: Any, played: _Played) -> None:
    server = _Server(conversation, played)
    task = asyncio.ensure_future(app(server.scope(), server.receive, server.send))
    turns = 0
    while not task.done() and turns < 400:
        cancel_at = conversation.cancel_at
        if cancel_at is not None and cancel_at <= turns < cancel_at + conversation.cancels:
            task.cancel()
        await asyncio.sleep(0)
        turns += 1
    if not task.done():
        await asyncio.wait([task], timeout=3 * _SETTINGS["max_seconds"])
    # Whoever still waits, waits for the client.
    server.leaves.set()
    await asyncio.wait([task], timeout=_PATIENCE)
    assert task.done(), "it hangs"
    try:
        task.result()
        played.outcome = "returned"
    except asyncio.CancelledError:
        played.outcome = "cancelled"
    except (BoomError, MisuseError, OSError, AssertionError) as error:
        if isinstance(error, AssertionError):
            raise
        played.outcome = type(error)


async def _both(conversation: Conversation) -> tuple[_Played, _Played, list[Event]]:
    bare, wrapped = _Played(), _Played()
    events: list[Event] = []
    middleware = CleanCloseMiddleware(
        _application(conversation, wrapped), outlets=[events.append], **_SETTINGS
    )
    await asyncio.gather(
        # Bare, nobody is cancelled: where a cancellation hits is not the same.
        _play(replace(conversation, cancel_at=None), _application(conversation, bare), bare),
        _play(conversation, middleware, wrapped),
    )
    assert vars(middleware)["_serving"].setup.places.taken == 0, "a place was not given back"
    return bare, wrapped, events


async def _all(
    conversations: Sequence[Conversation],
) -> list[tuple[_Played, _Played, list[Event]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_both(each)) for each in conversations]
    for _ in range(3):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, f"tasks are left: {others}"
    return [task.result() for task in tasks]


def check(conversations: Sequence[Conversation], runner: asyncio.Runner) -> None:
    """Play each of them twice, all at once, and compare.

    Args:
        conversations: What is to happen.
        runner: Where.

    Raises:
        AssertionError: The middleware has changed something, or has left something behind.
        ExceptionGroup: The same, and it was seen while they were played.
    """
    compare(conversations, runner.run(_all(conversations)), _check)


def _check(
    conversation: Conversation, bare: _Played, wrapped: _Played, events: Sequence[Event]
) -> None:
    early = [event for event in events if isinstance(event, UploadDrained)]
    assert len(early) <= 1
    departed = [event for event in events if isinstance(event, ClientDeparted)]
    others = len(events) - len(early) - len(departed)
    # A cancellation may hide the application's own error, which is reported as well.
    most = 2 if wrapped.outcome == "cancelled" else 1
    assert max(len(departed), others) <= 1, events
    assert len(departed) + others <= most, events
    if wrapped.outcome == "cancelled":
        _check_cancelled(conversation, bare, wrapped)
        return
    if not (conversation.misuses and conversation.raises_when_gone):
        # Of a bad message such a server says that the client has left, if a drain has found it out.
        assert wrapped.received == bare.received
    if conversation.raises_when_gone and conversation.ending != "end":
        # A drain finds out that the client has left; bare, nobody may have asked. Who listens finds
        # out at a moment of its own.
        assert conversation.listens or conversation.misuses or bare.body.startswith(wrapped.body)
        # And what the server would have said to a head is said to nobody while it is kept back.
        assert conversation.misuses or wrapped.outcome in (bare.outcome, "returned", BoomError)
        return
    if conversation.misuses:
        _check_misuse(bare, wrapped)
        return
    with contextlib.suppress(IndexError):
        assert wrapped.sent[0]["status"] == bare.sent[0]["status"]
        _check_headers(bare, wrapped)
    assert wrapped.body == bare.body
    assert wrapped.complete == bare.complete
    assert bool(wrapped.sent) == bool(bare.sent)
    # A client's departure ends at the middleware.
    assert wrapped.outcome == bare.outcome or (
        bare.outcome is OSError and wrapped.outcome == "returned"
    )


def _check_misuse(bare: _Played, wrapped: _Played) -> None:
    assert wrapped.body == bare.body
    assert wrapped.complete == bare.complete
    assert wrapped.raised == bare.raised
    assert wrapped.outcome == bare.outcome


def _check_cancelled(conversation: Conversation, bare: _Played, wrapped: _Played) -> None:
    assert conversation.cancel_at is not None, "nobody has cancelled it"
    # As below: who listens finds out at a moment of its own that the client has left.
    assert conversation.listens or bare.body.startswith(wrapped.body)
    if any(map(_is_end, wrapped.done)) and not conversation.raises_when_gone:
        # Of one that the application had not completed, the client could not use a part.
        assert wrapped.complete, "a complete response was lost"
        assert wrapped.body == _body(wrapped.done), "a part of the response was lost"


def _check_headers(bare: _Played, wrapped: _Played) -> None:
    more = [pair for pair in wrapped.sent[0]["headers"] if pair not in bare.sent[0]["headers"]]
    for name, value in more:
        own = (b"content-length", str(len(bare.body)).encode())
        assert (name.lower(), value) in ((b"connection", b"close"), own), (name, value)
    assert [pair for pair in bare.sent[0]["headers"] if pair in wrapped.sent[0]["headers"]] == (
        bare.sent[0]["headers"]
    )
