"""Find out when a line was written, in the many formats that logs use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["time_in_fields", "time_in_line"]

_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(Z| ?[+-]\d\d:?\d\d)?"
)
_NGINX: Final = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)")
_COMMON: Final = re.compile(r"(\d\d)/(\w{3})/(\d{4})[: ](\d\d):(\d\d):(\d\d)(?: ?([+-]\d{4}))?")
_TORNADO: Final = re.compile(r"\[[DIWEC] (\d\d)(\d\d)(\d\d) (\d\d):(\d\d):(\d\d) ")
_SYSLOG: Final = re.compile(r"(\w{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(?: (\d{4}))?")
_MONTHS: Final = {
    "Jan": 1,
    "Feb": 2,
    "Mar": 3,
    "Apr": 4,
    "May": 5,
    "Jun": 6,
    "Jul": 7,
    "Aug": 8,
    "Sep": 9,
    "Oct": 10,
    "Nov": 11,
    "Dec": 12,
}
_KEYS: Final = ("ts", "time", "timestamp", "@timestamp", "start_time", "StartUTC", "asctime")
_HEAD: Final = 200
"""How many characters of a line may hold its time: clients choose the text that follows."""


def time_in_line(line: str) -> float | None:
    """Read a line's own time, in seconds since the epoch; None if it has none.

    A time without a zone counts as UTC: the intervals within one log stay right. A time without
    a year counts as this year's.

    Args:
        line: The line.
    """
    head = line[:_HEAD]
    try:
        return _time(head)
    except (ValueError, OverflowError, KeyError):
        return None


def _time(head: str) -> float | None:
    if found := _ISO.search(head):
        return _seconds(*map(int, found.groups()[:6]), zone=found[7])
    if found := _COMMON.search(head):
        day, month, year, *clock = found.groups()[:6]
        return _seconds(int(year), _MONTHS[month], int(day), *map(int, clock), zone=found[7])
    if found := _NGINX.search(head):
        return _seconds(*map(int, found.groups()))
    if found := _TORNADO.search(head):
        year, *rest = map(int, found.groups())
        return _seconds(2000 + year, *rest)
    if (found := _SYSLOG.search(head)) and found[1] in _MONTHS:
        year = int(found[6]) if found[6] else datetime.now(UTC).year
        return _seconds(year, _MONTHS[found[1]], *map(int, found.groups()[1:5]))
    return None


def _seconds(*parts: int, zone: str | None = None) -> float:
    year, month, day, hour, minute, second = parts
    seconds = datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    zone = (zone or "Z").strip().replace(":", "")
    if zone != "Z":
        offset = 3600 * int(zone[1:3]) + 60 * int(zone[3:5])
        seconds -= offset if zone[0] == "+" else -offset
    return seconds


_LATEST: Final = 4e9


def _plausible(value: float) -> float | None:
    """Turn a number of seconds, milli-, micro- or nanoseconds into seconds since the epoch."""
    for unit in (1.0, 1e3, 1e6, 1e9):
        if 0 <= value / unit < _LATEST:
            return value / unit
    return None


def time_in_fields(fields: Mapping[str, Any]) -> float | None:
    """Read a JSON line's own time, in seconds since the epoch; None if it has none.

    Args:
        fields: The line's object.
    """
    for key in _KEYS:
        value = fields.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _plausible(value)
        if isinstance(value, str) and (found := time_in_line(value)) is not None:
            return found
    return None
