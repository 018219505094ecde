"""Reads attributes of a server's objects, which may belong to another version of the server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any, Final

from cleanclose.core.private import say_gone

__all__ = ["MISSING", "find", "frames_of_all_threads", "gone", "number"]

MISSING: Final = object()
"""What `find` returns if it finds nothing."""


def find(owner: object, *paths: str) -> Any:
    """The value of the first of these attributes that an object has.

    Args:
        owner: The object.
        *paths: Attributes, with dots.

    Returns:
        `MISSING` if it has none. If a newer version has lost the attribute, one log line says so.
    """
    for path in paths:
        found: Any = owner
        try:
            for name in path.split("."):
                found = getattr(found, name)
        except AttributeError:
            continue
        return found
    for path in paths:
        gone(owner, path)
    return MISSING


def gone(owner: object, path: str) -> bool:
    """Report that an object lacks an attribute, if it should have it.

    Args:
        owner: The object.
        path: The attribute, with dots.

    Returns:
        Whether it should have it.
    """
    # The rooms import this module.
    from cleanclose.servers._private import TABLE

    for name in path.split("."):
        found: object = getattr(owner, name, MISSING)
        if found is MISSING:
            rows = [TABLE[each, name] for each in _names(owner) if (each, name) in TABLE]
            for row in rows:
                say_gone(row)
            return bool(rows)
        owner = found
    return False


def _names(owner: object) -> Iterator[str]:
    if isinstance(owner, ModuleType):
        yield owner.__name__
    kind: type = owner if isinstance(owner, type) else type(owner)
    for cls in kind.__mro__:
        yield f"{cls.__module__}.{cls.__qualname__}"


def number(owner: object, path: str) -> int | None:
    """A number that a server's object holds; None without one.

    Args:
        owner: The object.
        path: The attribute, with dots.
    """
    found = find(owner, path)
    return found if isinstance(found, int) else None


def frames_of_all_threads() -> Iterator[FrameType]:
    """Get the frames of all threads; none on a Python other than CPython."""
    current_frames: Callable[[], dict[int, FrameType]] | None
    current_frames = getattr(sys, "_current_frames", None)
    for innermost in current_frames().values() if current_frames is not None else ():
        frame: FrameType | None = innermost
        while frame is not None:
            yield frame
            frame = frame.f_back
