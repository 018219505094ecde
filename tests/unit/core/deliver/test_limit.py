"""How much of a body is taken."""

from __future__ import annotations

import pytest

from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.limit import BodyLimit


@pytest.mark.parametrize(
    ("length", "passed"), [(10, False), (11, True), (1 << 40, True), (CHUNKED, False)]
)
def test_a_declared_length_is_compared(length: int, passed: bool) -> None:
    assert BodyLimit(length, 10).is_passed_by_length is passed


def test_a_declared_length_is_not_counted_again() -> None:
    assert BodyLimit(10, 10).is_passed_by(11) is False


def test_a_chunked_body_is_counted() -> None:
    limit = BodyLimit(CHUNKED, 10)
    assert [limit.is_passed_by(5) for _ in range(3)] == [False, False, True]


def test_the_application_may_move_it() -> None:
    limit = BodyLimit(11, 10)
    limit.set(11)
    assert not limit.is_passed_by_length
    limit = BodyLimit(CHUNKED, 10)
    assert not limit.is_passed_by(10)
    limit.set(1)
    assert [limit.is_passed_by(1), limit.is_passed_by(1)] == [False, True]
