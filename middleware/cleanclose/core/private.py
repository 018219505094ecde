"""Private attributes of third parties that we use, and one warning when one is gone."""

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
    """An attribute of a third party that its documentation does not promise.

    Args:
        owner: The class or the module that has it, as a dotted name from the package on.
        attribute: Its name.
        without: What we lose with a version that does not have it.
    """

    owner: str
    attribute: str
    without: str


_SAID: Final[set[Private]] = set()


def say_gone(row: Private) -> None:
    """Warn, once in a process, that an installed version no longer has an attribute.

    The line looks like an event's, and goes where `StructlogOutlet` writes. This never raises: the
    request continues without the attribute.

    Args:
        row: The attribute that is gone.
    """
    if row in _SAID:
        return
    _SAID.add(row)
    fields: dict[str, object] = dataclasses.asdict(row)
    # Logging may be configured to do anything.
    with contextlib.suppress(Exception):
        StructlogOutlet(flood=None).write(logging.WARNING, GONE, fields, None)
