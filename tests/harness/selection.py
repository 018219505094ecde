"""What ``make test`` runs, and what only ``make test-all`` does: one rule, and nobody's choice.

``make test`` runs each value of each parameter of a test once: every server, every client, every
scenario, every framing, but not each with each. ``make test-all`` runs all combinations. So every
test function is run by both, and a new one needs no mark.

Of the combinations of one test, in the order of their parameters, the one with the most values
that have not been there yet is taken next, until none brings a new one. The others are marked
``full``. Units are never marked: they take no time. A test may be marked ``full`` by hand where
all of it says nothing about a change (an installation from the package index).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pytest

__all__ = ["mark_what_only_a_full_run_needs", "needed"]

Value = tuple[str, str]
"""A parameter's name and one of its values."""

_FOLDERS: Final = ("tests/promises/", "tests/tools/")


def needed(combinations: Sequence[Iterable[Value]]) -> set[int]:
    """The places of combinations that have each value at least once.

    Args:
        combinations: The parameters' values of each.
    """
    left = {place: frozenset(values) for place, values in enumerate(combinations)}
    wanted: set[Value] = {value for values in left.values() for value in values}
    taken: set[int] = set()
    while wanted:
        # `max` takes the first of equals: every process of a run makes the same choice.
        place = max(left, key=lambda place: len(left[place] & wanted))
        wanted -= left.pop(place)
        taken.add(place)
    return taken


def mark_what_only_a_full_run_needs(items: Iterable[pytest.Item]) -> None:
    """Give the mark ``full`` to the combinations that bring no new value."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.nodeid.startswith(_FOLDERS):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for combinations in tests.values():
        chosen = needed([_values(item) for item in combinations])
        for place, item in enumerate(combinations):
            if place not in chosen and len(combinations) > 1:
                item.add_marker(pytest.mark.full)


def _values(item: pytest.Item) -> frozenset[Value]:
    spec: object = getattr(item, "callspec", None)
    params: dict[str, object] = getattr(spec, "params", {})
    return frozenset((name, repr(value)) for name, value in params.items())
