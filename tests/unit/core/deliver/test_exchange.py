"""Drain and respond: the rules one by one, and any order of happenings, with the test's clock."""

from __future__ import annotations

import dataclasses
import errno
import itertools
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.patience import SMALL_REMAINDER, Patience
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.table import (
    TRANSITIONS,
    Done,
    Forward,
    Happening,
    Keep,
    Read,
    Respond,
    State,
    Step,
)
from cleanclose.core.events import Cap, Facts, Mechanism, Outcome, UploadDrained
from cleanclose.core.server import Continue, Server
from cleanclose.core.settings import Settings
from tests.harness.made import EXAMPLES

LAZY = Server("lazy", Continue.LAZY)
LATE = Server("late", Continue.LATE)
EAGER = Server("eager", Continue.EAGER)
ENDS_AT_LENGTH = Server("ends at length", Continue.LAZY, ends_at_length=True)
READS_FIRST = Server("reads first", Continue.LAZY, reads_first=True)
FACTS = Facts(framework="asgi", server="any", method="POST")
SMALL = 1000
LARGE = 64 * 1024 * 1024

DIRECT = Connection(address="192.0.2.1", in_reach=True)
PROXIED = dataclasses.replace(DIRECT, proxied=True)
BLOCKING = dataclasses.replace(DIRECT, blocking=True)
BLOCKING_PROXIED = dataclasses.replace(PROXIED, blocking=True)
MULTIPLEXED = Connection(address="192.0.2.1", multiplexed=True)
NO_SOCKET = Connection(address="192.0.2.1")
BLOCKING_NO_SOCKET = dataclasses.replace(NO_SOCKET, blocking=True)

RESPOND_AND_LINGER = Respond(close=True, linger=True)
RESPOND_AND_CLOSE = Respond(close=True, linger=False)
RESPOND_ON_A_STREAM = Respond(close=False, linger=False)


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


def exchange(
    connection: Connection = DIRECT,
    length: int = SMALL,
    *,
    settings: Settings | None = None,
    places: Places | None = None,
    server: Server = LAZY,
    awaits_continue: bool = False,
    expects_continue: bool = False,
    received: int = 0,
    started: float = 0.0,
) -> Exchange:
    return Exchange(
        settings or Settings(),
        places or Places(10),
        server=server,
        connection=connection,
        facts=FACTS,
        length=length,
        expectation=Expectation(
            server.sends_continue,
            "100-continue" if awaits_continue or expects_continue else None,
            None if awaits_continue else "1.1 Caddy",
            has_read=False,
        ),
        received=received,
        started=started,
    )


def refused(connection: Connection = DIRECT, length: int = SMALL, **more: Any) -> Exchange:
    """An exchange whose application has answered at 0.0 without reading."""
    ex = exchange(connection, length, **more)
    ex.response_started(413, 3, 0.0)
    ex.response_completed(0.0, 3)
    return ex


def event_of(ex: Exchange, now: float = 1.0) -> UploadDrained:
    event = ex.event(now)
    assert event is not None
    return event


def free(places: Places) -> int:
    """How many places there are left, whoever asks."""
    taken = [f"probe {number}" for number in range(places.most + 1)]
    got = [address for address in taken if places.take(address)]
    for address in got:
        places.give_back(address)
    return len(got)


# The table.


def test_a_response_that_is_left_alone_has_begun_all_the_same() -> None:
    """So that an application that fails afterwards is not taken for one that has not answered."""
    ex = exchange(settings=Settings(only_statuses={413}))
    assert ex.response_started(200, 3, 0.0) == Forward()
    states = [ex.state]
    ex.app_failed(0.0)
    states.append(ex.state)
    assert states == [State.STREAMING, State.DONE]
    assert not ex.treated


def test_a_whole_response_that_is_left_alone_is_the_end() -> None:
    ex = exchange(settings=Settings(only_statuses={413}))
    assert isinstance(ex.response_completed(0.0, 0), Done)
    assert ex.state is State.DONE


def in_state(state: State, **more: Any) -> Exchange:
    """An exchange that has come there by what it was told."""
    server = ENDS_AT_LENGTH if more.pop("ends_at_length", False) else LAZY
    ex = exchange(server=server, **more)
    if state is State.OPEN:
        return ex
    ex.response_started(413, 3, 0.0)
    if state is State.KEPT:
        return ex
    if state is State.STREAMING:
        ex.turn_over(0.0)
        return ex
    ex.response_completed(0.0, 3)
    if state is State.DRAINING:
        return ex
    ex.abandoned(0.0)
    if state is State.RESPONDING:
        return ex
    ex.responded(0.0)
    return ex


@pytest.mark.parametrize("state", State)
def test_the_tests_reach_each_state(state: State) -> None:
    assert in_state(state).state is state


def happen(ex: Exchange, happening: Happening) -> None:
    """Let it happen, as the shims' word for it would."""
    match happening:
        case Happening.APP_READ:
            ex.app_read(1.0)
        case Happening.HEAD:
            ex.response_started(413, 3, 1.0)
        case Happening.HEAD_LEFT_ALONE:
            ex.leave_alone()
            ex.response_started(413, 3, 1.0)
        case Happening.PIECE:
            ex.response_piece(1, 1.0)
        case Happening.PIECE_TO_KEEP:
            ex.response_piece(3, 1.0)
        case Happening.TURN_OVER:
            ex.turn_over(1.0)
        case Happening.COMPLETE_DRAIN | Happening.COMPLETE_RESPOND:
            ex.response_completed(1.0, 3 if ex.response_begun else 0)
        case Happening.COMPLETE_LEFT_ALONE:
            ex.leave_alone()
            ex.response_completed(1.0, 3 if ex.response_begun else 0)
        case Happening.BODY_END:
            ex.body_received(SMALL, True, 1.0)
        case Happening.PEER_GONE:
            ex.peer_gone(Mechanism.RESET, 1.0)
        case Happening.MALFORMED:
            ex.body_malformed(1.0)
        case Happening.ENOUGH:
            ex.tick(1000.0)
        case Happening.RESPONDED:
            ex.responded(1.0)
        case Happening.APP_END:
            ex.app_ended(1.0)
        case Happening.ABANDONED:
            ex.abandoned(1.0)


