"""uvicorn's access log: 499 for a client that left.

uvicorn writes its line when the response's head goes out (``RequestResponseCycle.send``), before
anybody can know how it ends. It writes none at all for a client that has left by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from typing import Any, Final

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from cleanclose.core import Watch, current, on_departure

__all__ = ["AccessFilter"]

_LOGGER: Final = "uvicorn.access"
_FORMAT: Final = '%s - "%s %s HTTP/%s" %d'
_DEPARTED: Final = 499
_SEEN: Final = "cleanclose_access"
"""On a watch: the filter keeps its line. On a record: the filter has seen it."""


class AccessFilter(logging.Filter):
    """Keeps a request's access line until the request ends, and then writes how it ended.

    For the logger ``uvicorn.access`` (not for a handler), in a configuration of logging or with
    `install`. A client that left gets the status 499, which is never sent; if it left before the
    response began, the filter writes the line itself, in uvicorn's words. All other lines stay as
    they were, with the time at which uvicorn made them. They appear when the request is over, so a
    stream's line appears at its end.

    It leaves alone the lines of requests that do not pass the middleware, and of servers other than
    uvicorn.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        reference = weakref.ref(self)

        def departed() -> None:
            here = reference()
            if here is not None:
                with contextlib.suppress(Exception):
                    here._departed()

        self._stop_listening = on_departure(departed)
        # A filter that is gone must not leave its listener.
        weakref.finalize(self, self._stop_listening).atexit = False

    @classmethod
    def install(cls) -> AccessFilter:
        """Put one filter on the logger ``uvicorn.access``, if it has none.

        Returns:
            The one that is there.
        """
        logger = logging.getLogger(_LOGGER)
        for each in logger.filters:
            if isinstance(each, cls):
                return each
        made = cls()
        logger.addFilter(made)
        return made

    @classmethod
    def uninstall(cls) -> None:
        """Undo `install`: take the filter off the logger. A second call does nothing.

        Requests that are under way still write the lines that the filter has kept.
        """
        logger = logging.getLogger(_LOGGER)
        for each in tuple(logger.filters):
            if isinstance(each, cls):
                logger.removeFilter(each)
                each._stop_listening()

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record back if it belongs to a request whose end is not known."""
        if hasattr(record, _SEEN) or not isinstance(record.args, tuple) or len(record.args) != 5:
            return True
        watch = current()
        if watch is None or _scope(watch) is None:
            return True
        setattr(record, _SEEN, True)
        return not self._release_at_end(watch, record)

    def _departed(self) -> None:
        watch = current()
        scope = None if watch is None else _scope(watch)
        if watch is None or scope is None or hasattr(watch, _SEEN) or not watch.has_left():
            return
        logger = logging.getLogger(_LOGGER)
        if not logger.isEnabledFor(logging.INFO):
            return
        record = logger.makeRecord(
            _LOGGER,
            logging.INFO,
            __file__,
            0,
            _FORMAT,
            (
                get_client_addr(scope),
                scope["method"],
                get_path_with_query_string(scope),
                scope["http_version"],
                _DEPARTED,
            ),
            None,
        )
        setattr(record, _SEEN, True)
        if not self._release_at_end(watch, record):
            logger.handle(record)

    def _release_at_end(self, watch: Watch, record: logging.LogRecord) -> bool:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        setattr(watch, _SEEN, True)
        if task is None:
            return False

        def release(_: asyncio.Task[Any]) -> None:
            # Nobody has yet asked whether this client has left.
            watch.ask()
            if watch.has_left() and isinstance(record.args, tuple):
                record.args = (*record.args[:4], _DEPARTED)
            logging.getLogger(record.name).handle(record)

        task.add_done_callback(release)
        return True


def _scope(watch: Watch) -> Any:
    """The scope of a request that uvicorn serves; None for all else."""
    scope: Any = getattr(watch, "scope", None)
    server: Any = getattr(watch, "server", None)
    if scope is None or scope["type"] != "http" or getattr(server, "name", None) != "uvicorn":
        return None
    return scope
