"""When a reading has found the end of its stream, and when it has to ask again."""

from __future__ import annotations

import pytest

from cleanclose.core.blame.reading import (
    ends_lines,
    ends_part,
    ends_read,
    line_lacks,
    read_lacks,
)


@pytest.mark.parametrize(
    ("size", "asked", "left", "ends", "lacks"),
    [
        # All there is: whatever it brings, the end is behind it.
        (0, None, 10, True, 0),
        (10, None, 10, True, 0),
        (5, -1, None, True, 0),
        # So much of a body whose length is known.
        (10, 10, 10, False, 0),
        (10, 20, 10, False, 0),
        (4, 4, 10, False, 0),
        (4, 20, 10, True, 6),
        (4, 6, 10, True, 2),
        (0, 6, 10, True, 0),
        (0, 0, 10, False, 0),
        # So much of one whose end alone tells.
        (4, 20, None, False, 0),
        (0, 20, None, True, 0),
        (0, 0, None, False, 0),
    ],
)
def test_a_read(size: int, asked: int | None, left: int | None, ends: bool, lacks: int) -> None:
    assert ends_read(size, asked, left) is ends
    assert read_lacks(size, asked, left) == lacks


@pytest.mark.parametrize(
    ("size", "asked", "ends"),
    [(0, None, True), (0, 5, True), (0, -1, True), (0, 0, False), (1, 5, False), (1, None, False)],
)
def test_a_reading_that_may_bring_less(size: int, asked: int | None, ends: bool) -> None:
    assert ends_part(size, asked) is ends


@pytest.mark.parametrize(
    ("size", "hint", "ends"),
    [(5, None, True), (5, 0, True), (5, -1, True), (5, 6, True), (6, 6, False), (9, 6, False)],
)
def test_lines(size: int, hint: int | None, ends: bool) -> None:
    assert ends_lines(size, hint) is ends


@pytest.mark.parametrize(
    ("line", "limit", "left", "lacks"),
    [
        (b"one\n", None, 10, False),
        (b"one", None, 10, True),
        (b"one", -1, 10, True),
        (b"one", 3, 10, False),
        (b"one", 4, 10, True),
        # The last one.
        (b"one", None, 3, False),
    ],
)
def test_a_line(line: bytes, limit: int | None, left: int, lacks: bool) -> None:
    assert line_lacks(line, limit, left) is lacks
