"""Which requests are stopped as a whole: only those that a user names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any, Final

__all__ = ["SAFE_METHODS", "UNSAFE_METHODS", "Stoppable"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1): half of such a request harms nobody."""

UNSAFE_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Methods that change something (all except the safe ones of RFC 9110, section 9.2.1, and those
that do not end an exchange of their own)."""

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]*\Z")
_PARAMETER: Final = re.compile(r"\{[^{}]*\}|\*")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stoppable:
    """Which requests are cancelled as a whole when their client has left.

    A request has to meet all of these conditions.

    Args:
        methods: The methods. Default: the safe ones (`SAFE_METHODS`). Half of a POST may be worse
            than a whole one, so an unsafe method counts only if you name it here.
        paths: The paths, written like routes: ``{name}`` stands for one segment, ``{name:path}``
            and ``*`` for whatever follows. Default None: all of them.
        where: A further condition, called with the shim's request: the scope on ASGI, the
            ``HTTPServerRequest`` on Tornado, the environ on WSGI. Default None. An exception that
            it raises goes to the server, like one of the application's.

    Raises:
        ValueError: A value has the wrong type, or a method is not a valid one. The message names
            it.
    """

    methods: Collection[str] = SAFE_METHODS
    paths: Collection[str] | None = None
    where: Callable[[Any], bool] | None = None
    _patterns: tuple[re.Pattern[str], ...] = dataclasses.field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", _checked_methods(self.methods))
        object.__setattr__(self, "_patterns", tuple(map(_pattern, _checked_paths(self.paths))))
        if self.where is not None and not callable(self.where):
            raise ValueError(f"where must be a callable or None, not {self.where!r}")

    @classmethod
    def of(cls, wish: bool | Stoppable | Callable[[Any], bool] | None) -> Stoppable | None:
        """Interpret a shim's ``stop_work`` argument.

        Args:
            wish: True for all safe requests; a callable for those of them for which it is true;
                a `Stoppable`. False and None for none.

        Raises:
            ValueError: It is none of these.
        """
        if wish is None or wish is False:
            return None
        if wish is True:
            return cls()
        if isinstance(wish, Stoppable):
            return wish
        if callable(wish):
            return cls(where=wish)
        raise ValueError(f"stop_work must be True, a callable or a Stoppable, not {wish!r}")

    def applies(self, method: str, path: str, request: object) -> bool:
        """Whether a request is one of them.

        Args:
            method: Its method.
            path: Its path, without a query.
            request: What ``where`` is called with.
        """
        if method not in self.methods:
            return False
        if self.paths is not None and not any(each.fullmatch(path) for each in self._patterns):
            return False
        return self.where is None or bool(self.where(request))


def _checked_methods(value: object) -> frozenset[str]:
    wanted = "methods must be a collection of HTTP methods in capitals"
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError(f"{wanted}, not {value!r}")
    methods: set[str] = set()
    for each in value:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(each, str) or _METHOD.match(each) is None:
            raise ValueError(f"{wanted}; it has {each!r}")
        methods.add(each)
    return frozenset(methods)


def _checked_paths(value: object) -> list[str]:
    if value is None:
        return []
    wanted = "paths must be a collection of paths that begin with / or *"
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError(f"{wanted}, not {value!r}")
    paths: list[str] = []
    for each in value:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(each, str) or not each.startswith(("/", "*")):
            raise ValueError(f"{wanted}; it has {each!r}")
        paths.append(each)
    return paths


def _pattern(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for found in _PARAMETER.finditer(path):
        parts.append(re.escape(path[at : found.start()]))
        word = found.group()
        parts.append(".*" if word == "*" or word.endswith(":path}") else "[^/]+")
        at = found.end()
    return re.compile("".join([*parts, re.escape(path[at:])]), re.DOTALL)
