"""The fuzzing's own drivers: dice for hypothesis' strategies, and machines that fail."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz import shims, tables
from tests.fuzz.dice import drawn

_STRATEGIES: list[tuple[st.SearchStrategy[Any], set[Any]]] = [
    (st.sampled_from([1, 2]), {1, 2}),
    (st.sampled_from([1, 2]).map(str), {"1", "2"}),
    (st.integers(0, 2), {0, 1, 2}),
    (st.none() | st.just(1), {None, 1}),
    (st.lists(st.booleans(), max_size=1).map(tuple), {(), (True,), (False,)}),
    (st.tuples(st.just(1), st.booleans()), {(1, True), (1, False)}),
    (st.builds(complex, st.integers(1, 2), imag=st.just(3)), {1 + 3j, 2 + 3j}),
]


@pytest.mark.parametrize(("strategy", "all_of_it"), _STRATEGIES, ids=range(len(_STRATEGIES)))
def test_the_dice_come_to_every_value(strategy: Any, all_of_it: set[Any]) -> None:
    draw, dice = drawn(strategy), Random(1)
    assert {draw(dice) for _ in range(200)} == all_of_it


def test_the_dice_come_to_the_ends_of_an_interval() -> None:
    draw, dice = drawn(st.floats(0, 40, allow_nan=False)), Random(1)
    found = {draw(dice) for _ in range(200)}
    assert {0.0, 40.0} < found
    assert len(found) > 100


def test_what_is_recursive_has_a_depth() -> None:
    def depth(it: Any) -> int:
        return 1 + max(map(depth, it), default=0)

    draw, dice = drawn(st.recursive(st.just(()), lambda it: st.tuples(it, it))), Random(1)
    assert {depth(draw(dice)) for _ in range(500)} == {1, 2, 3, 4, 5}


def test_no_dice_for_what_no_test_uses() -> None:
    with pytest.raises(TypeError, match="no dice"):
        drawn(st.text())


class _Counts(RuleBasedStateMachine):
    @initialize(most=st.just(3))
    def begin(self, most: int) -> None:
        self.count, self.most = 0, most

    @rule()
    def nothing(self) -> None: ...

    @rule(by=st.sampled_from([1]))
    def more(self, by: int) -> None:
        self.count += by

    @precondition(lambda self: self.count)
    @rule()
    def less(self) -> None:
        self.count -= 1

    @invariant()
    def it_has_a_limit(self) -> None:
        assert self.count < self.most


def _failed(machine: tables.Machine) -> Iterator[list[tables.Step]]:
    for number in range(100):
        done: list[tables.Step] = []
        try:
            tables.play(machine, Random(number), done)
        except AssertionError:
            yield done


def test_of_an_example_that_fails_only_what_it_takes_is_left() -> None:
    machine = tables.machine_of(_Counts)
    done = next(_failed(machine))
    assert len(done) > 4
    assert [str(step) for step in tables.fewest(machine, done)] == [
        "begin(most=3)",
        *["more(by=1)"] * 3,
    ]


def test_every_table_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.tables(300, seed=1)
    said = capsys.readouterr().out
    for name in ("ExchangeMachine", "LingerMachine", "PlacesMachine", "ExchangeEndMachine"):
        assert f"{name}: 3" in said
    assert said.count("test_") == 3


@pytest.mark.parametrize("name", ["ASGI", "WSGI"])
def test_conversations_have_numbers(name: str) -> None:
    assert shims.shims(100, seed=1, only=[name])
    shim = next(each for each in shims.SHIMS if each.name == name)
    assert shims.conversation_of(shim, 1, 7) == shims.conversation_of(shim, 1, 7)
    assert shims.conversation_of(shim, 1, 7) != shims.conversation_of(shim, 1, 8)
