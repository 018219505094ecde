"""Values of hypothesis' strategies, drawn with plain dice.

Hypothesis keeps a record of each draw, so that it can shrink what fails. That takes most of the
time of a state machine whose steps are short: here a step costs a thirtieth of it. What fails has a
number instead, and `tests.fuzz.tables` and `tests.fuzz.shims` make it smaller in their own words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any, Final, cast

from hypothesis import strategies as st
from hypothesis.strategies._internal import lazy

__all__ = ["Draw", "drawn"]

Draw = Callable[[Random], Any]
_DEEPEST: Final = 4
_OFTEN_EXTREME: Final = 0.15
"""How often a number is the smallest or the largest one: that is where rules have their edges."""


def drawn(strategy: st.SearchStrategy[Any]) -> Draw:
    """What draws a strategy's values.

    Args:
        strategy: One of the kinds that the tests of this repository use.

    Raises:
        TypeError: It is of another kind.
    """
    return _drawn(strategy, {})


def _drawn(strategy: st.SearchStrategy[Any], begun: dict[int, Draw]) -> Draw:
    plain: Any = cast("Any", lazy).unwrap_strategies(strategy)
    if id(plain) in begun:
        return begun[id(plain)]
    kind = type(plain).__name__
    if kind not in _KINDS:
        raise TypeError(f"no dice for {kind}: {strategy!r}")
    draw = _KINDS[kind](plain, begun)
    for what, function, _ in getattr(plain, "_transformations", ()):
        draw = {"map": _mapped, "filter": _filtered}[what](draw, function)
    return draw


def _mapped(draw: Draw, function: Callable[[Any], Any]) -> Draw:
    return lambda dice: function(draw(dice))


def _filtered(draw: Draw, condition: Callable[[Any], Any]) -> Draw:
    def filtered(dice: Random) -> Any:
        while not condition(value := draw(dice)):
            pass
        return value

    return filtered


def _sampled(strategy: Any, begun: dict[int, Draw]) -> Draw:
    del begun
    elements = tuple(strategy.elements)
    return lambda dice: dice.choice(elements)


def _booleans(strategy: Any, begun: dict[int, Draw]) -> Draw:
    del strategy, begun
    return lambda dice: dice.random() < 0.5


def _integers(strategy: Any, begun: dict[int, Draw]) -> Draw:
    del begun
    least: int = strategy.start
    most: int = strategy.end

    def integer(dice: Random) -> int:
        if dice.random() < _OFTEN_EXTREME:
            return dice.choice((least, most))
        return dice.randint(least, most)

    return integer


def _floats(strategy: Any, begun: dict[int, Draw]) -> Draw:
    del begun
    least: float = strategy.min_value
    most: float = strategy.max_value

    def number(dice: Random) -> float:
        if dice.random() < _OFTEN_EXTREME:
            return dice.choice((least, most))
        return dice.uniform(least, most)

    return number


def _one_of(strategy: Any, begun: dict[int, Draw]) -> Draw:
    draws = [_drawn(each, begun) for each in strategy.original_strategies]
    return lambda dice: dice.choice(draws)(dice)


def _tuples(strategy: Any, begun: dict[int, Draw]) -> Draw:
    draws = [_drawn(each, begun) for each in strategy.element_strategies]
    return lambda dice: tuple([draw(dice) for draw in draws])


def _lists(strategy: Any, begun: dict[int, Draw]) -> Draw:
    draw = _drawn(strategy.element_strategy, begun)
    least, most = strategy.min_size, strategy.max_size
    return lambda dice: [draw(dice) for _ in range(dice.randint(least, most))]


def _built(strategy: Any, begun: dict[int, Draw]) -> Draw:
    target = strategy.target
    args = [_drawn(each, begun) for each in strategy.args]
    kwargs = {name: _drawn(each, begun) for name, each in strategy.kwargs.items()}
    return lambda dice: target(
        *[draw(dice) for draw in args], **{name: draw(dice) for name, draw in kwargs.items()}
    )


def _recursive(strategy: Any, begun: dict[int, Draw]) -> Draw:
    depth = 0

    def either(dice: Random) -> Any:
        nonlocal depth
        if depth == _DEEPEST or dice.random() < 0.35 + 0.1 * depth:
            return shallow(dice)
        depth += 1
        try:
            return deep(dice)
        finally:
            depth -= 1

    shallow = _drawn(strategy.base, begun)
    deep = _drawn(strategy.extend(strategy), {**begun, id(strategy): either})
    return either


class _Drawer:
    """As hypothesis' ``DataObject``, for rules that draw themselves."""

    def __init__(self, dice: Random) -> None:
        # Its own: what a rule draws stays the same when other steps are left out.
        self._seed = dice.random()

    def __repr__(self) -> str:
        return "data"

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return _kept(strategy)(Random(self._seed))


_kept = lru_cache(256)(drawn)


def _data(strategy: Any, begun: dict[int, Draw]) -> Draw:
    del strategy, begun
    return _Drawer


_KINDS: Final[dict[str, Callable[[Any, dict[int, Draw]], Draw]]] = {
    "SampledFromStrategy": _sampled,
    "JustStrategy": _sampled,
    "BooleansStrategy": _booleans,
    "IntegersStrategy": _integers,
    "FloatStrategy": _floats,
    "OneOfStrategy": _one_of,
    "TupleStrategy": _tuples,
    "ListStrategy": _lists,
    "BuildsStrategy": _built,
    "RecursiveStrategy": _recursive,
    "DataStrategy": _data,
    "MappedStrategy": lambda it, begun: _mapped(_drawn(it.mapped_strategy, begun), it.pack),
}
