"""How much of a body is taken."""

from __future__ import annotations

import sys

import pytest

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.limit import LimitedBody


class Body(LimitedBody):
    def __init__(self, length: int, most: int) -> None:
        self.length = length
        self.most = most


@pytest.mark.parametrize(
    ("length", "passed"), [(10, False), (11, True), (1 << 40, True), (CHUNKED, False)]
)
def test_a_declared_length_is_compared(length: int, passed: bool) -> None:
    assert Body(length, 10).is_too_long() is passed


def test_a_declared_length_is_not_counted_again() -> None:
    assert Body(10, 10).passes(11) is False


def test_a_chunked_body_is_counted() -> None:
    body = Body(CHUNKED, 10)
    assert [body.passes(5) for _ in range(3)] == [False, False, True]


def test_the_application_may_move_it() -> None:
    body = Body(11, 10)
    body.most = 11
    assert not body.is_too_long()
    body = Body(CHUNKED, 10)
    assert not body.passes(10)
    body.most = 1
    assert [body.passes(1), body.passes(1)] == [False, True]


@pytest.mark.parametrize(("length", "most"), [(5, 10), (50, 10), (CHUNKED, sys.maxsize)])
def test_the_server_counts_no_chunks(length: int, most: int) -> None:
    assert Body(length, 10).servers_own == most
