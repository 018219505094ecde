"""Which responses may be early ones, and which of them need a reader."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from cleanclose.core import Facts, Mechanism, Settings, Watch, Witness
from cleanclose.core.deliver.early import (
    fails_early,
    is_behind_response,
    is_unwanted,
    leave_alone,
    leaves_rest,
    may_be_early,
    may_read_ahead,
    needs_reader,
    says_close,
)
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.pieces import SMALL_RESPONSE
from cleanclose.core.deliver.places import Places
from cleanclose.core.server import Continue, Server

PLAIN: Final = Server("plain", Continue.LAZY)
END_WAITS: Final = Server("end waits", Continue.LAZY, end_waits=True)
QUIET: Final = Server("quiet", Continue.LAZY, keeps_quiet=True)


class Upload(Watch):
    def __init__(self, *, complete: bool = False, arrived: bool = False) -> None:
        super().__init__(1.0)
        self.body_complete = complete
        self.body_arrived = arrived
        self.code: int | None = None
        self.leaves = False

    @property
    def status(self) -> int | None:
        return self.code

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="POST")

    def ask(self) -> None:
        if self.leaves:
            self.peer_gone(Witness.SERVER, 2.0, mechanism=Mechanism.RESET)

    def stop(self) -> None:
        self.write_stops().ended(cut=True)


@pytest.mark.parametrize(
    ("complete", "arrived", "stopped"), list(itertools.product([False, True], repeat=3))
)
def test_a_response_may_be_early_while_somebody_uploads(
    complete: bool, arrived: bool, stopped: bool
) -> None:
    watch = Upload(complete=complete, arrived=arrived)
    if stopped:
        watch.stop()
    assert may_be_early(watch) is not (complete or arrived or stopped)
    assert fails_early(watch, ValueError()) is not (complete or arrived or stopped)


def test_who_has_left_within_the_body_gets_a_delivery_too() -> None:
    """Its event says what became of the response."""
    watch = Upload()
    watch.leaves = True
    assert may_be_early(watch)
    assert watch.departure is not None


def test_who_has_left_behind_the_response_does_not() -> None:
    watch = Upload()
    watch.code = 200
    watch.leaves = True
    assert not may_be_early(watch)


def test_an_application_that_fails_behind_its_response_fails_late() -> None:
    watch = Upload()
    watch.code = 200
    assert not fails_early(watch, ValueError())


def exchange(server: Server, *, awaits_continue: bool = False) -> Exchange:
    return Exchange(
        Settings(),
        Places(4),
        server=server,
        connection=Connection(in_reach=True),
        facts=Facts(framework="test", server="test", method="POST"),
        length=10_000_000,
        expectation=Expectation(
            server.sends_continue,
            "100-continue" if awaits_continue else None,
            None,
            has_read=False,
        ),
        started=1.0,
    )


@pytest.mark.parametrize("server", [PLAIN, END_WAITS])
@pytest.mark.parametrize("size", [0, SMALL_RESPONSE, SMALL_RESPONSE + 1])
def test_a_response_that_a_server_may_wait_with_needs_a_reader(server: Server, size: int) -> None:
    needed = server is END_WAITS or size > SMALL_RESPONSE
    assert needs_reader(exchange(server), server, size) is needed
    # Reading would ask for a body, or would never return.
    assert not needs_reader(exchange(server, awaits_continue=True), server, size)
    gone = exchange(server)
    gone.peer_gone(Mechanism.RESET, 2.0)
    assert not needs_reader(gone, server, size)


@pytest.mark.parametrize(("received", "ahead"), [(0, True), (10_000_000 - 1000, False)])
def test_what_came_with_the_head_is_read_unless_a_drain_reads_it(
    received: int, ahead: bool
) -> None:
    early = exchange(PLAIN)
    # Only a small remainder is drained.
    early.body_received(received, False, 1.0)
    early.response_started(413, 2, 1.0)
    early.response_completed(1.0, 2)
    assert may_read_ahead(early) is ahead
    assert leaves_rest(early, failed=False)


def test_a_body_that_is_complete_leaves_nothing_and_one_that_failed_does() -> None:
    late = exchange(PLAIN)
    late.body_received(10_000_000, True, 1.0)
    late.response_started(413, 2, 1.0)
    late.response_completed(1.0, 2)
    assert not leaves_rest(late, failed=True)
    left_alone = exchange(PLAIN)
    left_alone.leave_alone()
    left_alone.response_started(400, 2, 1.0)
    left_alone.response_completed(1.0, 2)
    assert not leaves_rest(left_alone, failed=False)
    assert leaves_rest(left_alone, failed=True)


def test_the_opt_out_is_heard_before_the_response_and_not_behind_its_head() -> None:
    watch = Upload()
    leave_alone(watch)
    assert watch.left_alone
    for begun in (False, True):
        watch.delivery = delivery = exchange(PLAIN)
        if begun:
            delivery.response_started(413, 2, 1.0)
        leave_alone(watch)
        if not begun:
            delivery.response_started(413, 2, 1.0)
        delivery.response_completed(1.0, 2)
        assert delivery.early is begun


def test_the_head_says_close_where_a_server_closes_without_a_word() -> None:
    watch = Upload()
    assert says_close(watch, QUIET)
    assert not says_close(watch, PLAIN)
    leave_alone(watch)
    assert not says_close(watch, QUIET)


def test_an_error_behind_the_response_is_the_lingerers() -> None:
    delivery = exchange(PLAIN)
    delivery.response_started(413, 2, 1.0)
    delivery.response_completed(1.0, 2)
    assert not is_behind_response(delivery, OSError(), all_sent=True)
    delivery.linger(1.0)
    assert is_behind_response(delivery, OSError(), all_sent=True)
    assert not is_behind_response(delivery, OSError(), all_sent=False)
    assert not is_behind_response(delivery, RuntimeError(), all_sent=True)


def test_nobody_waits_for_an_answer_once_the_peer_of_stopped_work_has_left() -> None:
    watch = Upload()
    assert not is_unwanted(None)
    assert not is_unwanted(watch)
    stops = watch.write_stops()
    assert not is_unwanted(watch)
    stops.peer_left()
    assert is_unwanted(watch)