@pytest.mark.parametrize(
    ("state", "happening"),
    list(itertools.product(State, Happening)),
    ids=lambda each: each.name,
)
def test_each_row_and_that_every_other_pair_changes_nothing(
    state: State, happening: Happening
) -> None:
    at_work = state in (State.OPEN, State.KEPT, State.STREAMING)
    ex = in_state(
        state,
        length=LARGE if happening is Happening.COMPLETE_RESPOND and at_work else SMALL,
        ends_at_length=happening is Happening.PIECE_TO_KEEP,
    )
    happen(ex, happening)
    assert ex.state is TRANSITIONS.get((state, happening), state)


def test_every_state_can_be_reached_and_left() -> None:
    sources = {state for state, _ in TRANSITIONS}
    assert set(TRANSITIONS.values()) == set(State) - {State.OPEN}
    assert sources == set(State) - {State.DONE}


def test_every_happening_has_a_row() -> None:
    assert {happening for _, happening in TRANSITIONS} == set(Happening)


def test_steps_are_frozen() -> None:
    for step in (Forward(), Keep(), Read(1.0), RESPOND_AND_LINGER, Done()):
        for field in dataclasses.fields(step):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(step, field.name, None)


# What the application sends and reads keeps its order.


def test_a_head_is_kept_until_the_application_has_had_its_turn() -> None:
    ex = exchange()
    assert ex.step(0.0) == Forward()
    assert ex.response_started(413, 3, 0.0) == Keep()
    assert ex.turn_over(0.1) == Forward()
    assert ex.state is State.STREAMING


def test_who_goes_on_reading_gets_its_head_out_first() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    assert ex.app_read(0.0) == Forward()
    assert ex.body_received(SMALL, True, 0.0) == Forward()
    assert ex.response_completed(0.0) == Done()
    assert ex.event(1.0) is None


def test_a_body_that_ends_meanwhile_lets_the_head_go() -> None:
    ex = exchange()
    ex.response_started(200, 3, 0.0)
    assert ex.body_received(SMALL, True, 0.0) == Forward()


def test_a_peer_that_leaves_meanwhile_lets_the_head_go() -> None:
    ex = exchange()
    ex.response_started(200, 3, 0.0)
    assert ex.peer_gone(Mechanism.UNKNOWN, 0.0) == Forward()
    assert ex.response_completed(0.0, 3) == Done()
    assert ex.event(1.0) is None


def test_a_stream_goes_out_as_it_is_made() -> None:
    ex = exchange(length=LARGE)
    ex.response_started(200, None, 0.0)
    assert ex.response_piece(5, 0.0) == Forward()
    assert ex.response_piece(5, 9.0) == Forward()
    assert ex.response_completed(9.0) == RESPOND_AND_LINGER


def test_a_stream_whose_body_is_about_to_end_is_drained_in_the_end() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    ex.response_piece(5, 0.0)
    assert ex.response_completed(9.0) == Read(0.5)
    assert ex.body_received(SMALL, True, 9.1) == Done()
    assert event_of(ex, 9.1).outcome is Outcome.DELIVERED


def test_an_empty_piece_says_nothing() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    assert ex.response_piece(0, 0.0) == Keep()


def test_the_piece_that_reaches_the_length_is_kept_until_the_last_word() -> None:
    ex = exchange()
    ex.response_started(413, 3, 0.0)
    assert ex.response_piece(3, 0.0) == Keep()
    assert ex.response_completed(0.0) == Read(0.5)


def test_where_a_stream_is_over_with_its_last_byte_that_one_is_kept() -> None:
    ex = exchange(server=ENDS_AT_LENGTH)
    ex.response_started(413, 3, 0.0)
    assert ex.response_piece(1, 0.0) == Forward()
    assert ex.response_piece(2, 0.0) == Keep()
    assert ex.response_completed(0.0) == Read(0.5)
    assert ex.body_received(SMALL, True, 0.1) == Done(in_one_piece=False)


def test_what_was_kept_whole_goes_out_in_one_piece_there() -> None:
    ex = refused(server=ENDS_AT_LENGTH)
    assert ex.body_received(SMALL, True, 0.1) == Done(in_one_piece=True)
    ex = refused(length=LARGE, server=ENDS_AT_LENGTH)
    assert ex.step(0.0) == Respond(close=True, linger=True, in_one_piece=True)


def test_an_application_that_ends_early_leaves_what_it_sent_to_the_server() -> None:
    for state in (State.OPEN, State.KEPT, State.STREAMING):
        ex = in_state(state)
        assert ex.app_ended(0.1) == Done()
        assert ex.event(1.0) is None


def test_an_application_that_ends_does_not_end_the_delivery() -> None:
    assert refused().app_ended(0.1) == Read(about(0.4))


def test_completing_twice_changes_nothing() -> None:
    places = Places(1)
    ex = refused(PROXIED, places=places)
    assert ex.response_completed(0.1, 3) == Read(about(0.9))
    ex.body_received(SMALL, True, 0.2)
    assert ex.response_completed(0.3, 3) == Done()
    assert free(places) == 1


# Left alone.


@pytest.mark.parametrize("status", [413, 101])
@pytest.mark.parametrize("server", [LAZY, READS_FIRST])
@pytest.mark.parametrize("opted_out", [False, True])
@pytest.mark.parametrize("statuses", [None, {413}, {401}])
def test_what_is_left_alone(
    status: int, server: Server, opted_out: bool, statuses: set[int] | None
) -> None:
    ex = exchange(length=LARGE, server=server, settings=Settings(only_statuses=statuses))
    if opted_out:
        ex.leave_alone()
    left_alone = (
        opted_out
        or server is READS_FIRST
        or status == 101
        or (statuses is not None and status not in statuses)
    )
    step = ex.response_started(status, 3, 0.0)
    assert step == (Forward() if left_alone else Keep())
    step = ex.response_completed(0.0, 3)
    assert step == (Done() if left_alone else RESPOND_AND_LINGER)
    assert (ex.event(1.0) is None) is left_alone
    assert ex.early is not left_alone


@pytest.mark.parametrize("size", [2, 4])
def test_a_response_of_another_length_than_it_said_is_the_servers_to_complain_of(size: int) -> None:
    ex = exchange(length=LARGE)
    ex.response_started(413, 3, 0.0)
    assert ex.response_completed(0.0, size) == Done()
    assert ex.event(1.0) is None


