"""When reading a body calls for it, or puts a 100 into a response."""

from __future__ import annotations

import pytest

from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.server import Continue

ASKS = "100-continue"
CADDY = "1.1 Caddy"


@pytest.mark.parametrize(
    ("sends", "expect", "via", "has_read", "awaited", "before", "into_a_stream"),
    [
        (Continue.LAZY, None, None, False, False, False, False),
        (Continue.LAZY, ASKS, None, False, True, True, True),
        (Continue.LAZY, ASKS, None, True, False, False, False),
        (Continue.LAZY, ASKS, CADDY, False, False, False, False),
        (Continue.LATE, ASKS, None, False, True, True, True),
        (Continue.LATE, ASKS, CADDY, False, False, False, True),
        (Continue.LATE, ASKS, CADDY, True, False, False, False),
        (Continue.EAGER, ASKS, None, False, False, False, False),
        (Continue.EAGER, ASKS, CADDY, False, False, False, False),
    ],
)
def test_what_an_expectation_forbids(
    sends: Continue,
    expect: str | None,
    via: str | None,
    has_read: bool,
    awaited: bool,
    before: bool,
    into_a_stream: bool,
) -> None:
    expectation = Expectation(sends, expect, via, has_read=has_read)
    assert expectation.awaited is awaited
    assert expectation.forbids_reading(streamed=False) is before
    assert expectation.forbids_reading(streamed=True) is into_a_stream
    expectation.met()
    assert not expectation.awaited
    assert not expectation.forbids_reading(streamed=True)
