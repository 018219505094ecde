"""The settings, which are checked once, when they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TypedDict

from cleanclose.core.levels import Levels

__all__ = ["Settings", "SettingsOptions", "SurgeThresholds"]

_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SurgeThresholds:
    """When departures count as a surge.

    Args:
        least: How many departures, or treated early responses, are examined together at least; from
            20 to 500. Default 40.
        seconds: How many seconds are examined together at least; above 0. Default 10.
        risk: The probability of calling random departures a surge, in one examination; from 1e-30
            to 1e-3. Default 1e-9.
        cool_down: For how many seconds after the end of an episode the same cause is not reported
            again; 0 or more. Default 900.

    Raises:
        ValueError: A value has the wrong type or is out of its range. The message names it and
            the range.
    """

    least: int = 40
    seconds: float = 10.0
    risk: float = 1e-9
    cool_down: float = 900.0

    def __post_init__(self) -> None:
        _check_least(self.least)
        for name, lowest, highest, wanted in (
            ("seconds", math.ulp(0.0), math.inf, "above 0"),
            ("risk", 1e-30, 1e-3, "from 1e-30 to 1e-3"),
            ("cool_down", 0.0, math.inf, "of 0 or more"),
        ):
            value: object = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not (lowest <= value <= highest and math.isfinite(value))
            ):
                raise ValueError(f"{name} must be a finite number {wanted}, not {value!r}")


def _check_least(least: object) -> None:
    if isinstance(least, bool) or not isinstance(least, int) or not 20 <= least <= 500:
        raise ValueError(f"least must be a whole number from 20 to 500, not {least!r}")


class SettingsOptions(TypedDict, total=False):
    """The keyword arguments that every shim takes: the fields of `Settings`."""

    max_bytes: int
    respond_after: float | None
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
        max_bytes: How many bytes of a request body are discarded at most, per request: before the
            response goes out, and once more after it. A chunked body's framing counts too, if the
            kernel or the connection shows it. Default 1 GiB; time, silence and rate limit a client
            before that.
        respond_after: For how many seconds every body is drained, at most ``max_bytes`` of it,
            before an early response goes out. Default None: as long as it is worth it. That is what
            has arrived, plus up to 256 KiB within 0.5 seconds (a worker of a blocking server does
            not wait for those). Behind a proxy, over HTTP/2, and if the connection cannot be taken
            over, the body is drained as long as its end is due.
        max_seconds: How many seconds a body is drained at most before the response goes out; and
            how many seconds a connection lingers at most after it. Default 30.
        idle_seconds: How many seconds without a single byte end it. Default 5.
        hold_seconds: For how many seconds the connection stays open, unread, after a limit was
            reached. A client that back-pressure stops can then find the response that waits for it.
            Default 0.5.
        min_rate: The slowest upload to wait for, in bytes per second on average, checked from the
            fifth second on. Default 240, the rate below which Kestrel gives up
            (``MinRequestBodyDataRate``). 0 turns it off.
        max_draining: How many requests may wait for their client at once, to be drained before
            their response, per middleware object; half of them for one client address. All others
            are answered at once. On blocking servers at most half of the threads. Default 100.
        max_lingering: How many connections linger at once, per process, and never more than half
            of the descriptors that the process may have. Beyond that, the oldest connection of the
            busiest address is closed. Default 1,000.
        only_statuses: If given, only responses with one of these status codes are treated.
            Default: all of them.
        quiet_logs: Whether the records that servers and frameworks log about a client's
            departure are lowered to the level of its event
            (`cleanclose.quiet.install_quiet_logs`). Default True.
        graded_levels: Whether a departure that cost work (in the middle of an upload, of the
            handler or of the response) is info instead of debug. Default False.
        levels: Rows of the table of levels (`cleanclose.core.levels.DEFAULT`) to be replaced,
            by name, each by one of logging's numbers. Default: none.
        surge: Whether to warn when departures stop being random (`cleanclose.core.DepartureSurge`),
            or the thresholds for that (`cleanclose.core.SurgeThresholds`). Default True.

    Raises:
        ValueError: A value has the wrong type or is out of its range. The message names the
            setting and the range.
    """

    max_bytes: int = 1024 * _MIB
    respond_after: float | None = None
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
        for name in ("max_seconds", "idle_seconds", "hold_seconds", "min_rate"):
            _check_number(name, getattr(self, name))
        if self.respond_after is not None:
            _check_number("respond_after", self.respond_after)
        _check_count("max_bytes", self.max_bytes, lowest=0)
        _check_count("max_draining", self.max_draining, lowest=1)
        _check_count("max_lingering", self.max_lingering, lowest=1)
        object.__setattr__(self, "only_statuses", _checked_statuses(self.only_statuses))
        for name in ("quiet_logs", "graded_levels"):
            _check_flag(name, getattr(self, name))
        object.__setattr__(self, "levels", _checked_levels(self.levels))
        _check_surge(self.surge)
        # Raises for an unknown row and for an invalid level.
        self.level_table()

    def level_table(self) -> Levels:
        """The table of levels with this user's rows."""
        return Levels(graded=self.graded_levels, rows=self.levels)


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
