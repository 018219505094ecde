"""Which tests of a run go to the same worker: those of a file, or of a part of a large one.

A file's tests share servers, so they belong together. But the workers would wait for a file with
hundreds of tests at the end of a run, when nothing else is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

# xdist has no types.
from xdist.scheduler.loadfile import (  # type: ignore[import-untyped]
    LoadFileScheduling,  # pyright: ignore[reportUnknownVariableType, reportMissingTypeStubs]
)

__all__ = ["InParts", "parts"]

MOST: Final = 60
"""Tests of a part: what a server costs that two parts have to start is then nothing beside them."""


class InParts(LoadFileScheduling):  # type: ignore[misc]
    """xdist's ``--dist loadfile``, but with parts of files."""

    _parts: dict[str, str]

    def _split_scope(self, nodeid: str) -> str:
        if not hasattr(self, "_parts"):
            self._parts = parts(self.collection or ())
        return self._parts[nodeid]


def parts(nodeids: Iterable[str]) -> dict[str, str]:
    """The part that each test belongs to: tests of one file that are neighbours.

    Args:
        nodeids: The ids of all tests, in their order.
    """
    files = [(nodeid, nodeid.partition("::")[0]) for nodeid in nodeids]
    sizes = Counter(file for _, file in files)
    places: Counter[str] = Counter()
    found: dict[str, str] = {}
    for nodeid, file in files:
        number = -(-sizes[file] // MOST)
        found[nodeid] = f"{file} {places[file] * number // sizes[file]}"
        places[file] += 1
    return found
