"""When a reading of a request's body, on a blocking server, has found the end of its stream.

A ``wsgi.input`` reads like a file (PEP 3333). But some servers' streams return what they have got
already, and not all that was asked for: then only another reading shows whether that was the end.
"""

from __future__ import annotations

__all__ = ["ends_lines", "ends_part", "ends_read", "line_lacks", "read_lacks"]


def ends_part(size: int, asked: int | None) -> bool:
    """Whether it has, for a reading that may bring less than it was asked for.

    Args:
        size: How many bytes it has brought.
        asked: For how many it asked; None or a negative number for all there are.
    """
    return size == 0 and asked != 0


def ends_read(size: int, asked: int | None, left: int | None) -> bool:
    """Whether it has, for a ``read`` that has been asked again for what it lacked.

    Args:
        size: As `ends_part`'s.
        asked: As `ends_part`'s.
        left: Bytes of the body that were still to come; None if only its end tells its length.
    """
    if asked is None or asked < 0:
        return True
    return ends_part(size, asked) if left is None else size < min(asked, left)


def ends_lines(size: int, hint: int | None) -> bool:
    """Whether it has, for ``readlines``.

    Args:
        size: How many bytes the lines have.
        hint: After how many it stops; None, or less than 1, for no limit.
    """
    return hint is None or hint <= 0 or size < hint


def read_lacks(size: int, asked: int | None, left: int | None) -> int:
    """How many bytes a ``read`` has to ask for again, since it came short.

    Args:
        size: As `ends_read`'s. One that has brought nothing has found the end.
        asked: As `ends_read`'s.
        left: As `ends_read`'s.
    """
    if size == 0 or asked is None or asked < 0 or left is None:
        return 0
    return max(0, min(asked, left) - size)


def line_lacks(line: bytes, limit: int | None, left: int) -> bool:
    """Whether ``readline`` has brought only what the server had of a line.

    Args:
        line: What it has brought.
        limit: How many bytes it may bring; None, or a negative number, for any number.
        left: Bytes of the body that were still to come: its last line need have no end.
    """
    if line.endswith(b"\n") or len(line) >= left:
        return False
    return limit is None or limit < 0 or len(line) < limit
