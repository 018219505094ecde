"""Handing a connection over, as the shims do it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from cleanclose.core import Cap, Event, Facts, Settings, UploadDrained, Watch
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.places import Places
from cleanclose.core.server import UNKNOWN
from cleanclose.core.setup import Setup
from cleanclose.core.tell.reporter import Reporter
from cleanclose.linger import hand_over, look_soon
from tests.harness.waiting import until

LENGTH = 1 << 20


class Upload(Watch):
    """A request whose body has come in part."""

    bytes_in = 1000
    expected_in = LENGTH

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="POST")


def refused(events: list[Event]) -> tuple[Exchange, Setup]:
    """An exchange whose early response is complete."""
    setup = Setup(settings=Settings(), places=Places(1), reporter=Reporter([events.append]))
    now = time.monotonic()
    exchange = setup.begin_delivery(
        Upload(now), now, server=UNKNOWN, connection=Connection(in_reach=True), headers={}
    )
    exchange.response_started(413, 0, now)
    exchange.response_completed(now)
    return exchange, setup


def test_the_lingerer_reports_what_became_of_it() -> None:
    events: list[Event] = []
    exchange, setup = refused(events)
    server, client = socket.socketpair()
    with client:
        with server:
            now = time.monotonic()
            taken = hand_over(exchange, setup, server.fileno(), now, unread=10, reads=True)
            assert taken is not None
            assert exchange.handed_over
            # The lingerer has it, with its event.
            assert exchange.event(now) is None
        taken.let_go()
    until(lambda: len(events) == 1, "no event")
    (event,) = events
    assert isinstance(event, UploadDrained)
    assert event.bytes_in == 1010


@pytest.mark.parametrize("number", [None, -1])
def test_without_a_descriptor_the_exchange_says_so(number: int | None) -> None:
    exchange, setup = refused([])
    now = time.monotonic()
    assert hand_over(exchange, setup, number, now) is None
    event = exchange.event(now)
    assert event is not None
    assert event.cap is Cap.NO_DESCRIPTOR


class Held:
    """A connection that the server lets go in one of the next turns, as `Taken` shows it."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.looks = 0

    def is_held(self) -> bool:
        self.turns -= 1
        return self.turns >= 0

    def look(self) -> None:
        self.looks += 1


@pytest.mark.parametrize(("held", "waits"), [(0, 1), (1, 2), (3, 4), (100, 4)])
def test_the_lingerer_looks_when_the_server_has_let_go_and_at_last_anyway(
    held: int, waits: int
) -> None:
    turns: list[Callable[[], None]] = []
    taken: Any = Held(held)
    look_soon(taken, turns.append, 4)
    done = 0
    while turns:
        turns.pop()()
        done += 1
    assert (done, taken.looks) == (waits, 1)
