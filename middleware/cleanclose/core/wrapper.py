"""A middleware object that stands for the application which it wraps."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Wrapper"]

_COPYING: Final = frozenset(
    {"__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__"}
)
"""Names under which `copy` and `pickle` look for an object's own methods. The application's make no
copy of the middleware."""

_OWN: Final = frozenset({"app", "_serving"})
"""What leads to the application. On an object that is not constructed yet, looking for it there
would ask for it again."""


class Wrapper:
    """Shows the application's attributes as its own, and can be copied and pickled with it."""

    __slots__ = ()

    @property
    def app(self) -> Any:
        """The wrapped application. Subclasses implement it."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Do what each object does once, a copy as well. Subclasses implement it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a copy, in another process maybe."""
        self.__dict__.update(state)
        self._begin()

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name in _COPYING:
            raise AttributeError(name)
        return getattr(self.app, name)
