"""The journal: the served application's process writes it, and the doctor reads it.

Each entry is one line of JSON in one write to a file that was opened for appending, so that
threads and workers do not mix their lines.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["JOURNAL", "Entry", "Journal", "JournalReader", "watch_logging"]

JOURNAL: Final = "CLEANCLOSE_DOCTOR_JOURNAL"
"""The environment variable with the file's path."""

Kind = Literal["log", "event", "begin", "end", "smuggled", "lifespan"]
Entry = dict[str, Any]


class Journal:
    """The writing side.

    Args:
        path: The file. It exists already.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = -1
        self._descriptor = -1

    def write(self, kind: Kind, **fields: object) -> None:
        """Add an entry. One that cannot be written is lost: the application must not notice."""
        if self._pid != os.getpid():
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._pid = os.getpid()
        line = json.dumps({"kind": kind, **fields}, default=repr)
        os.write(self._descriptor, line.encode() + b"\n")


class JournalReader:
    """The reading side: it takes the entries that were added since its last look.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[Entry]:
        """Take the entries that nobody has taken yet."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        # The last line may be incomplete still.
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def wait(
        self, until: Callable[[list[Entry]], bool], seconds: float, *, every: float = 0.01
    ) -> list[Entry]:
        """Collect entries until they satisfy a condition, or the time is up.

        Args:
            until: Takes the entries so far; returns whether they are enough.
            seconds: The longest time to wait.
            every: Seconds between two looks.
        """
        deadline = time.monotonic() + seconds
        found = self.new()
        while not until(found) and time.monotonic() < deadline:
            time.sleep(every)
            found += self.new()
        return found


def watch_logging(journal: Journal) -> None:
    """Record every log record of this process that reaches the handlers.

    The hook stands between the loggers' filters and the handlers, so that the application's own
    set-up stays as it is. It works out whether a handler would write the record.
    """
    original = logging.Logger.callHandlers

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        if not record.name.startswith(("asyncio.", "cleanclose.doctor")):
            _note(journal, self, record)
        original(self, record)

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]


def _note(journal: Journal, logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - logging itself will report it
        text = str(record.msg)
    error = record.exc_info[0] if record.exc_info else None
    journal.write(
        "log",
        logger=record.name,
        level=record.levelname,
        number=record.levelno,
        text=text[:2000],
        error=None if error is None else error.__name__,
        visible=_is_visible(logger, record.levelno),
    )


def _is_visible(logger: logging.Logger, level: int) -> bool:
    """Whether any handler writes a record of this level from this logger."""
    found = False
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if isinstance(handler, logging.NullHandler):
                found = True
                continue
            if level >= handler.level:
                return True
            found = True
        if not current.propagate:
            break
        current = current.parent
    last = logging.lastResort
    return not found and last is not None and level >= last.level
