"""What is the client's of a word that says it has left, and what it must not hide."""

from __future__ import annotations

import asyncio

import pytest

from cleanclose.core import (
    ClientDeparted,
    ClientLeft,
    Facts,
    Mechanism,
    Side,
    Watch,
    Witness,
    raise_if_gone,
)
from cleanclose.core.blame.watch import CURRENT
from tests.harness.made import facts


class Made(Watch):
    """A watch of a request."""

    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return facts(method="GET")


def gone() -> Made:
    watch = Made(0.0)
    watch.write_stops()
    watch.peer_gone(Witness.RECEIVE, 1.0)
    return watch


def raised(word: BaseException, cause: BaseException | None, context: BaseException | None) -> None:
    if cause is not None:
        cause.__context__ = context
        word.__cause__ = cause


def test_without_a_witness_it_is_nobodys() -> None:
    assert Made(0.0).judge(ClientLeft()).side is Side.UNKNOWN


def test_with_a_witness_it_is_the_clients() -> None:
    assert gone().judge(ClientLeft()).side is Side.CLIENT


def test_a_cancellation_stands_for_nothing() -> None:
    word = ClientLeft()
    raised(word, asyncio.CancelledError(), None)
    assert gone().judge(word).side is Side.CLIENT


@pytest.mark.parametrize(
    "handled", [ConnectionResetError(104, "reset"), TimeoutError(), KeyError()]
)
def test_it_does_not_hide_what_was_being_handled(handled: Exception) -> None:
    word = ClientLeft()
    raised(word, asyncio.CancelledError(), handled)
    assert gone().judge(word).side is not Side.CLIENT


def test_it_does_not_hide_what_it_is_raised_from() -> None:
    word = ClientLeft()
    raised(word, ValueError("the application's own"), None)
    assert gone().judge(word).side is not Side.CLIENT


def test_raise_if_gone() -> None:
    raise_if_gone()
    watch = Made(0.0)
    token = CURRENT.set(watch)
    try:
        raise_if_gone()
        watch.peer_gone(Witness.SOCKET, 1.0, mechanism=Mechanism.RESET)
        with pytest.raises(ClientLeft):
            raise_if_gone()
    finally:
        CURRENT.reset(token)
    (event,) = watch.app_ended(2.0, ClientLeft()).events
    assert isinstance(event, ClientDeparted)
    assert event.stopped is True
    assert event.overdue is None


def test_not_while_the_process_stops() -> None:
    watch = Made(0.0)
    stops = watch.write_stops()
    watch.stopping = True
    watch.peer_gone(Witness.SERVER, 1.0)
    assert not stops.gone
    token = CURRENT.set(watch)
    try:
        raise_if_gone()
    finally:
        CURRENT.reset(token)


def test_the_book() -> None:
    heard: list[str] = []
    watch = Made(0.0)
    stops = watch.write_stops()

    def first() -> None:
        heard.append("first")

    stops.ask(first)
    stops.ask(lambda: heard.append("second"))
    stops.forget(first)
    watch.peer_gone(Witness.RECEIVE, 1.0)
    watch.peer_gone(Witness.SEND, 2.0)
    assert heard == ["second"]
    # Who asks behind the departure hears of it at once.
    stops.ask(first)
    assert heard == ["second", "first"]


def test_the_last_block_is_told_of() -> None:
    ends: list[bool] = []
    stops = Made(0.0).write_stops()
    stops.on_idle = lambda: ends.append(stops.is_busy)
    stops.begun()
    stops.begun()
    stops.over()
    assert ends == []
    stops.over()
    assert ends == [False]


def test_a_book_that_is_begun_late_knows() -> None:
    watch = Made(0.0)
    watch.peer_gone(Witness.RECEIVE, 1.0)
    assert watch.write_stops().gone