def test_any_length_is_right_where_none_was_said() -> None:
    ex = exchange(length=LARGE)
    ex.response_started(413, None, 0.0)
    assert ex.response_completed(0.0, 12345) == RESPOND_AND_LINGER


def test_a_body_that_was_read_leaves_nothing_to_do() -> None:
    ex = exchange()
    ex.app_read(0.0)
    assert ex.body_received(SMALL, True, 0.0) == Forward()
    assert ex.response_started(200, 2, 0.0) == Forward()
    assert ex.response_completed(0.0, 2) == Done()
    assert ex.event(1.0) is None


@pytest.mark.parametrize("before", [0, SMALL])
def test_a_body_that_is_all_there_needs_no_last_word(before: int) -> None:
    ex = exchange(received=before)
    if not before:
        ex.body_received(SMALL, False, 0.0)
    ex.response_started(200, 3, 0.0)
    assert ex.response_completed(0.0, 3) == Done()
    assert ex.event(1.0) is None


# How long a body is drained.


@pytest.mark.parametrize(
    ("connection", "length", "patience"),
    [
        (DIRECT, 1, Patience.SHORT),
        (DIRECT, SMALL_REMAINDER, Patience.SHORT),
        (DIRECT, SMALL_REMAINDER + 1, Patience.NONE),
        (DIRECT, CHUNKED, Patience.ARRIVED),
        (BLOCKING, SMALL_REMAINDER, Patience.ARRIVED),
        (BLOCKING, SMALL_REMAINDER + 1, Patience.NONE),
        (BLOCKING, CHUNKED, Patience.ARRIVED),
        (PROXIED, SMALL, Patience.DUE),
        (PROXIED, LARGE, Patience.DUE),
        (PROXIED, CHUNKED, Patience.DUE),
        (BLOCKING_PROXIED, LARGE, Patience.DUE),
        (MULTIPLEXED, LARGE, Patience.DUE),
        (MULTIPLEXED, CHUNKED, Patience.DUE),
        (NO_SOCKET, LARGE, Patience.DUE),
        (BLOCKING_NO_SOCKET, LARGE, Patience.DUE),
    ],
)
@pytest.mark.parametrize("respond_after", [None, 0, 2.0])
@pytest.mark.parametrize("awaits_continue", [False, True])
def test_patience(
    connection: Connection,
    length: int,
    patience: Patience,
    respond_after: float | None,
    awaits_continue: bool,
) -> None:
    ex = refused(
        connection,
        length,
        settings=Settings(respond_after=respond_after),
        awaits_continue=awaits_continue,
    )
    if awaits_continue or respond_after == 0:
        patience = Patience.NONE
    elif respond_after is not None:
        patience = Patience.SET
    assert ex.patience is patience
    assert ex.state is (State.RESPONDING if patience is Patience.NONE else State.DRAINING)
    multiplexed = connection.multiplexed
    if patience is Patience.NONE:
        assert ex.step(0.0) == Respond(
            close=not multiplexed, linger=connection.lingers and not multiplexed
        )
    elif patience is Patience.ARRIVED:
        assert ex.step(0.0) == Read(0.0)
    else:
        wait = {Patience.SHORT: 0.5, Patience.DUE: 1.0, Patience.SET: 2.0}
        assert ex.step(0.0) == Read(about(wait[patience]))


@pytest.mark.parametrize("read", [0, LARGE - SMALL_REMAINDER, LARGE - SMALL_REMAINDER - 1])
def test_what_counts_is_what_is_left(read: int) -> None:
    ex = exchange(length=LARGE, received=read)
    ex.response_started(413, 3, 0.0)
    ex.response_completed(0.0, 3)
    small = LARGE - read <= SMALL_REMAINDER
    assert ex.patience is (Patience.SHORT if small else Patience.NONE)


@pytest.mark.parametrize(
    ("connection", "most", "patience"),
    [
        # Who gets no place does not wait for a client.
        (DIRECT, 1, Patience.ARRIVED),
        (PROXIED, 1, Patience.NONE),
        (MULTIPLEXED, 1, Patience.NONE),
        (NO_SOCKET, 1, Patience.NONE),
        (BLOCKING_NO_SOCKET, 1, Patience.NONE),
        # What a proxy sends at full speed is there, or comes within a moment.
        (BLOCKING_PROXIED, 1, Patience.ARRIVED),
        (BLOCKING_PROXIED, 0, Patience.SHORT),
    ],
)
def test_without_a_place(connection: Connection, most: int, patience: Patience) -> None:
    places = Places(most)
    if most:
        assert places.take("somebody else")
    ex = refused(connection, places=places)
    assert ex.patience is patience


@pytest.mark.parametrize("connection", [DIRECT, PROXIED, MULTIPLEXED, NO_SOCKET])
def test_a_set_time_needs_a_place_too(connection: Connection) -> None:
    places = Places(1)
    places.take("somebody else")
    ex = refused(connection, LARGE, settings=Settings(respond_after=1.0), places=places)
    assert ex.patience is Patience.NONE


def test_one_address_cannot_have_all_places() -> None:
    places = Places(4)
    same = [refused(PROXIED, places=places).patience for _ in range(3)]
    assert same == [Patience.DUE, Patience.DUE, Patience.NONE]
    other = dataclasses.replace(PROXIED, address="192.0.2.2")
    assert refused(other, places=places).patience is Patience.DUE


@pytest.mark.parametrize("connection", [DIRECT, PROXIED, MULTIPLEXED, NO_SOCKET, BLOCKING_PROXIED])
@pytest.mark.parametrize(
    "end", ["body", "gone", "malformed", "limit", "abandoned", "the server answers", "nothing"]
)
def test_a_place_is_given_back_however_it_ends(connection: Connection, end: str) -> None:
    places = Places(3)
    ex = exchange(connection, places=places)
    if end == "the server answers":
        ex.app_failed(0.0)
    else:
        ex.response_started(413, 3, 0.0)
        ex.response_completed(0.0, 3)
    assert free(places) == 2
    match end:
        case "body":
            ex.body_received(SMALL, True, 0.1)
        case "gone":
            ex.peer_gone(Mechanism.RESET, 0.1)
        case "malformed":
            ex.body_malformed(0.1)
        case "limit":
            ex.tick(60.0)
        case "abandoned":
            ex.abandoned(0.1)
        case "the server answers":
            ex.response_started(500, 3, 0.1)
        case _:
            for second in range(1, 40):
                ex.nothing_came(float(second))
    assert free(places) == 3
    for again in (ex.app_ended, ex.abandoned, ex.responded, ex.tick):
        again(60.0)
    assert free(places) == 3


