"""Captured events: of every reporter, for as long as they are captured, and waited for."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from cleanclose.core import ClientDeparted, Event, ResponseUndelivered, UploadDrained
from cleanclose.core.counters import Counters
from cleanclose.core.tell.reporter import LISTENERS, Reporter
from cleanclose.testing import CapturedEvents, capture_events
from tests.harness.made import departed, drained


def reporter(*outlets: CapturedEvents) -> Reporter:
    return Reporter(outlets, counters=Counters())


def test_they_are_those_of_every_reporter_and_the_outlets_get_them_too() -> None:
    own = CapturedEvents()
    one, other = reporter(own), reporter()
    one.report(departed())
    with capture_events() as events:
        one.report(departed())
        other.report(drained())
    other.report(drained())
    assert [event.name for event in events] == ["client_departed", "upload_drained"]
    assert len(own) == 2


def test_nothing_is_left_behind_when_the_block_raises() -> None:
    before = list(LISTENERS)
    with pytest.raises(KeyError), capture_events():
        raise KeyError
    assert before == LISTENERS


def test_blocks_may_stand_in_each_other() -> None:
    with capture_events() as outer:
        with capture_events() as inner:
            reporter().report(departed())
        reporter().report(departed())
    assert (len(outer), len(inner)) == (2, 1)


def test_a_class_stands_for_those_derived_from_it() -> None:
    events = CapturedEvents()
    plain = departed()
    undelivered = ResponseUndelivered(
        **{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    )
    for event in (plain, drained(), undelivered):
        events(event)
    assert events.of(ClientDeparted) == [plain, undelivered]
    assert events.of(ResponseUndelivered) == [undelivered]
    assert events.of(Event) == list(events)


def test_what_another_thread_reports_is_waited_for() -> None:
    events = CapturedEvents()
    begun = threading.Event()

    def report() -> None:
        begun.wait()
        for _ in range(3):
            events(drained())

    thread = threading.Thread(target=report)
    thread.start()
    begun.set()
    assert len(events.wait_for(UploadDrained, 3)) == 3
    thread.join()


def test_the_loop_goes_on_while_a_test_in_it_waits() -> None:
    async def main() -> list[UploadDrained]:
        events = CapturedEvents()
        asyncio.get_running_loop().call_soon(events, drained())
        return await events.arrived(UploadDrained)

    assert len(asyncio.run(main())) == 1


def test_what_has_not_come_is_an_error_that_names_what_has() -> None:
    events = CapturedEvents()
    events(departed())
    with pytest.raises(AssertionError, match=r"0 of 1 UploadDrained .*ClientDeparted"):
        events.wait_for(UploadDrained, timeout=0)
