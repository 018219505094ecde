"""The demo of stopped work, on real servers."""

from __future__ import annotations

import pytest

from example_apps import llm_demo

pytestmark = [pytest.mark.stacks, pytest.mark.slow, pytest.mark.full]

CLIENTS = 2
TOKENS = 50


def test_a_block_saves_what_the_others_burn() -> None:
    rows = {mode: llm_demo.measure(mode, clients=CLIENTS, tokens=TOKENS) for mode in llm_demo.MODES}
    for mode in ("bare", "polling"):
        # The control: they go on to the end, whatever they ask.
        assert rows[mode].local_tokens > CLIENTS * TOKENS / 2
        assert rows[mode].remote_tokens > CLIENTS * TOKENS / 2
    assert rows["block"].local_tokens < CLIENTS * TOKENS / 4
    assert rows["block"].remote_tokens < CLIENTS * TOKENS / 4
    assert len(llm_demo.table(list(rows.values())).rows) == len(llm_demo.MODES)