def test_no_place_is_taken_for_what_waits_for_nobody() -> None:
    places = Places(1)
    for connection in (DIRECT, BLOCKING):
        refused(connection, LARGE, places=places)
        refused(connection, CHUNKED, places=places)
    refused(BLOCKING, SMALL, places=places)
    refused(PROXIED, SMALL, places=places, awaits_continue=True)
    assert free(places) == 1


def test_a_response_that_comes_behind_the_end_takes_no_place() -> None:
    places = Places(1)
    ex = exchange(PROXIED, places=places)
    ex.abandoned(0.0)
    assert ex.response_completed(0.1, 0) == Done()
    assert free(places) == 1


# Drain, for a direct client.


def test_a_small_body_is_waited_for_and_the_connection_can_be_used_again() -> None:
    ex = refused()
    assert ex.step(0.0) == Read(0.5)
    assert ex.body_received(900, False, 0.2) == Read(about(0.3))
    assert ex.body_received(100, True, 0.3) == Done()
    event = event_of(ex)
    assert event.outcome is Outcome.DELIVERED
    assert (event.status, event.drained, event.bytes_in, event.expected_in) == (
        413,
        1000,
        1000,
        SMALL,
    )
    assert event.unacked is None


def test_a_small_body_that_does_not_come_is_left_to_the_lingerer() -> None:
    ex = refused()
    # A moment is enough to see that it is not due.
    assert ex.nothing_came(0.05) == Read(about(0.45))
    assert ex.tick(0.1) == RESPOND_AND_LINGER


def test_a_small_body_that_comes_too_slowly_is_left_to_the_lingerer() -> None:
    ex = refused()
    assert ex.body_received(100, False, 0.05) == Read(about(0.45))
    # At 1,000 bytes a second the other 800 are not here by 0.5.
    assert ex.body_received(100, False, 0.2) == RESPOND_AND_LINGER


def test_a_small_body_is_not_waited_for_longer_than_the_moment() -> None:
    ex = refused()
    assert ex.body_received(999, False, 0.1) == Read(about(0.4))
    assert ex.tick(0.49) == Read(about(0.01))
    assert ex.tick(0.5) == RESPOND_AND_LINGER


@pytest.mark.parametrize("connection", [DIRECT, BLOCKING])
def test_of_a_chunked_body_only_what_has_arrived_is_drained(connection: Connection) -> None:
    ex = refused(connection, CHUNKED)
    assert ex.body_received(5000, False, 0.0) == Read(0.0)
    assert ex.nothing_came(0.0) == RESPOND_AND_LINGER
    ex = refused(connection, CHUNKED)
    assert ex.body_received(5000, True, 0.0) == Done()


@pytest.mark.parametrize("length", [CHUNKED, SMALL_REMAINDER])
def test_what_has_arrived_may_never_end(length: int) -> None:
    ex = refused(BLOCKING, length, settings=Settings(max_seconds=1000))
    drained = 0
    while ex.step(0.0) == Read(0.0) and drained < 100 * SMALL_REMAINDER:
        drained += 10_000
        ex.body_received(10_000, False, 0.0)
    assert ex.step(0.0) == RESPOND_AND_LINGER
    assert SMALL_REMAINDER < drained <= SMALL_REMAINDER + 10_000


@pytest.mark.parametrize("connection", [DIRECT, BLOCKING, PROXIED, NO_SOCKET])
@pytest.mark.parametrize("length", [CHUNKED, SMALL])
def test_no_more_than_max_bytes_is_drained(connection: Connection, length: int) -> None:
    ex = refused(connection, length, settings=Settings(max_bytes=100))
    assert isinstance(ex.step(0.0), Read)
    assert isinstance(ex.body_received(99, False, 0.0), Read)
    assert isinstance(ex.body_received(1, False, 0.0), Respond)


def test_a_body_that_ends_at_max_bytes_is_drained() -> None:
    ex = refused(NO_SOCKET, 100, settings=Settings(max_bytes=100))
    assert isinstance(ex.body_received(100, False, 0.0), Read)
    assert ex.body_received(0, True, 0.0) == Done()
    assert event_of(ex).cap is None


# Drain, for as long as the body is due.


def test_an_upload_behind_a_proxy_is_looked_at_again_with_each_piece() -> None:
    ex = refused(PROXIED, 30_000)
    for second in range(1, 20):
        assert isinstance(ex.body_received(1000, False, float(second)), Read)
    # It was due at 30; now it is not any more.
    assert ex.nothing_came(22.0) == RESPOND_AND_LINGER


def test_an_upload_that_is_due_is_waited_for_to_its_end() -> None:
    ex = refused(PROXIED, 20_000)
    for second in range(1, 20):
        assert isinstance(ex.body_received(1000, False, float(second)), Read)
    assert ex.body_received(1000, True, 20.0) == Done()
    assert event_of(ex, 20.0).outcome is Outcome.DELIVERED


def test_an_upload_that_is_not_due_is_answered_after_a_second() -> None:
    ex = refused(PROXIED, LARGE)
    assert ex.body_received(10_000, False, 0.5) == Read(about(0.5))
    assert ex.nothing_came(1.0) == RESPOND_AND_LINGER


def test_an_application_that_thinks_first_does_not_make_its_client_late() -> None:
    ex = exchange(PROXIED, 20_000)
    ex.response_started(413, 3, 25.0)
    ex.response_completed(25.0, 3)
    # The client could send nothing for 25 seconds: nobody read.
    assert isinstance(ex.body_received(2000, False, 26.0), Read)
    assert isinstance(ex.body_received(2000, False, 27.0), Read)


def test_a_client_that_was_fast_before_may_pause() -> None:
    ex = exchange(PROXIED, 20_000, received=19_000)
    ex.response_started(413, 3, 2.0)
    ex.response_completed(2.0, 3)
    assert isinstance(ex.nothing_came(3.5), Read)


def test_a_chunked_body_is_always_due_within_the_limits() -> None:
    ex = refused(PROXIED, CHUNKED)
    for second in range(1, 30):
        assert isinstance(ex.body_received(1000, False, float(second)), Read)
    assert ex.body_received(1000, False, 30.0) == RESPOND_AND_LINGER


