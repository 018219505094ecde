"""By what each kind of ASGI server shows that its peer has left, and what its callables answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cleanclose.core import Witness
from cleanclose.core.blame.calls import Shows
from cleanclose.core.server import UNKNOWN
from cleanclose.servers import SETTLED, Calls, Stopping, _lookup, sign_of

DISCONNECT = {"type": "http.disconnect"}


class Cycle:
    """As uvicorn's."""

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.more_body = True

    async def receive(self) -> Any: ...

    async def send(self, message: Any) -> None: ...


class Protocol:
    _closed = False


class Body:
    """As gunicorn's."""

    def __init__(self) -> None:
        self.protocol = Protocol()

    async def receive(self) -> Any: ...


Cycle.receive.__module__ = Cycle.send.__module__ = "uvicorn.protocols.http.h11_impl"
Body.receive.__module__ = "gunicorn.asgi.protocol"


def test_a_settled_state_is_known_by_the_class_of_its_object() -> None:
    cycle = Cycle()
    sign = sign_of(cycle.receive)
    assert (sign.shows, sign.witness) == (Shows.SETTLED, Witness.SERVER)
    gone, emptied = SETTLED[Cycle]
    assert emptied is not None
    for disconnected in (False, True):
        cycle.disconnected = disconnected
        assert bool(sign.gone(cycle.receive)) is disconnected
        assert bool(gone(cycle)) is disconnected


def test_another_state_means_nothing_behind_the_end() -> None:
    body = Body()
    sign = sign_of(body.receive)
    assert (sign.shows, sign.witness) == (Shows.STATE, Witness.SERVER)
    assert Body not in SETTLED
    assert not sign.gone(body.receive)
    body.protocol._closed = True  # pyright: ignore[reportPrivateUsage]
    assert sign.gone(body.receive)


def test_a_queue_shows_the_message_itself_and_keeps_it() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    sign = sign_of(queue.get)
    assert (sign.shows, sign.witness) == (Shows.MESSAGES, Witness.RECEIVE)
    queue.put_nowait({"type": "http.request"})
    assert sign.gone(queue.get) is None
    queue.put_nowait(DISCONNECT)
    assert sign.gone(queue.get) is DISCONNECT
    assert queue.qsize() == 2


async def somebody_elses() -> Any: ...


class Around:
    async def receive(self) -> Any: ...


@pytest.mark.parametrize("receive", [somebody_elses, Around().receive])
def test_who_is_not_known_shows_nothing(receive: Any) -> None:
    sign = sign_of(receive)
    assert sign.shows is Shows.NOTHING
    assert not sign.gone(receive)
    assert Calls(receive, somebody_elses).server is UNKNOWN


def test_the_two_callables_answer_for_the_server() -> None:
    cycle = Cycle()
    calls = Calls(cycle.receive, cycle.send)
    assert calls.server.name == "uvicorn"
    assert calls.socket is None
    answers = [calls.has_all, calls.is_stopping, calls.wants_answer]
    assert answers == [False, False, False]
    cycle.more_body = False
    assert calls.has_all
    calls.close()
    assert not cycle.keep_alive
    assert calls.is_stopping


def test_a_sign_that_was_there_from_the_start_proves_nothing() -> None:
    cycle = Cycle()
    calls = Calls(cycle.receive, cycle.send)
    stopping = Stopping(calls)
    before = stopping.has_begun
    cycle.keep_alive = False
    assert (before, stopping.has_begun) == (False, True)
    assert not Stopping(calls).has_begun


def test_a_class_for_each_request_leaves_nothing_behind() -> None:
    for _ in range(200):

        class Request:
            async def receive(self) -> Any: ...

            async def send(self, message: Any) -> None: ...

        request = Request()
        assert Calls(request.receive, request.send).server is UNKNOWN
    for memo in ("_BY_FUNCTION", "_QUEUES"):
        assert 0 < len(vars(_lookup)[memo]) <= 64
