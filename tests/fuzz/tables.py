"""The state machines of the unit tests, step by step, with dice in place of hypothesis.

A machine's rules, preconditions and invariants are those that hypothesis would use. Each example
leaves some rules out, so that those that end everything do not end every example early. Of an
example that fails, steps are left out until none can be.
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hypothesis.stateful import RuleBasedStateMachine

from tests.fuzz.dice import Draw, drawn

__all__ = ["MACHINES", "Machine", "Step", "fewest", "machine_of", "play", "tables"]

_CORE: Final = "tests.unit.core"
MACHINES: Final = (
    f"{_CORE}.deliver.test_exchange:ExchangeMachine",
    f"{_CORE}.deliver.test_linger:LingerMachine",
    f"{_CORE}.deliver.test_places:PlacesMachine",
    f"{_CORE}.blame.test_any_order:ExchangeEndMachine",
)
"""Where the machines are."""
_ERRORS: Final = f"{_CORE}.blame.test_any_order:TestAnyOrderOfErrors"
"""Where the tests of the judge are: each of its examples counts as one step."""
_LONGEST: Final = 60


@dataclass(frozen=True)
class Step:
    """A rule, or an initializer, and what it is called with."""

    name: str
    function: Any
    preconditions: Sequence[Any]
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={it!r}' for name, it in self.arguments.items())})"


@dataclass(frozen=True)
class _Rule:
    function: Any
    preconditions: Sequence[Any]
    draws: dict[str, Draw]

    def step(self, dice: Random) -> Step:
        arguments = {name: draw(dice) for name, draw in self.draws.items()}
        return Step(self.function.__name__, self.function, self.preconditions, arguments)


@dataclass(frozen=True)
class Machine:
    """A machine's class, taken apart."""

    made: type[RuleBasedStateMachine]
    begins: Sequence[_Rule]
    rules: Sequence[_Rule]
    invariants: Sequence[Any]


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def machine_of(made: type[RuleBasedStateMachine]) -> Machine:
    """Take a machine apart.

    Args:
        made: Its class.
    """
    found: Any = made.setup_state()
    assert all(not rule.bundles and not rule.targets for rule in found.rules), "it has bundles"

    def rule(each: Any) -> _Rule:
        draws = {name: drawn(it) for name, it in each.arguments_strategies.items()}
        return _Rule(each.function, tuple(each.preconditions), draws)

    return Machine(
        made,
        [rule(each) for each in found.initializers],
        [rule(each) for each in found.rules],
        [
            (each.function, tuple(each.preconditions), each.check_during_init)
            for each in found.invariants
        ],
    )


def play(machine: Machine, dice: Random, done: list[Step]) -> None:
    """One example.

    Args:
        machine: Whose.
        dice: What decides.
        done: Where each step is noted before it is taken.

    Raises:
        BaseException: Whatever a step or an invariant raises.
    """
    it = machine.made()
    rules = _some(machine.rules, dice)
    for begin in machine.begins:
        _take(it, begin.step(dice), done)
    _check(it, machine)
    for _ in range(dice.randrange(1, _LONGEST)):
        rule = dice.choice(rules)
        if not _may(it, rule.preconditions):
            able = [each for each in rules if _may(it, each.preconditions)]
            if not able:
                rules = machine.rules
                continue
            rule = dice.choice(able)
        _take(it, rule.step(dice), done)
        _check(it, machine)
    it.teardown()


def _some(rules: Sequence[_Rule], dice: Random) -> Sequence[_Rule]:
    share = dice.choice((0.3, 0.6, 1.0, 1.0))
    return [each for each in rules if dice.random() < share] or rules


def _may(it: RuleBasedStateMachine, preconditions: Sequence[Any]) -> bool:
    return all(condition(it) for condition in preconditions)


def _take(it: RuleBasedStateMachine, step: Step, done: list[Step]) -> None:
    done.append(step)
    step.function(it, **step.arguments)


def _check(it: RuleBasedStateMachine, machine: Machine) -> None:
    for function, preconditions, _ in machine.invariants:
        if _may(it, preconditions):
            function(it)


def _fails(machine: Machine, steps: Sequence[Step]) -> str | None:
    """What goes wrong with these steps, of which those are left out that are not possible."""
    it = machine.made()
    try:
        for step in steps:
            if _may(it, step.preconditions):
                step.function(it, **step.arguments)
                _check(it, machine)
        it.teardown()
    except Exception:  # noqa: BLE001 - whatever it raises is a finding
        return traceback.format_exc()
    return None


def fewest(machine: Machine, steps: Sequence[Step]) -> Sequence[Step]:
    """The steps that it takes to fail.

    Args:
        machine: Whose.
        steps: What has failed.
    """
    kept = list(steps)
    size = len(kept) // 2
    while size:
        place = len(machine.begins)
        while place < len(kept):
            fewer = kept[:place] + kept[place + size :]
            if _fails(machine, fewer):
                kept = fewer
            else:
                place += size
        size //= 2
    return kept


def tables(steps: int, seed: int, first: int = 0) -> bool:
    """Take so many steps with each machine; whether all goes well.

    Args:
        steps: How many.
        seed: Of all of them.
        first: The number of the first example.
    """
    good = True
    for place in MACHINES:
        machine = machine_of(_named(place))
        good = _steps(machine, steps, seed, first) and good
    return _errors(steps, seed, first) and good


def _steps(machine: Machine, steps: int, seed: int, first: int) -> bool:
    began = time.monotonic()
    name = machine.made.__name__
    taken, number = 0, first
    while taken < steps:
        done: list[Step] = []
        try:
            play(machine, Random(f"{name}-{seed}-{number}"), done)
        except Exception:  # noqa: BLE001 - whatever it raises is a finding
            few = fewest(machine, done)
            print(f"{name} {seed}-{number} goes wrong:", *few, sep="\n  ")
            print(_fails(machine, few) or "… and not when it is played again", flush=True)
            return False
        taken += len(done)
        number += 1
    _say(name, taken, number - first, began)
    return True


def _errors(steps: int, seed: int, first: int) -> bool:
    """What is judged, with no steps in between."""
    made: Any = _named(_ERRORS)
    tests: Any = made()
    good = True
    for name in sorted(name for name in dir(tests) if name.startswith("test_")):
        began = time.monotonic()
        handle = getattr(made, name).hypothesis
        draws = {key: drawn(it) for key, it in handle._given_kwargs.items()}
        for number in range(first, first + steps // 3):
            dice = Random(f"{name}-{seed}-{number}")
            arguments = {key: draw(dice) for key, draw in draws.items()}
            try:
                handle.inner_test(tests, **arguments)
            except Exception:  # noqa: BLE001 - whatever it raises is a finding
                traceback.print_exc()
                print(f"{name} {seed}-{number} goes wrong: {arguments}", flush=True)
                good = False
                break
        else:
            _say(name, steps // 3, steps // 3, began)
    return good


def _say(name: str, steps: int, examples: int, began: float) -> None:
    seconds = max(time.monotonic() - began, 1e-3)
    print(
        f"{name}: {steps} steps in {examples} examples, {seconds:.0f} s, {steps / seconds:.0f} a s",
        flush=True,
    )
