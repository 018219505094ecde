"""What ``make test`` runs, and what only ``make test-all`` does: one rule, and nobody's choice.

``make test`` runs each value of each parameter of a test once: every client, every scenario, every
framing, but not each with each. Servers are dear: what a run costs is how many of them it starts.
So each of them is there once for a promise (a folder), and once in its negative controls, with
tests that take turns; each proxy, once in a file. ``make test-all`` runs all combinations. So every
test function is run by both, and a new one needs no mark.

Of the combinations of one test, in the order of their parameters, the one with the most values
that have not been there yet is taken next, of equals the one whose server has been there least,
until none brings a new one. The others are marked ``full``. Units are never marked: they take no
time. A test may be marked ``full`` by hand where all of it says nothing about a change (an
installation from the package index), and a value of a parameter where each takes ten seconds or
more and others of the same kind remain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.stacks import Stack

__all__ = ["Value", "mark_what_only_a_full_run_needs", "needed"]


class Value(NamedTuple):
    """A parameter's name and one of its values."""

    name: str
    value: str
    is_server: bool = False


_FOLDERS: Final = ("tests/promises/", "tests/tools/")
_SERVERS: Final = ("server", "stack", "row")
"""Parameters whose values are servers; others are if they are a `Stack`."""
_OF_A_FILE: Final = ("proxy",)
"""Servers as well, but each file wants all of its own."""


def needed(combinations: Sequence[Iterable[Value]], seen: Counter[Value]) -> set[int]:
    """The places of combinations that have each value at least once.

    Args:
        combinations: The parameters' values of each.
        seen: How often each server has been chosen for the tests before; counted on.
    """
    left = {place: frozenset(values) for place, values in enumerate(combinations)}
    wanted: set[Value] = {value for values in left.values() for value in values}
    wanted -= {value for value in wanted if seen[value]}
    taken: set[int] = set()
    while left and (wanted or not taken):
        # `max` takes the first of equals: every process of a run makes the same choice.
        place = max(
            left,
            key=lambda place: (len(left[place] & wanted), -sum(map(seen.__getitem__, left[place]))),
        )
        values = left.pop(place)
        wanted -= values
        seen.update(value for value in values if value.is_server)
        taken.add(place)
    return taken


def mark_what_only_a_full_run_needs(items: Iterable[pytest.Item]) -> None:
    """Give the mark ``full`` to the combinations that bring no new value."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.nodeid.startswith(_FOLDERS):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    seen: dict[tuple[Path, bool], Counter[Value]] = {}
    # The servers that one promise has been seen to hold on, whichever file has looked.
    for combinations in tests.values():
        combinations = [each for each in combinations if not each.get_closest_marker("full")]
        if not combinations:
            continue
        first = combinations[0]
        is_control = first.get_closest_marker("negative_control") is not None
        in_folder = seen.setdefault((first.path.parent, is_control), Counter())
        chosen = needed([_values(item) for item in combinations], in_folder)
        for place, item in enumerate(combinations):
            if place not in chosen:
                item.add_marker(pytest.mark.full)


def _values(item: pytest.Item) -> frozenset[Value]:
    spec: object = getattr(item, "callspec", None)
    params: dict[str, object] = getattr(spec, "params", {})
    values: set[Value] = set()
    for name, value in params.items():
        is_of_a_file = name in _OF_A_FILE
        words = f"{item.path.name}: {value!r}" if is_of_a_file else _words_for(value)
        is_server = is_of_a_file or name in _SERVERS or isinstance(value, Stack)
        values.add(Value(name, words, is_server))
    return frozenset(values)


_WORDS: Final[dict[int, tuple[object, str]]] = {}
"""By the id of a value, which is kept, so that no other gets its id: thousands of tests share a few
values, and writing out a server and its scenarios takes long."""


def _words_for(value: object) -> str:
    if id(value) not in _WORDS:
        _WORDS[id(value)] = (value, repr(value))
    return _WORDS[id(value)][1]
