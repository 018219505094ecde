"""Installs the filter on the loggers of servers, frameworks and asyncio."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from types import MethodType
from typing import Final

from cleanclose.core.blame.departures import on_departure
from cleanclose.core.levels import Levels
from cleanclose.core.process import Lock
from cleanclose.core.settings import Settings
from cleanclose.quiet._lines import OWNERS
from cleanclose.quiet.filter import QuietLogs

__all__ = ["LOGGERS", "install_quiet_logs", "quieten", "uninstall_quiet_logs"]

LOGGERS: Final = tuple(sorted(OWNERS))
"""The loggers on which servers, frameworks and asyncio report what happens to a request."""

_NO_PACKAGE_OF_ITS_OWN: Final = frozenset({"asyncio"})
"""Loggers on which lines from any file are examined: uvloop, which is not Python, logs there
too."""

_APPS: Final[Mapping[str, str]] = {"flask.app.Flask": "flask", "quart.app.Quart": "quart"}
"""Applications with a logger of their own name, and the package that logs there."""

_AND_CHILDREN: Final = ".*"
"""The ending of a name that stands for a logger and all of its children."""

_INNER: Final = ("app", "wsgi_app", "asgi_app", "application")


class _Installation:
    """The filter, and the loggers that have it or will get it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._filter = QuietLogs()
        self._missing: dict[str, str | None] = {}
        self._families: dict[str, str | None] = {}
        self._children: set[str] = set()
        self._stop_listening: Callable[[], None] | None = None

    def add(self, levels: Levels | None, owners: Mapping[str, str | None]) -> None:
        with self._lock:
            self._filter.levels = levels or Levels()
            self._families |= {
                _parent(name): owner for name, owner in owners.items() if _is_family(name)
            }
            owners = {_parent(name): owner for name, owner in owners.items()}
            self._filter.owners.update(owners)
            self._children.difference_update(owners)
            self._missing.update(owners)
            self._attach_children()
            for name in owners:
                if _existing(name) is not None:
                    self._attach(name)
            if self._missing or self._families:
                self._stop_listening = on_departure(self.attach_missing)

    def attach_missing(self) -> None:
        """Put the filter on loggers that are new, because somebody may now log a departure.

        Configuring logging would disable a logger made before that (``disable_existing_loggers``),
        with everything that is later logged there. So none is made earlier, and none for a package
        that is not in use.
        """
        if not self._missing and not self._families:
            return
        with self._lock:
            self._attach_children()
            for name, package in list(self._missing.items()):
                if _is_in_use(package):
                    self._attach(name)

    def remove(self) -> None:
        with self._lock:
            for name in self._filter.owners:
                logger = _existing(name)
                if logger is not None:
                    logger.removeFilter(self._filter)
            self._filter.owners.clear()
            self._missing.clear()
            self._families.clear()
            self._children.clear()
            if self._stop_listening is not None:
                self._stop_listening()

    def _attach_children(self) -> None:
        families = {
            f"{family}.": package
            for family, package in self._families.items()
            if _is_in_use(package)
        }
        if not families:
            return
        for name, logger in list(logging.root.manager.loggerDict.items()):
            owners = {package for family, package in families.items() if name.startswith(family)}
            is_named = name in self._filter.owners and name not in self._children
            if owners and not is_named and isinstance(logger, logging.Logger):
                # Where a user says so, everybody's lines count.
                self._filter.owners[name] = None if None in owners else owners.pop()
                self._children.add(name)
                logger.addFilter(self._filter)

    def _attach(self, name: str) -> None:
        logging.getLogger(name).addFilter(self._filter)
        del self._missing[name]


_INSTALLATION: Final = _Installation()


def install_quiet_logs(
    levels: Levels | None = None,
    loggers: Collection[str] = LOGGERS,
    *,
    app: object = None,
) -> None:
    """Give other people's records about a client's departure the level of its event.

    The shims call this unless ``quiet_logs=False``. Further calls add loggers; the levels of the
    last call apply. Filters stay on their loggers when logging is configured later
    (`logging.config.dictConfig` and ``fileConfig`` leave them alone).

    Args:
        levels: How loud departures are. Default: the table as it stands.
        loggers: The names of the loggers. A filter does not see the records of a logger's children:
            name each of them, or all of them as ``name.*``, which stands for the logger and for the
            children that exist when a client leaves. ``root`` is the root logger. On the names in
            `LOGGERS` the filter examines only lines of the package that the logger belongs to; on
            all others it examines all lines.
        app: An application whose own logger gets the filter too, for its framework's lines: a Flask
            or Quart object, or something that holds one (its ``wsgi_app``, a middleware with an
            attribute ``app``).

    Raises:
        ValueError: ``loggers`` is not a collection of names.
    """
    if not _are_names(loggers):
        raise ValueError(f"loggers must be a collection of names, not {loggers!r}")
    owners = {name: _owner(name) for name in loggers}
    _INSTALLATION.add(levels, owners | _loggers_of(app))


def quieten(settings: Settings, app: object = None) -> None:
    """Do as the settings of a middleware say.

    Args:
        settings: The settings.
        app: As of `install_quiet_logs`.
    """
    if settings.quiet_logs:
        install_quiet_logs(settings.level_table(), app=app)


def uninstall_quiet_logs() -> None:
    """Remove the filter from all loggers. It has no effect if the filter is not installed."""
    _INSTALLATION.remove()


def _are_names(value: Collection[object]) -> bool:
    return not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _existing(name: str) -> logging.Logger | None:
    if name == logging.root.name:
        return logging.root
    logger = logging.root.manager.loggerDict.get(name)
    return logger if isinstance(logger, logging.Logger) else None


def _is_family(name: str) -> bool:
    return name.endswith(_AND_CHILDREN)


def _parent(name: str) -> str:
    return name.removesuffix(_AND_CHILDREN)


def _is_in_use(package: str | None) -> bool:
    return package is None or package in sys.modules


def _owner(name: str) -> str | None:
    return None if name in _NO_PACKAGE_OF_ITS_OWN else OWNERS.get(name)


def _loggers_of(app: object) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    seen: set[int] = set()
    waiting = [app]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        for cls in type(each).__mro__:
            package = _APPS.get(f"{cls.__module__}.{cls.__qualname__}")
            if package is not None:
                # Reading its attribute `logger` would make the logger, and give it a handler.
                found[str(getattr(each, "name"))] = package  # noqa: B009 - it is object here
        if isinstance(each, MethodType):
            waiting.append(each.__self__)
        inner = _attributes(each)
        waiting.extend(inner.get(name) for name in _INNER)
    return found


def _attributes(each: object) -> Mapping[str, object]:
    try:
        # Not by getattr: a proxy would ask the object that it stands for, or raise.
        attributes: Mapping[str, object] = object.__getattribute__(each, "__dict__")
    except AttributeError:
        return {}
    return attributes
