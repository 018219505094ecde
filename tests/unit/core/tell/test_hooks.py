"""The hooks that outlets have: each listener once, until it is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cleanclose.core import (
    Counted,
    Verdict,
    Witness,
    count_outlet_drop,
    count_outlet_error,
    count_quieted_record,
    current,
    on_count,
    on_departure,
    on_event,
    snapshot,
)
from cleanclose.core.blame.watch import CURRENT, Watch
from cleanclose.core.counters import Counters
from cleanclose.core.tell.reporter import Reporter
from tests.harness.made import departed


class Watched(Watch):
    @property
    def status(self) -> int | None:
        return None


def leave() -> None:
    Watched(0.0).peer_gone(Witness.SOCKET, 1.0)


def report() -> None:
    Reporter([], counters=Counters()).report(departed())


@pytest.mark.parametrize(
    ("hook", "happens"),
    [(on_departure, leave), (on_event, report), (on_count, count_outlet_error)],
    ids=["departure", "event", "count"],
)
def test_a_listener_is_called_once_each_until_it_is_taken_away(
    hook: Callable[..., Callable[[], None]], happens: Callable[[], None]
) -> None:
    heard: list[tuple[Any, ...]] = []

    def listener(*given: Any) -> None:
        heard.append(given)

    stop = hook(listener)
    again = hook(listener)
    try:
        happens()
        happens()
    finally:
        stop()
    happens()
    assert len(heard) == 2
    again()
    stop()


def test_at_a_departure_the_exchange_is_the_current_one() -> None:
    seen: list[Verdict | None] = []

    def listener() -> None:
        watch = current()
        seen.append(None if watch is None else watch.departure)

    watch = Watched(0.0)
    entered = CURRENT.set(watch)
    stop = on_departure(listener)
    try:
        watch.peer_gone(Witness.SOCKET, 1.0)
    finally:
        stop()
        CURRENT.reset(entered)
    assert seen == [watch.departure]
    assert watch.departure is not None


def test_what_cannot_be_called_is_no_listener() -> None:
    wrong: Any = 1
    with pytest.raises(TypeError, match="callable"):
        on_event(wrong)


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (count_outlet_error, "cleanclose_outlet_errors_total"),
        (count_outlet_drop, "cleanclose_outlet_dropped_events_total"),
        (count_quieted_record, "cleanclose_quieted_records_total"),
    ],
)
def test_what_an_outlet_counts_is_counted_and_heard_of(
    count: Callable[[], None], name: str
) -> None:
    heard: list[Counted] = []
    before = snapshot()[name]
    stop = on_count(heard.append)
    try:
        count()
    finally:
        stop()
    assert snapshot()[name] == before + 1
    assert [counted.full_name for counted in heard] == [name]
