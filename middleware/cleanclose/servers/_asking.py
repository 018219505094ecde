"""How the rooms ask a server's objects, which may be another version's."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["frames_of_all_threads", "number"]


def number(owner: object, attribute: str) -> int | None:
    """A number that a server's object holds.

    Args:
        owner: The object.
        attribute: The attribute, with dots.

    Returns:
        None if there is none, as in another version of the server.
    """
    try:
        found: object = operator.attrgetter(attribute)(owner)
    except AttributeError:
        return None
    return found if isinstance(found, int) else None


def frames_of_all_threads() -> Iterator[FrameType]:
    """The frames of all threads; none where Python is not CPython."""
    current_frames: Callable[[], dict[int, FrameType]] | None
    current_frames = getattr(sys, "_current_frames", None)
    for innermost in current_frames().values() if current_frames is not None else ():
        frame: FrameType | None = innermost
        while frame is not None:
            yield frame
            frame = frame.f_back
