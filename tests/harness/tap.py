"""What a server process logs and reports, as JSON lines: for the tests about noise.

A record is taken where it goes to its handlers, behind all filters and levels: what is not taken
here no handler could have shown.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cleanclose.core import Event

__all__ = ["PATH_VARIABLE", "Tap", "note", "noted", "outlets", "read_tap", "tap_logging"]

PATH_VARIABLE: Final = "TEST_TAP"
"""The environment variable that names the file."""

_LOCK: Final = threading.Lock()
_NOTE: Final = "note"


class Tap:
    """An outlet that writes each event, with its level left to the records."""

    def __call__(self, event: Event, /) -> None:
        """Write one event."""
        _write({"event": event.name, **event.fields()})


def outlets() -> list[Tap]:
    """The outlets for an app under test."""
    return [Tap()]


def tap_logging() -> None:
    """Write every record that reaches its handlers; for an app's module, at import."""
    original = logging.Logger.callHandlers

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        _write(
            {
                "logger": record.name,
                "level": record.levelno,
                "message": record.getMessage(),
                "error": None if error is None else type(error).__name__,
                "raised_in": None if error is None else _raised_in(error),
                "traceback": None if error is None else _traceback(error),
                "original_level": getattr(record, "original_level", None),
            }
        )
        original(self, record)

    if PATH_VARIABLE in os.environ:
        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]


def _traceback(error: BaseException) -> str:
    """What is printed of it, with what hides behind it."""
    return "".join(traceback.format_exception(error))


def _raised_in(error: BaseException) -> str | None:
    """The function that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].name if frames else None


@dataclass
class _Taken:
    """What has been read of a file: who waits for a line looks often, and only what is new."""

    size: int = 0
    records: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    events: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    notes: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def take(self, path: Path) -> None:
        """Read what has been written since."""
        with path.open("rb") as file:
            file.seek(self.size)
            # Behind the last end of a line somebody may be writing.
            whole, end, _ = file.read().rpartition(b"\n")
        self.size += len(whole + end)
        for line in whole.splitlines():
            entry: dict[str, Any] = json.loads(line)
            if _NOTE in entry:
                self.notes.add((entry[_NOTE], entry["who"]))
            else:
                (self.events if "event" in entry else self.records).append(entry)


_TAKEN: Final[dict[Path, _Taken]] = {}


def _taken(path: Path) -> _Taken:
    """All that is in a file by now; for one who holds the lock."""
    taken = _TAKEN.setdefault(path, _Taken())
    if path.exists():
        taken.take(path)
    return taken


def read_tap(path: Path) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The records and the events that a server has written so far."""
    with _LOCK:
        taken = _taken(path)
        return list(taken.records), list(taken.events)


def note(what: str, who: str) -> None:
    """Write that somebody is somewhere, for a test that waits for it."""
    if PATH_VARIABLE in os.environ:
        _write({_NOTE: what, "who": who})


def noted(path: Path, what: str, who: str) -> bool:
    """Whether that has been written."""
    with _LOCK:
        return (what, who) in _taken(path).notes


def _write(entry: Mapping[str, object]) -> None:
    line = json.dumps(entry, default=str) + "\n"
    with _LOCK, Path(os.environ[PATH_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(line)
