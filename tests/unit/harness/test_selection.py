"""The rule that says what ``make test`` leaves to ``make test-all``."""

from __future__ import annotations

from itertools import product

from tests.harness.selection import needed


def test_each_value_is_there_and_not_each_with_each() -> None:
    servers, scenarios, framings = "abcdef", "123", (False, True)
    combinations = [
        [("server", server), ("scenario", scenario), ("chunked", str(framing))]
        for server, scenario, framing in product(servers, scenarios, framings)
    ]
    chosen = needed(combinations)
    assert len(chosen) == len(servers)
    assert {value for place in chosen for value in combinations[place]} == {
        value for values in combinations for value in values
    }


def test_one_without_parameters_is_taken() -> None:
    assert needed([[("a", "1")]]) == {0}
    assert needed([[]]) == set()
