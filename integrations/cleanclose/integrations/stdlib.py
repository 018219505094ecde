"""The standard library's logging: events as records, without structlog.

The log filter has moved from here to `cleanclose.quiet`; the old names still work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cleanclose.core import DEFAULT_FLOOD, LOGGER_NAME, Flood, Ids, Levels, LineOutlet
from cleanclose.quiet import (
    LOGGERS,
    QuietLogs,
    install_quiet_asyncio,
    install_quiet_logs,
    uninstall_quiet_logs,
)

__all__ = [
    "LOGGERS",
    "DepartureFilter",
    "StdlibOutlet",
    "asyncio_handler",
    "install_quiet_logs",
    "uninstall_quiet_logs",
]

DepartureFilter = QuietLogs
"""The old name of `cleanclose.quiet.QuietLogs`."""
asyncio_handler = install_quiet_asyncio
"""The old name of `cleanclose.quiet.install_quiet_asyncio`."""

_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message"})
"""The attributes that every record has. As ``extra`` these names would raise
(`logging.Logger.makeRecord`)."""


class StdlibOutlet(LineOutlet):
    """An outlet that logs each event with the standard library, without structlog.

    The message is the event's name, and the fields are attributes of the record (``extra``), where
    a JSON formatter finds them.

    Args:
        levels: How loud each event is. Default: the table as it stands.
        logger: The logger's name.
        flood: When lines of the same kind start to be folded. None: never.
        ids: Where else to look for ids; see `cleanclose.core.tell.lines.LineOutlet`.
        mapping: Other names for the fields: called with the event's name and the fields, it
            returns what the record has instead. See `cleanclose.integrations.schemas`.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: ``flood`` is no `cleanclose.core.Flood`, or one of ``ids`` or ``mapping``
            cannot be called.
    """

    def __init__(
        self,
        levels: Levels | None = None,
        *,
        logger: str = LOGGER_NAME,
        flood: Flood | None = DEFAULT_FLOOD,
        ids: Iterable[Ids] = (),
        mapping: Callable[[str, Mapping[str, object]], Mapping[str, object]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(levels, flood=flood, ids=ids, clock=clock)
        if mapping is not None and not callable(mapping):
            raise TypeError(f"mapping must be callable or None, not {mapping!r}")
        self._logger = logging.getLogger(logger)
        self._mapping = mapping

    def is_on(self, level: int) -> bool:
        """Whether the logger is enabled for the level."""
        return self._logger.isEnabledFor(level)

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Log one record."""
        given = fields if self._mapping is None else self._mapping(name, fields)
        extra = {f"{key}_" if key in _RECORD else key: value for key, value in given.items()}
        self._logger.log(level, name, extra=extra, exc_info=error)
