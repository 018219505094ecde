"""What a user may set, checked once, at construction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TypedDict, Unpack

from cleanclose.core.levels import Levels
from cleanclose.core.surge import Surge, SurgeThresholds

__all__ = ["Settings", "SettingsOptions"]

_MIB = 1024 * 1024


class SettingsOptions(TypedDict, total=False):
    """The keyword arguments which every shim takes: the fields of `Settings`."""

    max_bytes: int
    respond_after: float
    max_seconds: float
    idle_seconds: float
    hold_seconds: float
    min_rate: float
    max_draining: int
    max_lingering: int
    only_statuses: Collection[int] | None
    quiet_logs: bool
    graded_levels: bool
    levels: Mapping[str, int] | None
    surge: bool | SurgeThresholds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How long a connection is kept open for an early response, and how loud departures are.

    Args:
        max_bytes: How many bytes of a request body are discarded at most, per request.
            Default 64 MiB.
        respond_after: For how many seconds at most a complete response is kept back while
            the body is discarded; then it is sent, and the discarding goes on behind it.
            The same limit holds for what is kept back until it is known whether the response
            is complete: its head, and a first piece that reaches its Content-Length.
            Default 0.5.
        max_seconds: How many seconds the discarding takes at most, all in all; and how many
            seconds an exchange waits at most for its turn (see ``max_draining``).
            Default 30; 5 on WSGI, where it holds a worker.
        idle_seconds: How many seconds without a single byte end it. Default 5; 1 on WSGI.
        hold_seconds: When a limit has been reached: for how many seconds the connection then
            stays open, unread, so that a client which is stopped by back-pressure finds the
            response that waits for it. Default 0.5.
        min_rate: The slowest upload that is waited for, in bytes per second on average, looked
            at from the fifth second on. Default 240, the rate at which Kestrel gives up
            (``MinRequestBodyDataRate``). 0 turns it off.
        max_draining: How many exchanges read at once, per middleware object. The others have
            their response and wait unread for their turn. Default 100.
        max_lingering: How many exchanges are kept open at once, per middleware object, reading
            or waiting. Past that the newest is answered and closed at once. Default 1,000.
            Without effect on WSGI, where none waits.
        only_statuses: If given, only responses with one of these status codes are treated.
            Default: all of them.
        quiet_logs: Whether the records that servers and frameworks log about a client's
            departure are lowered to the level of its event
            (`cleanclose.integrations.stdlib.install_quiet_logs`). Default True.
        graded_levels: Whether a departure that cost work (in the middle of an upload, of the
            handler or of the response) is info instead of debug. Default False.
        levels: Rows of the table of levels (`cleanclose.core.levels.DEFAULT`) to be replaced,
            by name, each by one of logging's numbers. Default: none.
        surge: Whether a warning is sent when departures stop being random
            (`cleanclose.core.DepartureSurge`); or when that is the case
            (`cleanclose.core.SurgeThresholds`). Default True.

    Raises:
        ValueError: A value has the wrong type or is out of its range. The message names the
            setting and the range.
    """

    max_bytes: int = 64 * _MIB
    respond_after: float = 0.5
    max_seconds: float = 30.0
    idle_seconds: float = 5.0
    hold_seconds: float = 0.5
    min_rate: float = 240.0
    max_draining: int = 100
    max_lingering: int = 1000
    only_statuses: Collection[int] | None = None
    quiet_logs: bool = True
    graded_levels: bool = False
    levels: Mapping[str, int] | None = None
    surge: bool | SurgeThresholds = True

    def __post_init__(self) -> None:
        for name in ("respond_after", "max_seconds", "idle_seconds", "hold_seconds", "min_rate"):
            _check_number(name, getattr(self, name))
        _check_count("max_bytes", self.max_bytes, lowest=0)
        _check_count("max_draining", self.max_draining, lowest=1)
        _check_count("max_lingering", self.max_lingering, lowest=self.max_draining)
        object.__setattr__(self, "only_statuses", _checked_statuses(self.only_statuses))
        for name in ("quiet_logs", "graded_levels"):
            _check_flag(name, getattr(self, name))
        object.__setattr__(self, "levels", _checked_levels(self.levels))
        _check_surge(self.surge)
        # Raises for a row or a level that is none.
        self.level_table()

    def level_table(self) -> Levels:
        """The table of levels with this user's rows."""
        return Levels(graded=self.graded_levels, rows=self.levels)

    def surge_detector(self) -> Surge | None:
        """A new detector of surges; None if there is to be none."""
        if isinstance(self.surge, SurgeThresholds):
            return Surge(self.surge)
        return Surge() if self.surge else None

    @classmethod
    def for_blocking(cls, **options: Unpack[SettingsOptions]) -> Settings:
        """The settings with the defaults for servers where lingering holds a worker (WSGI).

        Args:
            **options: The fields of this class; they win over the blocking defaults.

        Raises:
            ValueError: As for the class itself.
        """
        defaults: SettingsOptions = {"max_seconds": 5.0, "idle_seconds": 1.0}
        return cls(**(defaults | options))


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number of 0 or more, not {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of 0 or more, not {value!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def _check_surge(value: object) -> None:
    if not isinstance(value, bool | SurgeThresholds):
        raise ValueError(f"surge must be True, False or SurgeThresholds, not {value!r}")


def _checked_levels(value: object) -> dict[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"levels must be a mapping of rows to logging's numbers, not {value!r}")
    return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _check_count(name: str, value: object, *, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be a whole number of {lowest} or more, not {value!r}")


def _checked_statuses(value: object) -> frozenset[int] | None:
    if value is None:
        return None
    wanted = "only_statuses must be a collection of status codes from 200 to 599, or None"
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError(f"{wanted}, not {value!r}")
    statuses: set[int] = set()
    for status in value:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"{wanted}; it has {status!r}")
        statuses.add(status)
    return frozenset(statuses)