@pytest.mark.parametrize(
    ("settings", "cap", "at"),
    [
        (Settings(idle_seconds=2.0), Cap.IDLE_SECONDS, 2.0),
        (Settings(max_seconds=3.0), Cap.MAX_SECONDS, 3.0),
        (Settings(idle_seconds=60.0, max_seconds=60.0), Cap.MIN_RATE, 5.0),
        (Settings(idle_seconds=60.0, max_seconds=60.0, min_rate=0), Cap.MAX_SECONDS, 60.0),
        (Settings(respond_after=4.0), Cap.MAX_SECONDS, 4.0),
        (Settings(respond_after=4.0, idle_seconds=1.0), Cap.IDLE_SECONDS, 1.0),
        (Settings(respond_after=20.0, idle_seconds=60.0), Cap.MAX_SECONDS, 20.0),
    ],
)
@pytest.mark.parametrize("connection", [PROXIED, MULTIPLEXED, NO_SOCKET])
def test_the_limits_in_time(
    settings: Settings, cap: Cap, at: float, connection: Connection
) -> None:
    ex = refused(connection, CHUNKED, settings=settings)
    now = 0.0
    while isinstance(step := ex.nothing_came(now), Read):
        assert step.at_most_seconds > 0
        now += step.at_most_seconds
    assert now == about(at)
    assert step == Respond(close=not connection.multiplexed, linger=connection.lingers)
    ex.responded(now)
    if connection.lingers:
        # What comes of it is the lingerer's to say; nothing has been cut yet.
        assert ex.event(now) is None or event_of(ex, now).cap is None
    else:
        assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, cap)
        assert event_of(ex).status == 413


def test_a_trickle_is_too_slow() -> None:
    ex = refused(NO_SOCKET, CHUNKED)
    for second in range(1, 5):
        assert isinstance(ex.body_received(239, False, float(second)), Read)
    ex.body_received(239, False, 5.0)
    assert event_of(ex).cap is Cap.MIN_RATE
    ex = refused(NO_SOCKET, CHUNKED)
    for second in range(1, 25):
        assert isinstance(ex.body_received(241, False, float(second)), Read)


def test_a_trickle_is_fast_enough_where_the_user_has_set_a_time() -> None:
    ex = refused(DIRECT, LARGE, settings=Settings(respond_after=20.0))
    for second in range(1, 20):
        assert isinstance(ex.body_received(1, False, float(second)), Read)
    assert ex.tick(20.0) == RESPOND_AND_LINGER


def test_half_of_a_workers_time_at_most() -> None:
    connection = dataclasses.replace(BLOCKING_PROXIED, worker_timeout=20.0)
    ex = exchange(connection, CHUNKED)
    ex.response_started(413, 3, 4.0)
    ex.response_completed(4.0, 3)
    for second in range(5, 10):
        assert isinstance(ex.body_received(1000, False, float(second)), Read)
    assert ex.body_received(1000, False, 10.0) == RESPOND_AND_LINGER


def test_a_worker_whose_time_is_over_waits_for_nothing() -> None:
    connection = dataclasses.replace(BLOCKING_PROXIED, worker_timeout=20.0)
    ex = exchange(connection, CHUNKED)
    ex.response_started(413, 3, 15.0)
    assert ex.response_completed(15.0, 3) == Read(0.0)
    assert ex.nothing_came(15.0) == RESPOND_AND_LINGER


# Expect: 100-continue.


@pytest.mark.parametrize("server", [LAZY, LATE])
@pytest.mark.parametrize("connection", [DIRECT, PROXIED, MULTIPLEXED, NO_SOCKET, BLOCKING])
def test_who_waits_for_a_100_gets_the_answer_and_is_not_read_from(
    server: Server, connection: Connection
) -> None:
    ex = refused(connection, server=server, awaits_continue=True)
    assert isinstance(ex.step(0.0), Respond)
    assert not ex.may_read
    ex.responded(0.0)
    if connection.lingers:
        ex.linger(0.0)
        assert ex.event(0.0) is None
    else:
        assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, Cap.EXPECT)


def test_who_has_had_its_100_sends_its_body() -> None:
    assert refused(server=EAGER, awaits_continue=True).step(0.0) == Read(0.5)
    ex = exchange(awaits_continue=True)
    ex.app_read(0.0)
    assert ex.may_read
    ex.response_started(413, 3, 0.0)
    assert ex.response_completed(0.0, 3) == Read(0.5)


@pytest.mark.parametrize(
    ("server", "streamed", "reads", "step"),
    [
        # Nobody waits for the 100 (Caddy), but this server writes one wherever the response is.
        (LATE, True, False, Respond(close=True, linger=True)),
        (LATE, True, True, Read(1.0)),
        (LATE, False, False, Read(1.0)),
        (LAZY, True, False, Read(1.0)),
        (EAGER, True, False, Read(1.0)),
    ],
)
def test_no_100_is_written_into_a_stream(
    server: Server, streamed: bool, reads: bool, step: Step
) -> None:
    ex = exchange(PROXIED, server=server, expects_continue=True)
    if reads:
        ex.app_read(0.0)
    ex.response_started(413, None, 0.0)
    if streamed:
        ex.response_piece(3, 0.0)
        ex.turn_over(0.0)
    assert ex.response_completed(0.0, 3) == step
    assert ex.may_read is isinstance(step, Read)


# Failures, departures and ends.


def test_the_body_is_read_before_the_server_answers_for_the_application() -> None:
    ex = exchange(PROXIED)
    assert ex.app_failed(0.0) == Read(1.0)
    assert ex.early
    assert ex.body_received(SMALL, True, 0.1) == Done()
    assert event_of(ex).status is None


def test_where_nothing_is_drained_the_servers_answer_lingers() -> None:
    ex = exchange(length=LARGE)
    assert ex.app_failed(0.0) == RESPOND_AND_LINGER
    ex.linger(0.0)
    assert ex.responded(0.0) == Done()


@pytest.mark.parametrize("statuses", [{413}, {500}])
def test_a_failure_is_a_500(statuses: set[int]) -> None:
    ex = exchange(length=LARGE, settings=Settings(only_statuses=statuses))
    step = ex.app_failed(0.0)
    assert step == (RESPOND_AND_LINGER if 500 in statuses else Done())


