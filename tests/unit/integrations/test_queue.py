"""The queue before a slow outlet: nobody waits, and what does not fit is counted."""

from __future__ import annotations

import contextvars
import threading
import weakref
from typing import Any

import pytest

from cleanclose.core import (
    Event,
    UploadDrained,
    reset,
    snapshot,
)
from cleanclose.integrations.queue import QueuedOutlet
from tests.harness.made import drained, upstream
from tests.harness.waiting import until

DROPPED = "cleanclose_outlet_dropped_events_total"
FAILED = "cleanclose_outlet_errors_total"


class Gate:
    """An outlet that lets events in when it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.seen: list[int] = []
        self.entered = False
        self.threads: set[str] = set()

    def __call__(self, event: Event) -> None:
        self.entered = True
        assert self.open.wait(20)
        assert isinstance(event, UploadDrained)
        self.seen.append(event.drained)
        self.threads.add(threading.current_thread().name)


@pytest.fixture(autouse=True)
def counters() -> None:
    reset()


def test_events_arrive_in_order_in_one_thread() -> None:
    gate = Gate()
    gate.open.set()
    outlet = QueuedOutlet(gate)
    for number in range(500):
        outlet(drained(drained=number))
    assert outlet.flush()
    assert gate.seen == list(range(500))
    assert gate.threads == {"cleanclose-outlet"}
    assert outlet.close()


def test_a_thread_that_could_not_be_started_is_started_with_the_next_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gate = Gate()
    gate.open.set()
    outlet = QueuedOutlet(gate)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="start"):
            outlet(drained(drained=1))
    outlet(drained(drained=2))
    assert outlet.flush()
    assert gate.seen == [2]
    assert outlet.close()


def test_an_outlet_that_wants_to_exit_ends_no_more_than_its_event() -> None:
    seen: list[Event] = []

    def outlet(event: Event) -> None:
        seen.append(event)
        raise SystemExit

    queued = QueuedOutlet(outlet)
    for number in range(3):
        queued(drained(drained=number))
        assert queued.flush()
    assert len(seen) == 3
    assert snapshot()[FAILED] == 3
    assert queued.close()


def test_no_thread_before_the_first_event() -> None:
    before = threading.active_count()
    outlet = QueuedOutlet(Gate())
    assert threading.active_count() == before
    assert outlet.flush(0)
    assert outlet.close(0)


def test_what_does_not_fit_is_dropped_and_counted_and_nobody_waits() -> None:
    gate = Gate()
    outlet = QueuedOutlet(gate, size=10)
    outlet(drained())
    # Out of the queue, in the outlet.
    until(lambda: gate.entered)
    for number in range(1, 31):
        outlet(drained(drained=number))
    assert snapshot()[DROPPED] == 20
    assert outlet.flush(0.01) is False
    gate.open.set()
    assert outlet.flush()
    assert gate.seen == list(range(11))
    outlet.close()


def test_after_closing_events_are_counted_as_dropped() -> None:
    gate = Gate()
    outlet = QueuedOutlet(gate)
    outlet(drained(drained=1))
    gate.open.set()
    assert outlet.close()
    outlet(drained(drained=2))
    assert gate.seen == [1]
    assert snapshot()[DROPPED] == 1


def test_one_that_raises_goes_on_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("no")

    outlet = QueuedOutlet(broken)
    for _ in range(3):
        outlet(drained())
    assert outlet.flush()
    assert snapshot()[FAILED] == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    outlet.close()


def test_it_runs_with_the_requests_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    outlet = QueuedOutlet(lambda _: seen.append(variable.get()))
    token = variable.set("request")
    outlet(drained())
    variable.reset(token)
    assert outlet.flush()
    assert seen == ["request"]
    outlet.close()


def test_nothing_of_a_request_is_kept() -> None:
    class Error(Exception):
        pass

    error = Error()
    reference = weakref.ref(error)
    outlet = QueuedOutlet(lambda _: None)
    given = upstream("Error", exception=error)
    outlet(given)
    assert outlet.flush()
    del error, given
    until(lambda: reference() is None)
    outlet.close()


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "10", None])
def test_a_wrong_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        QueuedOutlet(lambda _: None, size=size)


def test_an_outlet_is_called() -> None:
    with pytest.raises(TypeError, match="outlet"):
        QueuedOutlet(None)  # type: ignore[arg-type]
