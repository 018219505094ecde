"""The filter, which gives a record about a client's departure the level of its event."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

from cleanclose.core.blame.records import Lines, fields_of, own_error, verdict_of_record
from cleanclose.core.counters import PROCESS
from cleanclose.core.events import Verdict
from cleanclose.core.levels import Levels, row_of_departure
from cleanclose.quiet._lines import LINES

__all__ = ["QuietLogs"]

_PLAIN: Final = Lines()


class QuietLogs(logging.Filter):
    """Lowers the level of records about a client's departure and nothing else.

    For loggers, not for handlers: a handler has compared the levels before it asks its filters.

    The record then has the level of the departure's event, ``original_level`` (a number), no
    traceback, and the verdict in ``cleanclose_side``, ``cleanclose_phase``,
    ``cleanclose_mechanism`` and ``cleanclose_witnesses``. If its logger is not enabled for the
    new level, the record ends here. ``CRITICAL`` records, and those below ``WARNING``, pass
    unchanged. So does any record if something goes wrong here.

    Args:
        levels: How loud departures are. Default: the table as it stands.
    """

    def __init__(self, levels: Levels | None = None) -> None:
        super().__init__()
        self.levels: Levels = levels or Levels()
        self.owners: dict[str, str | None] = {}
        """For each logger, the only package whose lines are examined; None: everybody's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower a record if it is about a client's departure.

        Returns:
            Whether it goes on to the handlers.
        """
        if not logging.WARNING <= record.levelno < logging.CRITICAL:
            return True
        try:
            if not _is_by(self.owners.get(record.name), record.pathname):
                return True
            lines = LINES.get(record.name, _PLAIN)
            verdict = verdict_of_record(record, lines)
            if verdict is None:
                _show_own(record, anywhere=lines.anywhere)
                return True
            level = self.levels.of_row(row_of_departure(verdict))
            if level >= record.levelno:
                return True
            _lower(record, level, verdict)
            return logging.getLogger(record.name).isEnabledFor(level)
        except Exception:  # noqa: BLE001 - logging must work, whatever is logged
            return True


def _lower(record: logging.LogRecord, level: int, verdict: Verdict) -> None:
    record.__dict__.update(fields_of(verdict), original_level=record.levelno)
    record.levelno = level
    record.levelname = logging.getLevelName(level)
    record.exc_info = record.exc_text = record.stack_info = None
    PROCESS.count_quieted_record()


def _show_own(record: logging.LogRecord, *, anywhere: bool) -> None:
    """Let a record show the application's own error instead of the client's, which hid it."""
    error = record.exc_info[1] if record.exc_info else None
    own = None if error is None else own_error(error, anywhere=anywhere)
    if own is not None and own is not error:
        record.exc_info = (type(own), own, own.__traceback__)
        record.exc_text = None


def _is_by(package: str | None, file: str) -> bool:
    if package is None:
        return True
    module = sys.modules.get(package)
    home: str | None = getattr(module, "__file__", None)
    return home is not None and file.startswith(os.path.dirname(home) + os.sep)
