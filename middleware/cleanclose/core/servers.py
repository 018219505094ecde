"""The old place of `cleanclose.core.server` and `cleanclose.servers`: the names still work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanclose.core._old_names import look_up

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        return look_up(name)
