"""A middleware object that stands for the application which it wraps."""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["Wrapper"]

_COPYING: Final = frozenset(
    {"__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__"}
)
"""Names under which `copy` and `pickle` look for an object's own methods. The application's make no
copy of the middleware."""
_OWN: Final = frozenset({"app", "_serving"})
"""The way to the application: looking for it there would ask for it again."""


class Serving(Protocol):
    """Serves the requests of one application."""

    app: Any
    """The application. Another one may be put in its place."""


class Wrapper:
    """Shows the application's attributes as its own, and can be copied and pickled with it.

    Args:
        serving: The object that does the work. It is one of its own, because a class with
            ``__getattr__`` pays 300 instructions for each look at an attribute.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving: Any = serving
        self._begin()

    @property
    def app(self) -> Any:
        """The wrapped application. Another one may be put in its place."""
        return self._serving.app

    @app.setter
    def app(self, app: Any) -> None:
        self._serving.app = app

    def _begin(self) -> None:
        """Do what each object does once, a copy as well. Subclasses implement it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a copy, in another process maybe."""
        self.__dict__.update(state)
        self._begin()

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name in _COPYING:
            # Not constructed yet, or somebody makes a copy.
            raise AttributeError(name)
        return getattr(self.app, name)
