"""Floods: many lines that say the same become one line that says how many.

It has no clock and no thread: callers pass the time in, and due lines come out with the next call.
It handles lines only; counters have counted before.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final

from cleanclose.core.process import Lock

__all__ = ["DEFAULT_FLOOD", "FOLDED", "Flood", "FloodControl", "Fold"]

FOLDED: Final = "events_folded"
"""The name of the line that stands for unwritten ones."""

_DIFFERS: Final = frozenset(
    {
        "age_ms",
        "bytes_in",
        "bytes_out",
        "client",
        "drained",
        "expected_in",
        "idempotency_key",
        "idle_seconds",
        "method",
        "request_id",
        "trace_id",
        "unacked",
        "wasted_seconds",
    }
)
"""Fields in which two events of the same kind may differ. They agree in all other fields."""

_KINDS_AT_FULL_LENGTH: Final = 2
"""For how many kinds of one event, at one level, all lines of a kind may be written. A client can
easily make up new kinds: another route, another moment."""

_SHARED: Final = ("framework", "server")
"""The text for kinds that are counted together."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Flood:
    """From when on lines are folded.

    Args:
        lines: How many lines of one kind are written at most in ``seconds``, besides the line that
            counts the others. All kinds of one event together have twice as many; errors have no
            such limit. Default 20.
        seconds: How long lines are counted together, from the first one on. Default 60.
        kinds: How many kinds are kept apart at once. With more, the oldest kind is forgotten early,
            and counted anew. Default 256.

    Raises:
        ValueError: A value has the wrong type or is out of its range.
    """

    lines: int = 20
    seconds: float = 60.0
    kinds: int = 256

    def __post_init__(self) -> None:
        for name in ("lines", "kinds"):
            _check_count(name, getattr(self, name))
        _check_seconds(self.seconds)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, not {value!r}")


def _check_seconds(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"seconds must be a number above 0, not {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"seconds must be a finite number above 0, not {value!r}")


DEFAULT_FLOOD: Final = Flood()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Lines of one kind that were not written.

    Args:
        name: Their events' name.
        level: Their level, which the line that stands for them also has.
        alike: The fields that they have in common.
        count: How many they are.
        first: The time of the first of them.
        last: The time of the last of them.
    """

    name: str
    level: int
    alike: Mapping[str, object]
    count: int
    first: float
    last: float

    def fields(self, now: float) -> dict[str, object]:
        """The fields of the line that stands for them.

        Args:
            now: The time.
        """
        return {
            **self.alike,
            "folded_event": self.name,
            "folded": self.count,
            "first_seconds_ago": round(now - self.first, 3),
            "last_seconds_ago": round(now - self.last, 3),
        }


class _Window:
    """The lines of one kind since its first one."""

    __slots__ = ("alike", "count", "ends", "first", "last", "level", "lines", "name")

    def __init__(self, name: str, level: int, alike: Mapping[str, object], ends: float) -> None:
        self.name = name
        self.level = level
        self.alike = alike
        self.ends = ends
        self.lines = 0
        self.count = 0
        self.first = self.last = 0.0

    def fold(self, now: float) -> None:
        """One more line that is not written."""
        if not self.count:
            self.first = now
        self.count += 1
        self.last = now


class FloodControl:
    """Decides which lines are written, and what stands for the others. Thread-safe and bounded.

    Two lines are of the same kind if they have the same level, event and fields, not counting
    addresses, ids, methods, sizes and times. Below ``ERROR``, all kinds of one event together have
    no more lines than two kinds would have; further kinds are only counted.

    Args:
        flood: From when on lines are folded.
    """

    def __init__(self, flood: Flood = DEFAULT_FLOOD) -> None:
        self._flood = flood
        self._lock = Lock()
        # In the order in which they began, which is the order in which they end.
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._all: OrderedDict[Hashable, _Window] = OrderedDict()

    def admit(
        self, name: str, level: int, fields: Mapping[str, object], now: float
    ) -> tuple[bool, list[Fold]]:
        """Whether to write a line, and what to write before it.

        Args:
            name: The event's name.
            level: The line's level.
            fields: The event's fields, with plain values.
            now: The time, in seconds.
        """
        alike = {key: value for key, value in fields.items() if key not in _DIFFERS}
        kind = (level, name, *alike.items())
        try:
            hash(kind)
        except TypeError:
            # Not plain, so it cannot be compared: such an event is always written.
            return True, self.due(now)
        with self._lock:
            folds = self._ended(now)
            of_all = self._of_all(name, level, alike, now)
            window = self._windows.get(kind)
            if of_all.lines >= _KINDS_AT_FULL_LENGTH * self._flood.lines:
                (window or of_all).fold(now)
                return False, folds
            if window is None:
                if len(self._windows) >= self._flood.kinds:
                    _, oldest = self._windows.popitem(last=False)
                    folds += _folds(oldest)
                window = _Window(name, level, alike, now + self._flood.seconds)
                self._windows[kind] = window
            if window.lines < self._flood.lines:
                window.lines += 1
                of_all.lines += level < logging.ERROR
                return True, folds
            window.fold(now)
            return False, folds

    def _of_all(self, name: str, level: int, alike: Mapping[str, object], now: float) -> _Window:
        """The window of all kinds of one event at one level.

        Errors are nobody's choice, and none may hide another, so their kinds are not counted
        together.
        """
        window = self._all.get((level, name))
        if window is None:
            shared = {key: alike[key] for key in _SHARED if key in alike}
            window = _Window(name, level, shared, now + self._flood.seconds)
            self._all[level, name] = window
        return window

    def due(self, now: float) -> list[Fold]:
        """The lines that stand for kinds whose time is over."""
        with self._lock:
            return self._ended(now)

    def rest(self) -> list[Fold]:
        """The lines that stand for all unwritten ones; then forget all kinds."""
        with self._lock:
            windows = [*self._windows.values(), *self._all.values()]
            self._windows.clear()
            self._all.clear()
        return [fold for window in windows for fold in _folds(window)]

    def _ended(self, now: float) -> list[Fold]:
        folds: list[Fold] = []
        for windows in (self._windows, self._all):
            while windows:
                kind, window = next(iter(windows.items()))
                if now < window.ends:
                    break
                del windows[kind]
                folds += _folds(window)
        return folds


def _folds(window: _Window) -> list[Fold]:
    if not window.count:
        return []
    return [
        Fold(
            name=window.name,
            level=window.level,
            alike=window.alike,
            count=window.count,
            first=window.first,
            last=window.last,
        )
    ]