@pytest.mark.parametrize("state", [State.KEPT, State.STREAMING])
def test_an_application_that_had_begun_to_respond_is_not_answered_for(state: State) -> None:
    ex = in_state(state)
    assert ex.app_failed(0.1) == Done()
    assert ex.event(1.0) is None


def test_a_failure_behind_the_response_changes_nothing() -> None:
    assert refused().app_failed(0.1) == Read(about(0.4))


def test_a_failure_without_a_body_left_is_nobodys() -> None:
    ex = exchange(received=SMALL)
    assert ex.app_failed(0.0) == Done()
    assert ex.event(1.0) is None


@pytest.mark.parametrize("left_alone", [False, True])
def test_whoever_answers_all_the_same_is_let_through(left_alone: bool) -> None:
    ex = exchange(PROXIED)
    ex.app_failed(0.0)
    if left_alone:
        ex.leave_alone()
    assert ex.response_started(500, 3, 0.1) == Done()
    assert ex.response_completed(0.1, 3) == Done()


@pytest.mark.parametrize(
    ("error", "mechanism", "outcome"),
    [
        (ConnectionResetError(errno.ECONNRESET, "x"), Mechanism.RESET, Outcome.RESET),
        (BrokenPipeError(errno.EPIPE, "x"), Mechanism.BROKEN_PIPE, Outcome.UNKNOWN),
        (ConnectionAbortedError(errno.ECONNABORTED, "x"), Mechanism.ABORTED, Outcome.UNKNOWN),
        (TimeoutError(), Mechanism.TIMEOUT, Outcome.UNKNOWN),
        (OSError("without a number"), Mechanism.UNKNOWN, Outcome.UNKNOWN),
    ],
    ids=repr,
)
def test_a_connection_that_breaks_while_it_is_drained(
    error: Exception, mechanism: Mechanism, outcome: Outcome
) -> None:
    ex = refused()
    assert ex.reading_failed(error, 0.1) == Done()
    assert (event_of(ex).mechanism, event_of(ex).outcome) == (mechanism, outcome)
    assert event_of(ex).status is None
    assert not ex.may_read


def test_the_lingerer_needs_no_framing() -> None:
    ex = refused()
    assert ex.reading_failed(ValueError("chunk"), 0.1) == RESPOND_AND_LINGER
    ex = exchange(length=LARGE)
    ex.app_read(0.0)
    ex.reading_failed(ValueError("chunk"), 0.0)
    ex.response_started(400, 3, 0.1)
    assert ex.response_completed(0.1, 3) == RESPOND_AND_LINGER


def test_without_a_socket_a_body_that_makes_no_sense_is_the_end() -> None:
    ex = refused(NO_SOCKET)
    assert ex.reading_failed(ValueError("chunk"), 0.1) == RESPOND_AND_CLOSE
    ex.responded(0.1)
    assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, Cap.MALFORMED)
    ex = exchange(NO_SOCKET)
    ex.reading_failed(ValueError("chunk"), 0.0)
    ex.response_started(400, 3, 0.1)
    assert ex.response_completed(0.1, 3) == Done()


def test_a_peer_that_left_before_the_answer_has_not_got_it() -> None:
    ex = exchange(length=LARGE)
    ex.peer_gone(Mechanism.RESET, 0.0)
    ex.response_started(413, 3, 0.1)
    assert ex.response_completed(0.1, 3) == Done()
    assert ex.event(1.0) is None


@pytest.mark.parametrize("connection", [DIRECT, PROXIED, MULTIPLEXED, NO_SOCKET])
def test_who_is_abandoned_while_draining_responds(connection: Connection) -> None:
    ex = refused(connection)
    step = ex.abandoned(0.1)
    assert step == Respond(close=not connection.multiplexed, linger=connection.lingers)
    assert ex.responded(0.1) == Done()
    if not connection.lingers:
        assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, Cap.APPLICATION)


@pytest.mark.parametrize("state", [State.OPEN, State.KEPT, State.STREAMING])
def test_who_is_abandoned_before_leaves_it_to_the_server(state: State) -> None:
    ex = in_state(state)
    assert ex.abandoned(0.1) == Done()
    assert ex.event(1.0) is None


RESET = ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize(
    ("error", "seen", "step"),
    [
        # The stream's error says more than the kernel.
        (RESET, Mechanism.EOF, Done()),
        (ValueError("a line that is too long"), None, RESPOND_AND_LINGER),
        (False, Mechanism.EOF, Done()),
        # The server stops, or has waited for long enough.
        (False, None, RESPOND_AND_LINGER),
        (None, None, RESPOND_AND_LINGER),
    ],
)
def test_a_server_that_closes_while_it_drains_says_why(
    error: object, seen: Mechanism | None, step: Step
) -> None:
    ex = refused()
    assert ex.connection_closes(error, seen, 0.1) == step
    if step == Done():
        assert event_of(ex).mechanism is (Mechanism.RESET if error is RESET else seen)


def test_how_much_a_server_may_take_of_a_chunked_body_as_it_responds() -> None:
    ex = refused(length=CHUNKED, received=100, settings=Settings(max_bytes=1000))
    ex.body_received(50, False, 0.1)
    assert ex.most_received == 1150


def test_a_response_that_the_server_could_not_send_was_not_delivered() -> None:
    ex = refused()
    ex.body_received(SMALL, True, 0.1)
    ex.response_lost()
    assert (event_of(ex).outcome, event_of(ex).status) == (Outcome.UNKNOWN, None)


# Whose the event is.


def test_the_lingerer_reports_what_it_has() -> None:
    ex = exchange(PROXIED, LARGE, received=100)
    ex.response_started(413, 3, 0.0)
    ex.response_completed(0.0, 3)
    ex.body_received(50, False, 0.5)
    assert ex.nothing_came(1.0) == RESPOND_AND_LINGER
    linger = ex.linger(1.0)
    assert ex.handed_over
    assert ex.responded(1.0) == Done()
    assert ex.event(1.0) is None
    event = linger.event(2.0)
    assert event.facts == FACTS
    assert (event.status, event.bytes_in, event.drained) == (413, 150, 50)
    assert (event.expected_in, event.age_ms) == (LARGE, 2000)


def test_of_a_chunked_body_nobody_expects_a_length() -> None:
    ex = refused(length=CHUNKED)
    ex.nothing_came(0.0)
    assert ex.linger(0.0).event(0.0).expected_in is None


