"""What others do not promise, and we use all the same: said once when it is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Final

from cleanclose.core.tell.lines import StructlogOutlet

__all__ = ["GONE", "Private", "say_gone"]

GONE: Final = "attribute_gone"
"""The line's name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Private:
    """An attribute of a third party's which its documentation does not promise.

    Args:
        owner: The class that has it, or the module, with dots from the package on.
        attribute: Its name.
        without: What is no more if a version of theirs does not have it.
    """

    owner: str
    attribute: str
    without: str


_SAID: Final[set[Private]] = set()


def say_gone(row: Private) -> None:
    """Write a warning, once in a process: a version has come that has another name for something.

    It is a line like an event's, and goes where `StructlogOutlet` writes. Never raises: the
    request is served without.

    Args:
        row: What is gone.
    """
    if row in _SAID:
        return
    _SAID.add(row)
    fields: dict[str, object] = dataclasses.asdict(row)
    # Whatever logging is configured to do.
    with contextlib.suppress(Exception):
        StructlogOutlet(flood=None).write(logging.WARNING, GONE, fields, None)
