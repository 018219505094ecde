"""What hides something: an application's error behind its client's, and an attribute from our code.

``HIDES`` and ``ASYNC_HIDES`` fail while something of the client's is read or written, which may
fail as well.

``hide`` gives a third party's attribute another name: for our code it is gone, for theirs it is
there. ``TEST_HIDE`` is ``owner:attribute``, as `cleanclose.core.private.Private` has them;
``hide_one`` does that where the application is imported, which is in the process that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from types import ModuleType
from typing import Any, Final

__all__ = ["ASYNC_HIDES", "HIDE", "HIDES", "bug", "hide", "hide_one"]

HIDE: Final = "TEST_HIDE"


def bug() -> None:
    """The application's own error."""
    orders: dict[str, str] = {}
    orders["order"]


def _in_finally(use: Callable[[], object]) -> None:
    try:
        bug()
    finally:
        use()


@contextlib.contextmanager
def _using(use: Callable[[], object]) -> Generator[None]:
    try:
        yield
    finally:
        use()


def _in_with(use: Callable[[], object]) -> None:
    with _using(use):
        bug()


def _in_except(use: Callable[[], object]) -> None:
    try:
        bug()
    except Exception:
        use()
        raise


def _in_except_of_its_class(use: Callable[[], object]) -> None:
    try:
        bug()
    except KeyError:
        use()
        raise


def _from_none(use: Callable[[], object]) -> None:
    try:
        bug()
    finally:
        try:
            use()
        except OSError as error:
            raise error from None


def _in_a_group(use: Callable[[], object]) -> None:
    try:
        bug()
    finally:
        try:
            use()
        except OSError as error:
            raise ExceptionGroup("tasks", [error]) from None


HIDES: Final[Mapping[str, Callable[[Callable[[], object]], None]]] = {
    "finally": _in_finally,
    "with": _in_with,
    "except": _in_except,
    "except-class": _in_except_of_its_class,
    "from-none": _from_none,
    "group": _in_a_group,
}
"""By construct: fails with `bug`, and calls what it is given meanwhile."""

Use = Callable[[], Awaitable[object]]


async def _async_in_finally(use: Use) -> None:
    try:
        bug()
    finally:
        await use()


@contextlib.asynccontextmanager
async def _async_using(use: Use) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await use()


async def _async_in_with(use: Use) -> None:
    async with _async_using(use):
        bug()


async def _async_in_except(use: Use) -> None:
    try:
        bug()
    except Exception:
        await use()
        raise


async def _async_from_none(use: Use) -> None:
    try:
        bug()
    finally:
        try:
            await use()
        except Exception as error:
            raise error from None


async def _async_in_a_group(use: Use) -> None:
    try:
        bug()
    finally:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_awaited(use))


async def _awaited(use: Use) -> None:
    await use()


ASYNC_HIDES: Final[Mapping[str, Callable[[Use], Awaitable[None]]]] = {
    "finally": _async_in_finally,
    "aexit": _async_in_with,
    "except": _async_in_except,
    "from-none": _async_from_none,
    "group": _async_in_a_group,
}
"""The same for what is awaited."""


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
    original: Any = found.__getattribute__

    def getattribute(self: object, name: str) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__")  # pyright: ignore[reportPrivateUsage]
        if name == attribute and _is_ours(caller):
            raise AttributeError(name)
        return original(self, name)

    setattr(found, "__getattribute__", getattribute)  # noqa: B010 - found is Any


def _find(owner: str) -> Any:
    try:
        return importlib.import_module(owner)
    except ImportError:
        module, _, name = owner.rpartition(".")
        return getattr(importlib.import_module(module), name)


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