def test_without_a_descriptor_the_exchange_reports() -> None:
    ex = refused(length=LARGE)
    ex.linger(0.0)
    ex.no_descriptor()
    ex.responded(0.0)
    assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, Cap.NO_DESCRIPTOR)
    assert event_of(ex).status == 413


@pytest.mark.parametrize(
    ("settings", "more", "cap"),
    [
        (Settings(respond_after=0), {}, Cap.MAX_SECONDS),
        (Settings(), {"awaits_continue": True}, Cap.EXPECT),
        (Settings(), {"places": Places(0)}, Cap.MAX_LINGERING),
    ],
)
def test_why_nothing_could_be_done_without_a_socket(
    settings: Settings, more: dict[str, Any], cap: Cap
) -> None:
    ex = refused(NO_SOCKET, settings=settings, **more)
    assert ex.step(0.0) == RESPOND_AND_CLOSE
    ex.responded(0.0)
    assert (event_of(ex).outcome, event_of(ex).cap) == (Outcome.CUT, cap)


# Any order of happenings.

CONNECTIONS = [
    DIRECT,
    PROXIED,
    BLOCKING,
    BLOCKING_PROXIED,
    MULTIPLEXED,
    NO_SOCKET,
    BLOCKING_NO_SOCKET,
    dataclasses.replace(BLOCKING_PROXIED, worker_timeout=20.0),
    dataclasses.replace(MULTIPLEXED, in_reach=True),
]
ROUNDING = 1e-6


class ExchangeMachine(RuleBasedStateMachine):
    """Plays an application, a client, a server, and a shim which keeps to the steps."""

    @initialize(
        connection=st.sampled_from(CONNECTIONS),
        length=st.sampled_from([CHUNKED, 500, 100_000, LARGE]),
        awaits_continue=st.booleans(),
        server=st.sampled_from([LAZY, LATE, EAGER, ENDS_AT_LENGTH, READS_FIRST]),
        limits=st.builds(
            Settings,
            max_bytes=st.sampled_from([0, 100, 1_000_000]),
            respond_after=st.sampled_from([None, 0, 2.0]),
            min_rate=st.sampled_from([0, 240.0]),
            only_statuses=st.sampled_from([None, None, {413}]),
        ),
        most=st.integers(0, 3),
        occupied=st.integers(0, 2),
        calm=st.sampled_from([1, 4, 8, 16]),
    )
    def begin(
        self,
        connection: Connection,
        length: int,
        awaits_continue: bool,
        server: Server,
        limits: Settings,
        most: int,
        occupied: int,
        calm: int,
    ) -> None:
        self.now = 100.0
        self.calm = calm
        self.connection = connection
        self.left = 10_000 if length == CHUNKED else length
        self.limits = limits
        self.places = Places(most)
        self.others = sum(self.places.take(f"other {number}") for number in range(occupied))
        self.exchange = exchange(
            connection,
            length,
            settings=limits,
            places=self.places,
            server=server,
            awaits_continue=awaits_continue,
            started=self.now,
        )
        self.waits_for_100 = awaits_continue and server.sends_continue is not Continue.EAGER
        self.begun = self.failed = self.over = False
        self.rest = 0
        self.kept: list[str] = []
        self.wire: list[str] = []
        self.sent: list[str] = []
        self.lingerings = self.responds = 0
        self.completed_at: float | None = None

    # The shim keeps to the steps.

    def obey(self, step: Step) -> None:
        match step:
            case Keep():
                assert self.exchange.state is State.KEPT
            case Read(seconds):
                assert not self.waits_for_100
                assert not self.exchange.body_complete
                assert self.exchange.response_complete or self.failed
                assert 0 <= seconds <= self.limits.max_seconds + ROUNDING
            case Respond(close, linger):
                self.responds += 1
                assert close is not self.connection.multiplexed
                if linger:
                    assert self.connection.lingers
                    assert not self.connection.multiplexed
                    self.lingerings += 1
                    self.exchange.linger(self.now)
                self.flush()
                assert self.exchange.responded(self.now) == Done(step.in_one_piece)
            case Forward() | Done():
                self.flush()

    def flush(self) -> None:
        self.wire += self.kept
        self.kept.clear()

    def is_rough(self) -> bool:
        """Whether what ends everything may happen; from the start on, hardly anything else did."""
        return self.calm <= 0

    # The application.

    def is_at_work(self) -> bool:
        return not (self.exchange.response_complete or self.failed or self.over)

    @precondition(lambda self: self.is_at_work())
    @rule(size=st.integers(0, 200))
    def app_reads(self, size: int) -> None:
        self.waits_for_100 = False
        self.obey(self.exchange.app_read(self.now))
        assert not self.kept
        self.receive(size)

    @precondition(lambda self: not self.begun and not self.over)
    @rule(status=st.sampled_from([413, 413, 204, 101]), length=st.sampled_from([None, 10]))
    def app_begins(self, status: int, length: int | None) -> None:
        """Also a server that answers for an application that has failed."""
        self.begun = True
        self.rest = length or 0
        self.keep("head")
        self.obey(self.exchange.response_started(status, length, self.now))

    @precondition(lambda self: self.begun and self.is_at_work())
    @rule(size=st.sampled_from([0, 1, 10, 100_000]))
    def app_sends(self, size: int) -> None:
        self.rest -= size
        self.keep(f"piece {size}")
        self.obey(self.exchange.response_piece(size, self.now))

    @precondition(lambda self: self.begun and self.is_at_work())
    @rule(error=st.sampled_from([0, 0, 0, 1]))
    def app_completes(self, error: int) -> None:
        size = max(0, self.rest) + error
        self.completed_at = self.now
        self.keep("end")
        self.obey(self.exchange.response_completed(self.now, size))

    @precondition(lambda self: not self.begun and self.is_at_work())
    @rule()
    def app_refuses(self) -> None:
        self.app_begins(413, 10)
        self.app_completes(0)

    def keep(self, what: str) -> None:
        self.sent.append(what)
        self.kept.append(what)

    @precondition(lambda self: not self.over)
    @rule()
    def turn_is_over(self) -> None:
        self.obey(self.exchange.turn_over(self.now))
        assert self.exchange.state is not State.KEPT

    @precondition(lambda self: self.is_rough() and not self.failed and not self.over)
    @rule()
    def app_opts_out(self) -> None:
        self.exchange.leave_alone()

    @precondition(lambda self: self.is_rough() and not self.failed and not self.over)
    @rule()
    def app_fails(self) -> None:
        self.failed = True
        if self.completed_at is None:
            self.completed_at = self.now
        self.obey(self.exchange.app_failed(self.now))

    @precondition(lambda self: self.is_rough())
    @rule()
    def app_ends(self) -> None:
        self.over = True
        self.obey(self.exchange.app_ended(self.now))

    # The client and the clock.

    def receive(self, size: int) -> None:
        if self.left or not self.exchange.body_complete:
            size = min(size, self.left)
            self.left -= size
            self.obey(self.exchange.body_received(size, self.left == 0, self.now))

    @precondition(lambda self: isinstance(self.exchange.step(self.now), Read))
    @rule(size=st.integers(0, 50_000))
    def a_piece_comes(self, size: int) -> None:
        self.receive(size)

    @precondition(lambda self: isinstance(self.exchange.step(self.now), Read))
    @rule()
    def nothing_comes(self) -> None:
        step = self.exchange.step(self.now)
        assert isinstance(step, Read)
        self.now += step.at_most_seconds
        self.obey(self.exchange.nothing_came(self.now))

    @precondition(lambda self: self.is_rough())
    @rule(mechanism=st.sampled_from(list(Mechanism)))
    def the_peer_leaves(self, mechanism: Mechanism) -> None:
        self.obey(self.exchange.peer_gone(mechanism, self.now))

    @precondition(lambda self: self.is_rough())
    @rule(error=st.sampled_from([ValueError("chunk"), ConnectionResetError(104, "x"), OSError()]))
    def reading_fails(self, error: Exception) -> None:
        self.obey(self.exchange.reading_failed(error, self.now))

    @rule(seconds=st.floats(0, 40, allow_nan=False))
    def time_passes(self, seconds: float) -> None:
        """The shim comes back when its step's time is up, or when something happens before."""
        step = self.exchange.step(self.now)
        self.now += min(seconds, step.at_most_seconds) if isinstance(step, Read) else seconds
        self.obey(self.exchange.tick(self.now))

    @precondition(lambda self: self.is_rough())
    @rule()
    def cancelled(self) -> None:
        self.obey(self.exchange.abandoned(self.now))
        assert self.exchange.state is State.DONE

    @precondition(lambda self: self.others)
    @rule()
    def a_place_is_given_back(self) -> None:
        self.others -= 1
        self.places.give_back(f"other {self.others}")

    # What must hold.

    @invariant()
    def it_gets_rougher(self) -> None:
        self.calm -= 1

    @invariant()
    def nothing_is_lost_and_all_keeps_its_order(self) -> None:
        assert self.wire + self.kept == self.sent
        if self.exchange.state not in (State.KEPT, State.DRAINING):
            assert not self.kept

    @invariant()
    def a_place_is_held_only_while_draining(self) -> None:
        held = 0 if self.exchange.state is not State.DRAINING else 1
        assert self.places.most - self.others - held <= free(self.places)
        assert free(self.places) <= self.places.most - self.others

    @invariant()
    def there_is_one_answer_at_most(self) -> None:
        assert self.responds <= 1
        assert self.lingerings <= self.responds

    @invariant()
    def no_respond_is_left_undone(self) -> None:
        assert self.exchange.state is not State.RESPONDING

    @invariant()
    def all_waits_together_have_a_limit(self) -> None:
        if self.completed_at is not None and self.exchange.state is State.DRAINING:
            assert self.now - self.completed_at <= self.limits.max_seconds + ROUNDING

    @invariant()
    def no_more_than_max_bytes_and_a_piece_is_drained(self) -> None:
        event = self.exchange.event(self.now)
        if event is not None:
            assert event.drained <= self.limits.max_bytes + 50_000
            assert event.bytes_in >= event.drained

    @invariant()
    def an_early_response_is_one_event(self) -> None:
        event = self.exchange.event(self.now)
        assert (event is not None) is (self.exchange.early and not self.lingerings)
        if self.exchange.early:
            assert self.exchange.response_complete or self.failed
        if event is not None and self.exchange.state is State.DONE:
            assert (event.outcome is Outcome.CUT) is (event.cap is not None)

    def teardown(self) -> None:
        """However it went: given time, every exchange ends and gives its place back."""
        if not hasattr(self, "exchange"):
            return
        self.obey(self.exchange.app_ended(self.now))
        for _ in range(50):
            step = self.exchange.step(self.now)
            if not isinstance(step, Read):
                break
            self.now += step.at_most_seconds
            self.obey(self.exchange.nothing_came(self.now))
        assert self.exchange.state is State.DONE
        assert self.wire == self.sent
        assert free(self.places) == self.places.most - self.others


