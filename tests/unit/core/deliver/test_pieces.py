"""Which pieces of a response wait for what comes behind them."""

from __future__ import annotations

import pytest

from cleanclose.core.deliver.pieces import (
    Source,
    Taking,
    may_block,
    may_wait,
    taking_of,
)
from cleanclose.core.server import Continue, Server

ANY = Server("any", Continue.LAZY)
ENDS_WITH_IT = Server("ends with its response", Continue.LAZY, ends_with_response=True)


@pytest.mark.parametrize(
    ("source", "size", "server", "waits"),
    [
        (Source.ITERATOR, 1, ANY, True),
        (Source.ITERATOR, 0, ANY, False),
        (Source.ITERATOR, 0, ENDS_WITH_IT, True),
        (Source.THERE, 0, ANY, True),
        (Source.GENERATOR, 1, ANY, False),
        (Source.GENERATOR, 0, ENDS_WITH_IT, False),
    ],
)
def test_who_may_be_at_work_for_long_keeps_nothing_back(
    source: Source, size: int, server: Server, waits: bool
) -> None:
    assert may_wait(source, size, server) is waits


@pytest.mark.parametrize(
    ("unsent", "blocks"), [(0, False), (64 * 1024, False), (64 * 1024 + 1, True)]
)
def test_a_response_larger_than_the_buffers_may_block(unsent: int, blocks: bool) -> None:
    assert may_block(unsent) is blocks
    assert may_block(None)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("source", "taking"),
    [
        (Source.THERE, Taking.ALL),
        (Source.FILE, Taking.BY_SERVER),
        (Source.GENERATOR, Taking.ONE_BY_ONE),
        (Source.ITERATOR, Taking.ONE_BY_ONE),
    ],
)
def test_how_pieces_are_taken(source: Source, taking: Taking, begun: bool) -> None:
    assert taking_of(source, begun=begun) is (taking if begun else Taking.ONE_BY_ONE)
