"""Floods: what is written, what is folded, and that nothing is lost, by a clock of our own."""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanclose.core import (
    ClientDeparted,
    Event,
    Flood,
    Levels,
    Phase,
    ResponseUndelivered,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    reset,
    snapshot,
)
from cleanclose.core.tell.floods import FOLDED, FloodControl
from cleanclose.core.tell.lines import LineOutlet
from tests.harness.made import departed, upstream

FOLDED_COUNTER = "cleanclose_folded_events_total"


class Lines(LineOutlet):
    """Keeps what it would write."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.lines: list[tuple[int, str, dict[str, object]]] = []
        self.threshold = logging.NOTSET
        super().__init__(clock=lambda: self.now, **options)

    def is_on(self, level: int) -> bool:
        return level >= self.threshold

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        self.lines.append((level, name, fields))

    def names(self) -> list[str]:
        return [name for _, name, _ in self.lines]

    def folds(self) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.lines if name == FOLDED]


@pytest.mark.parametrize(
    "cls", [ClientDeparted, ResponseUndelivered, TruncatedUpload, UploadDrained, UpstreamReset]
)
def test_no_measured_value_makes_a_kind_of_its_own(cls: type[Event]) -> None:
    measured = {
        field.name
        for field in dataclasses.fields(cls)
        if str(field.type).partition(" ")[0] in ("int", "float") and field.name != "status"
    }
    assert measured
    for name in measured:
        control = FloodControl(Flood(lines=1))
        common = {"framework": "wsgi", "of": name}
        assert control.admit(cls.name, logging.DEBUG, {**common, name: 1}, 0.0)[0]
        assert not control.admit(cls.name, logging.DEBUG, {**common, name: 2}, 0.0)[0], name


def test_past_the_rate_they_are_one_line_with_a_count() -> None:
    reset()
    outlet = Lines(flood=Flood(lines=3, seconds=10))
    for number in range(10):
        outlet.now = float(number)
        # Whoever it was, and however long it took.
        outlet(departed(client=f"192.0.2.{number}", age_ms=number))
    assert outlet.names() == ["client_departed"] * 3
    assert snapshot()[FOLDED_COUNTER] == 7
    outlet.now = 25.0
    outlet(upstream())
    assert outlet.names()[3:] == [FOLDED, "upstream_reset"]
    level, _, fields = outlet.lines[3]
    assert level == logging.DEBUG
    assert fields == {
        "folded_event": "client_departed",
        "folded": 7,
        "first_seconds_ago": 22.0,
        "last_seconds_ago": 16.0,
        "framework": "asgi",
        "server": "uvicorn",
        "route": "/a",
        "side": "client",
        "phase": "handler",
        "mechanism": "reset",
        "witnesses": "receive",
        "nginx": "499",
        "haproxy": "CD",
        "envoy": "DC",
    }


def test_after_the_time_lines_are_written_again() -> None:
    outlet = Lines(flood=Flood(lines=1, seconds=10))
    for second in range(25):
        outlet.now = float(second)
        outlet(departed())
    assert outlet.names() == ["client_departed", *[FOLDED, "client_departed"] * 2]
    assert [fold["folded"] for fold in outlet.folds()] == [9, 9]


@pytest.mark.parametrize(
    "other",
    [
        departed(Phase.REQUEST_BODY),
        departed(route="/b"),
        departed(route=None),
        upstream(),
    ],
    ids=["phase", "route", "no route", "event"],
)
def test_only_what_is_alike_is_folded(other: Event) -> None:
    outlet = Lines(flood=Flood(lines=1))
    for event in (departed(), departed(), other, other):
        outlet(event)
    assert len(outlet.lines) == 2


def test_the_first_error_of_its_kind_is_always_written() -> None:
    outlet = Lines(flood=Flood(lines=1, kinds=4))
    errors = [f"library.Error{number}" for number in range(50)]
    for error in errors:
        for _ in range(3):
            outlet(upstream(error))
    written = [fields["error"] for _, name, fields in outlet.lines if name == "upstream_reset"]
    assert written == errors


def test_methods_are_a_clients_choice_and_no_kinds() -> None:
    outlet = Lines(flood=Flood(lines=5))
    for number in range(1000):
        outlet(departed(method=("POST", "PUT", "PATCH", f"M{number}")[number % 4]))
    assert len(outlet.lines) == 5
    outlet.flush()
    assert [fold["folded"] for fold in outlet.folds()] == [995]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_all_kinds_of_one_event_have_no_more_lines_than_two_of_them(level: int) -> None:
    outlet = Lines(flood=Flood(lines=5), levels=Levels(rows={"client_departed.midway": level}))
    for number in range(1000):
        outlet(departed(route=f"/{number % 50}"))
    outlet(upstream())
    assert outlet.names() == ["client_departed"] * 10 + ["upstream_reset"]
    outlet.flush()
    folds = outlet.folds()
    assert sum(int(str(fold["folded"])) for fold in folds) == 990
    # Those of the kinds that had lines, and one for all others.
    assert len(folds) <= 11
    assert "route" not in folds[-1]
    assert folds[-1]["server"] == "uvicorn"


def test_after_the_time_all_kinds_have_lines_again() -> None:
    outlet = Lines(flood=Flood(lines=1, seconds=10))
    for second in (0.0, 11.0):
        outlet.now = second
        for number in range(9):
            outlet(departed(route=f"/{number}"))
    assert outlet.names() == [*["client_departed"] * 2, FOLDED, *["client_departed"] * 2]


def test_memory_is_bounded_and_what_makes_room_is_told() -> None:
    outlet = Lines(flood=Flood(lines=1, kinds=8))
    for number in range(100):
        for _ in range(3):
            outlet(upstream(f"library.Error{number}"))
    control: Any = outlet._control  # pyright: ignore[reportPrivateUsage]
    assert len(control._windows) == 8
    outlet.flush()
    assert sum(int(str(fold["folded"])) for fold in outlet.folds()) == 200


def test_none_never_folds() -> None:
    outlet = Lines(flood=None)
    for _ in range(1000):
        outlet(departed())
    assert len(outlet.lines) == 1000


def test_a_level_that_is_off_is_not_counted_as_folded() -> None:
    reset()
    outlet = Lines(flood=Flood(lines=1))
    outlet.threshold = logging.INFO
    for _ in range(5):
        outlet(departed())
    assert outlet.lines == []
    assert snapshot()[FOLDED_COUNTER] == 0


def test_an_event_that_is_not_shown_still_brings_out_what_is_due() -> None:
    outlet = Lines(flood=Flood(lines=1, seconds=10))
    for _ in range(5):
        outlet(upstream())
    outlet.threshold = logging.INFO
    outlet.now = 11.0
    outlet(departed())
    assert outlet.names() == ["upstream_reset", FOLDED]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=200),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_every_event_is_a_line_or_in_a_count(
    events: list[tuple[int, float]], lines: int, kinds: int
) -> None:
    control = FloodControl(Flood(lines=lines, seconds=10, kinds=kinds))
    now, written, folded = 0.0, 0, 0
    for kind, pause in events:
        now += pause
        admitted, folds = control.admit("e", 10, {"kind": kind}, now)
        written += admitted
        folded += sum(fold.count for fold in folds)
        assert all(fold.first <= fold.last <= now for fold in folds)
    assert written + folded + sum(fold.count for fold in control.rest()) == len(events)
    assert control.rest() == []


def test_threads_lose_nothing() -> None:
    control = FloodControl(Flood(lines=5))
    written: list[int] = []

    def work() -> None:
        written.append(sum(control.admit("e", 10, {"a": 1}, 0.0)[0] for _ in range(500)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written) == 5
    assert [fold.count for fold in control.rest()] == [8 * 500 - 5]


def test_what_cannot_be_compared_is_written() -> None:
    control = FloodControl(Flood(lines=1))
    assert [control.admit("e", 10, {"figures": [1]}, 0.0)[0] for _ in range(3)] == [True] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"lines": 0},
        {"lines": True},
        {"lines": 1.5},
        {"kinds": 0},
        {"kinds": "many"},
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": "60"},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Flood(**wrong)


def test_a_flood_is_a_flood() -> None:
    with pytest.raises(TypeError, match="flood"):
        Lines(flood=20)