TestAnyOrder = ExchangeMachine.TestCase
TestAnyOrder.settings = hypothesis_settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None
)


# What the shims ask.


def test_an_error_of_sending_is_moot_where_the_client_left_while_it_was_drained() -> None:
    ex = refused()
    assert not ex.is_moot(OSError())
    ex.peer_gone(Mechanism.RESET, 0.0)
    assert ex.is_moot(OSError())
    assert not ex.is_moot(ValueError())


def test_an_early_response_that_is_there_to_its_end_may_get_a_length() -> None:
    ex = exchange()
    ex.response_started(413, None, 0.0)
    assert not ex.is_kept_whole
    ex.response_completed(0.0, 3)
    assert ex.is_kept_whole


def test_a_response_that_its_application_never_completes_gets_none() -> None:
    ex = exchange()
    ex.response_started(200, None, 0.0)
    ex.response_piece(3, 0.0)
    assert ex.app_ended(0.0) == Done()
    assert not ex.is_kept_whole


def test_nor_does_one_of_a_task_that_a_failed_application_has_left_behind() -> None:
    ex = exchange(PROXIED)
    ex.app_failed(0.0)
    assert ex.response_started(500, None, 0.1) == Done()
    assert not ex.is_kept_whole


def test_a_connection_that_does_not_count_changes_nothing() -> None:
    ex = refused(length=CHUNKED)
    assert isinstance(ex.counted(None, 0.0), Read)
    ex.counted(0, 0.0)
    assert ex.counted(SMALL_REMAINDER + 1, 0.0) == RESPOND_AND_LINGER
