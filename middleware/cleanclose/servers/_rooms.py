"""Every server's room."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Final

from cleanclose import servers
from cleanclose.servers._room import Room

__all__ = ["ROOMS"]


def _rooms(path: Sequence[str]) -> Iterator[Room]:
    # Found by a search, not from a list, so that a server is one file. It costs an import of
    # cleanclose one listing of a folder.
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            room: Room = importlib.import_module(f"cleanclose.servers.{module.name}").ROOM
            yield room


ROOMS: Final = tuple(_rooms(servers.__path__))
"""By the names of their modules."""
