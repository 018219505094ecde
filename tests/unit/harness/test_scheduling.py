"""How the tests of a run are put together for its workers."""

from __future__ import annotations

from itertools import groupby

from tests.harness.scheduling import MOST, parts


def ids(file: str, number: int) -> list[str]:
    return [f"tests/{file}.py::test_it[{each}::x]" for each in range(number)]


def test_a_file_stays_together_if_it_is_not_large() -> None:
    few, some = ids("few", 3), ids("some", MOST)
    found = parts([*some, *few])
    assert len({found[each] for each in some}) == 1
    assert {found[each] for each in some}.isdisjoint(found[each] for each in few)


def test_a_large_file_is_parts_of_neighbours_that_are_as_large_as_each_other() -> None:
    many = ids("many", 2 * MOST + 1)
    # Those of another file may stand in between: the slow ones are not the first of theirs.
    nodeids = [*many[:MOST], *ids("few", 3), *many[MOST:]]
    found = parts(nodeids)
    sizes = [len(list(group)) for _, group in groupby(found[each] for each in many)]
    assert sizes == [41, 40, 40]


def test_each_test_is_in_one_part() -> None:
    nodeids = [*ids("a", 200), *ids("b", 1)]
    assert list(parts(nodeids)) == nodeids
    assert parts([]) == {}
