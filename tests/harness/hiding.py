"""A third party's attribute goes by another name: for our code it is gone, for theirs it is there.

``TEST_HIDE`` is ``owner:attribute``, as `cleanclose.core.private.Private` has them; ``hide_one``
does that where the application is imported, which is in the process that serves.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any, Final

__all__ = ["HIDE", "hide", "hide_one"]

HIDE: Final = "TEST_HIDE"


def hide_one() -> None:
    """Hide what the environment names, if it names anything."""
    owner, _, attribute = os.environ.get(HIDE, "").partition(":")
    if owner:
        hide(owner, attribute)


def hide(owner: str, attribute: str) -> None:
    """Let this process's cleanclose find no such attribute.

    Args:
        owner: The class, or the module.
        attribute: Its name.
    """
    found = _find(owner)
    if isinstance(found, ModuleType):
        _rename(found, attribute)
        return
    # Also from whoever asks the class itself, and not an object of it.
    whole: Any = getattr(found, attribute) if _is_asked_of_the_class(found) else None
    if whole is not None:
        delattr(found, attribute)
    original: Any = found.__getattribute__

    def getattribute(self: object, name: str) -> Any:
        if name == attribute:
            if _is_ours(sys._getframe(1).f_globals.get("__name__")):  # pyright: ignore[reportPrivateUsage]
                raise AttributeError(name)
            if whole is not None and name not in type(self).__dict__:
                return whole.__get__(self)
        return original(self, name)

    setattr(found, "__getattribute__", getattribute)  # noqa: B010 - found is Any


def _find(owner: str) -> Any:
    try:
        return importlib.import_module(owner)
    except ImportError:
        module, _, name = owner.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _is_asked_of_the_class(cls: Any) -> bool:
    return bool(cls.__module__ == "tornado.web")


def _is_ours(module: object) -> bool:
    return str(module).partition(".")[0] == "cleanclose"


def _rename(module: ModuleType, attribute: str) -> None:
    class Renamed(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            caller = sys._getframe(1).f_globals.get("__name__")  # pyright: ignore[reportPrivateUsage]
            if name == attribute and _is_ours(caller):
                raise AttributeError(name)
            return super().__getattribute__(name)

    module.__class__ = Renamed
