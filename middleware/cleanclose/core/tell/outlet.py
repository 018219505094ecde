"""The definition of an outlet, and the check of a user's outlets."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol, cast

from cleanclose.core.events import Event

__all__ = ["Outlet", "callables"]


class Outlet(Protocol):
    """Something that receives events. It is called in the request's own thread or task."""

    def __call__(self, event: Event, /) -> None:
        """Receive one event.

        Whatever it raises is counted and reported once, even if it is not an `Exception`. Only
        interruptions from outside go on: a signal handler's exception, a greenlet's end.
        """


def callables(name: str, given: Iterable[object]) -> tuple[Any, ...]:
    """Return the outlets, if each can be called and needs no await."""
    if not isinstance(cast("object", given), Iterable):
        raise TypeError(f"{name} must be a collection of callables, not {given!r}")
    found = tuple(given)
    for number, each in enumerate(found):
        if not callable(each):
            raise TypeError(f"{name}[{number}] must be callable, not {each!r}")
        if inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(
            getattr(each, "__call__", None)  # noqa: B004 - the method itself is needed
        ):
            raise TypeError(f"{name}[{number}] must not be asynchronous: nobody awaits {each!r}")
    return found
