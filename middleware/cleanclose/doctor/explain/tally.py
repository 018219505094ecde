"""Count findings by kind, by detail and over time, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from cleanclose.doctor.explain.kinds import KINDS, Kind
from cleanclose.doctor.explain.rules import Finding

__all__ = ["Group", "Tally"]

_SPANS: Final = (
    *(1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200),
    *(86400, 604800, 2592000, 31536000, 315360000),
)
"""Possible widths of a bucket in seconds, the narrowest first. Buckets widen where there would be
too many."""
_AT_MOST_BUCKETS: Final = 240
_AT_MOST_DETAILS: Final = 64
_WIDEST: Final = 400


@dataclasses.dataclass(slots=True)
class Group:
    """All findings of one kind.

    Args:
        kind: The kind.
        count: How many there were.
        first: Seconds since the epoch of the earliest one; None if none had a time.
        last: The same for the latest.
        formats: How many came from which format.
        details: How many had which detail; where a kind has too many details, the rest count as
            ``other``.
        example: The first one's line, without control characters.
        buckets: How many came in each bucket, by the bucket's number.
        span: A bucket's width in seconds.
    """

    kind: Kind
    example: str
    count: int = 0
    first: float | None = None
    last: float | None = None
    formats: Counter[str] = dataclasses.field(default_factory=Counter[str])
    details: Counter[str] = dataclasses.field(default_factory=Counter[str])
    buckets: dict[int, int] = dataclasses.field(default_factory=dict[int, int])
    span: int = _SPANS[0]

    def add(self, finding: Finding) -> None:
        """Count one finding.

        Args:
            finding: A finding of this kind.
        """
        self.count += 1
        self.formats[finding.format] += 1
        detail = _plain(finding.detail)[:80]
        if detail:
            is_known = detail in self.details or len(self.details) < _AT_MOST_DETAILS
            self.details[detail if is_known else "other"] += 1
        time = finding.time
        if time is None:
            return
        self.first = time if self.first is None else min(self.first, time)
        self.last = time if self.last is None else max(self.last, time)
        bucket = int(time // self.span)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        while len(self.buckets) > _AT_MOST_BUCKETS and self.span < _SPANS[-1]:
            self.widen(_SPANS[_SPANS.index(self.span) + 1])

    def widen(self, span: int) -> None:
        """Make every bucket wider.

        Args:
            span: Seconds; one of the widths that `Tally` uses, and no narrower than now.
        """
        wider: dict[int, int] = {}
        for bucket, count in self.buckets.items():
            number = bucket * self.span // span
            wider[number] = wider.get(number, 0) + count
        self.buckets, self.span = wider, span


class Tally:
    """The findings in some logs.

    Args:
        at_most_buckets: The largest number of buckets from the first finding to the last.
    """

    def __init__(self, at_most_buckets: int = 24) -> None:
        self.lines = 0
        self.groups: dict[str, Group] = {}
        self._at_most = at_most_buckets

    def add(self, finding: Finding) -> None:
        """Count one finding.

        Args:
            finding: What was found.
        """
        group = self.groups.get(finding.kind)
        if group is None:
            group = Group(KINDS[finding.kind], _plain(finding.line)[:_WIDEST])
            self.groups[finding.kind] = group
        group.add(finding)

    def ranked(self) -> list[Group]:
        """List all groups, the largest first."""
        return sorted(self.groups.values(), key=lambda group: (-group.count, group.kind.name))

    def sides(self) -> dict[str, int]:
        """Count each side's findings."""
        found: Counter[str] = Counter()
        for group in self.groups.values():
            found[group.kind.side.value] += group.count
        return {side: found[side] for side in ("client", "upstream", "server", "unknown")}

    def span(self) -> tuple[float, float, int] | None:
        """Get the first and last time of all findings, and a bucket's width; None without times."""
        timed = [group for group in self.groups.values() if group.first is not None]
        if not timed:
            return None
        first = min(group.first or 0.0 for group in timed)
        last = max(group.last or 0.0 for group in timed)
        least = max(group.span for group in timed)
        for span in _SPANS:
            if span >= least and last // span - first // span < self._at_most:
                return first, last, span
        return first, last, _SPANS[-1]


def moment(seconds: float) -> str:
    """Write a time as ISO 8601 in UTC, to the second.

    Args:
        seconds: Seconds since the epoch.
    """
    try:
        return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "unknown"


def _plain(text: str) -> str:
    """Remove control characters, which the log's clients may have put into a text."""
    return "".join(char if char.isprintable() else "?" for char in text)
