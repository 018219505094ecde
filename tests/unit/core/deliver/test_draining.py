"""What a drain on a blocking server counts, in front of its readings and behind them."""

from __future__ import annotations

import pytest

from cleanclose.core.deliver.draining import Draining, tell_reading
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.patience import FRAMING_PER_BYTE, MUCH_FRAMING
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.table import Done, Read, Respond, State
from cleanclose.core.events import Facts
from cleanclose.core.server import Continue, Server
from cleanclose.core.settings import Settings

LONG = 64 * 1024
"""Bytes of one chunk that are not waited for any longer."""
FACTS = Facts(framework="wsgi", server="any", method="POST")
PROXIED = Connection(address="192.0.2.1", in_reach=True, proxied=True, blocking=True)


def draining(length: int) -> tuple[Exchange, Draining]:
    """A drain that has begun, of a body of which nothing has been read."""
    exchange = Exchange(
        Settings(),
        Places(10),
        server=Server("any", Continue.EAGER),
        connection=PROXIED,
        facts=FACTS,
        length=length,
        expectation=Expectation(Continue.EAGER, None, None, has_read=False),
        started=0.0,
    )
    exchange.response_started(413, None, 0.0)
    assert isinstance(exchange.response_completed(0.0), Read)
    return exchange, Draining(exchange, None if length == CHUNKED else length, lambda: 0.1)


def test_a_reading_that_returns_adds_nothing_to_what_has_come() -> None:
    exchange, drain = draining(10)
    drain.came(4)
    assert (exchange.drained, drain.left) == (4, 10)
    drain.came(3)
    assert isinstance(drain.drained(7, at_end=False), Read)
    assert (exchange.drained, drain.left) == (7, 3)
    assert isinstance(drain.drained(3, at_end=True), Done)
    assert (exchange.drained, drain.left, exchange.body_complete) == (10, 0, True)


def test_bytes_of_the_next_request_do_not_count_as_the_bodys_readings() -> None:
    exchange, drain = draining(10)
    drain.came(8192)
    assert isinstance(drain.drained(10, at_end=True), Done)
    assert (drain.left, exchange.body_complete) == (0, True)


def test_the_streams_end_before_the_bodys_is_the_peers() -> None:
    exchange, drain = draining(10)
    drain.came(4)
    assert isinstance(drain.drained(4, at_end=True), Done)
    assert exchange.is_moot(OSError())
    assert not exchange.body_complete


def test_of_chunks_only_a_reading_or_a_long_one_is_counted() -> None:
    exchange, drain = draining(CHUNKED)
    assert isinstance(drain.came(LONG - 1), Read)
    assert (exchange.drained, drain.left) == (0, None)
    drain.came(1)
    assert exchange.drained == LONG
    # What a reading hands out then is no more than that; the rest was framing.
    drain.drained(LONG - 10, at_end=False)
    assert exchange.drained == LONG
    assert isinstance(drain.drained(0, at_end=True), Done)
    assert exchange.body_complete


def test_a_chunk_is_counted_from_the_last_reading_on() -> None:
    exchange, drain = draining(CHUNKED)
    drain.came(100)
    drain.drained(90, at_end=False)
    drain.came(LONG - 1)
    assert exchange.drained == 90


def test_framing_is_what_has_come_and_no_reading_has_brought() -> None:
    """Up to the last byte of it that is not too much."""
    _, drain = draining(CHUNKED)
    drain.came(30)
    drain.drained(10, at_end=False)
    assert isinstance(drain.came(MUCH_FRAMING + 10 + 10 * FRAMING_PER_BYTE - 30), Read)
    assert isinstance(drain.came(1), Respond)


def test_a_body_is_complete_with_its_last_byte() -> None:
    exchange, drain = draining(10)
    assert isinstance(drain.drained(9, at_end=False), Read)
    assert not exchange.body_complete
    assert isinstance(drain.drained(1, at_end=False), Done)


def test_what_no_reading_will_return_with_is_counted_when_the_time_is_over() -> None:
    exchange, drain = draining(CHUNKED)
    drain.came(100)
    assert isinstance(drain.nothing_came(), Read)
    assert exchange.drained == 100
    assert drain.step() == exchange.step(0.1)


@pytest.mark.parametrize(
    ("at_end", "complete", "gone"),
    [(False, False, False), (True, False, True), (True, True, False), (False, True, False)],
)
def test_what_a_reading_says(at_end: bool, complete: bool, gone: bool) -> None:
    exchange, _ = draining(10)
    tell_reading(exchange, 5, at_end=at_end, complete=complete, now=0.1)
    assert exchange.is_moot(OSError()) is gone
    assert exchange.may_read is not gone
    assert exchange.state is (State.DONE if at_end or complete else State.DRAINING)
