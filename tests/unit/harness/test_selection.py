"""The rule that says what ``make test`` leaves to ``make test-all``."""

from __future__ import annotations

from collections import Counter
from itertools import product

from tests.harness.selection import Value, needed

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
