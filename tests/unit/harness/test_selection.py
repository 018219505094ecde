"""The rule that says what ``make test`` leaves to ``make test-all``."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.harness.selection import Value, mark_what_only_a_full_run_needs, needed

SERVERS = [Value("server", server, is_server=True) for server in "abcdef"]
SCENARIOS = [Value("scenario", scenario) for scenario in "123"]
FRAMINGS = [Value("chunked", framing) for framing in ("False", "True")]
COMBINATIONS = list(product(SERVERS, SCENARIOS, FRAMINGS))


def test_each_value_is_there_and_not_each_with_each() -> None:
    chosen = needed(COMBINATIONS, Counter())
    assert len(chosen) == len(SERVERS)
    assert {value for place in chosen for value in COMBINATIONS[place]} == {
        *SERVERS,
        *SCENARIOS,
        *FRAMINGS,
    }


def test_servers_take_turns_in_the_next_tests_of_a_file() -> None:
    seen: Counter[Value] = Counter()
    needed(COMBINATIONS, seen)
    servers: list[str] = []
    for _ in range(2):
        chosen = [COMBINATIONS[place] for place in sorted(needed(COMBINATIONS, seen))]
        assert {value for values in chosen for value in values} >= {*SCENARIOS, *FRAMINGS}
        servers += [server.value for server, _, _ in chosen]
    assert sorted(servers) == list("abcdef")


def test_a_test_is_never_left_out() -> None:
    seen = Counter(dict.fromkeys(SERVERS, 1))
    assert len(needed([[server] for server in SERVERS], seen)) == 1
    assert needed([[]], seen) == {0}


def test_one_that_is_left_to_full_runs_by_hand_brings_no_value() -> None:
    items = [_Item("a", is_full=True), _Item("a"), _Item("b", is_full=True)]
    mark_what_only_a_full_run_needs(cast("list[pytest.Item]", items))
    assert [item.added for item in items] == [0, 0, 0]


class _Item:
    """As much of a test as the rule looks at."""

    def __init__(self, server: str, *, is_full: bool = False) -> None:
        self.nodeid = f"tests/promises/blame/test_one.py::test_it[{server}]"
        self.path = Path("tests/promises/blame/test_one.py")
        self.callspec = SimpleNamespace(params={"server": server})
        self.is_full = is_full
        self.added = 0

    def get_closest_marker(self, name: str) -> object:
        return (self.is_full and name == "full") or None

    def add_marker(self, marker: object) -> None:
        self.added += 1
