"""Log lines about events."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Final

from cleanclose.core.counters import PROCESS
from cleanclose.core.events import Event, UpstreamReset
from cleanclose.core.levels import Levels
from cleanclose.core.process import at_exit, renew_after_fork
from cleanclose.core.tell.floods import DEFAULT_FLOOD, FOLDED, Flood, FloodControl, Fold
from cleanclose.core.tell.outlet import callables

__all__ = [
    "LOGGER_NAME",
    "Ids",
    "LineOutlet",
    "StructlogOutlet",
    "event_of_line",
]

LOGGER_NAME: Final = "cleanclose"
"""The logger of the lines about events."""


Ids = Callable[[], Mapping[str, object]]
"""Ids of the request that is being handled, by the names that they have in a line."""


_ABOUT: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar(
    "cleanclose_line", default=None
)


def event_of_line() -> str | None:
    """The name of the event that the line being written is about.

    For code that inspects lines on their way (a filter, a tracker's hook). A line's text proves
    nothing, because a client chooses parts of it.

    Returns:
        The name, also for the line that stands for many such events; None for a line that does not
        come from a `LineOutlet`.
    """
    return _ABOUT.get()


@contextlib.contextmanager
def _line_about(name: str) -> Generator[None]:
    token = _ABOUT.set(name)
    try:
        yield
    finally:
        _ABOUT.reset(token)


class LineOutlet:
    """The base of outlets that write a line for each event.

    A subclass writes the lines. Lines that say the same are folded
    (`cleanclose.core.tell.floods.FloodControl`); the line that stands for them is written with the
    next event after their time, by `flush`, and when the interpreter exits.

    Args:
        levels: How loud each event is. Default: the table as it stands.
        flood: From when on lines of the same kind are folded. None: never.
        ids: Where else to look for ids, besides the request's headers
            (`cleanclose.integrations.ids`). If several find one of the same name, the first
            counts; the headers come last. If one raises, the line is written without it.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: ``flood`` is no `Flood`, or one of ``ids`` cannot be called.
    """

    def __init__(
        self,
        levels: Levels | None = None,
        *,
        flood: Flood | None = DEFAULT_FLOOD,
        ids: Iterable[Ids] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_flood(flood)
        self._levels = levels or Levels()
        self._ids = callables("ids", ids)
        self._clock = clock
        self._flood = flood
        self._begin()

    def _begin(self) -> None:
        self.renew()
        if self._flood is not None:
            renew_after_fork(self)
            at_exit(self)

    def renew(self) -> None:
        """A child has just been forked: its parent reports what was folded before."""
        self._control = None if self._flood is None else FloodControl(self._flood)

    def finish(self) -> None:
        """The interpreter exits."""
        self.flush()

    def __getstate__(self) -> dict[str, object]:
        """For copy and pickle: the original reports what it has folded."""
        return {**self.__dict__, "_control": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Begin as a copy."""
        self.__dict__.update(state)
        self._begin()

    def __call__(self, event: Event, /) -> None:
        """Write the event's line, at its level.

        Raises:
            BaseException: One of ``ids`` has raised it; the line is written first.
        """
        self.write_due()
        level = self._levels.of(event)
        if not self.is_on(level):
            return
        fields = event.fields()
        if not self._is_admitted(event.name, level, fields):
            return
        error: BaseException | None = None
        if isinstance(event, UpstreamReset) and event.restored:
            # Nobody else will show it.
            error = event.exception
        failure = self._add_ids(fields)
        with _line_about(event.name):
            self.write(level, event.name, fields, error)
        if failure is not None:
            raise failure

    def flush(self) -> None:
        """Write the lines that stand for those folded so far."""
        control = self._control
        if control is not None:
            self._tell(control.rest())

    def write_due(self) -> None:
        """Write the lines that stand for folded ones whose time is over."""
        if self._control is None:
            return
        self._tell(self._control.due(self._clock()))

    def is_on(self, level: int) -> bool:
        """Whether a line of this level would be seen, as far as that is known."""
        return True

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Write one line. Subclasses implement it.

        Args:
            level: One of logging's numbers.
            name: The event's name.
            fields: Its fields, with plain values.
            error: An exception whose traceback belongs to it.
        """
        raise NotImplementedError

    def _tell(self, folds: Iterable[Fold]) -> None:
        now = self._clock()
        for fold in folds:
            with _line_about(fold.name):
                self.write(fold.level, FOLDED, fold.fields(now), None)

    def _is_admitted(self, name: str, level: int, fields: Mapping[str, object]) -> bool:
        if self._control is None:
            return True
        admitted, folds = self._control.admit(name, level, fields, self._clock())
        self._tell(folds)
        if not admitted:
            PROCESS.count_folded_event()
        return admitted

    def _add_ids(self, fields: dict[str, object]) -> BaseException | None:
        failure: BaseException | None = None
        # The first one has the last word.
        for ids in reversed(self._ids):
            try:
                fields.update(ids())
            except BaseException as error:  # noqa: BLE001 - the line must not be lost with it
                failure = error
        return failure


def _check_flood(flood: object) -> None:
    if flood is not None and not isinstance(flood, Flood):
        raise TypeError(f"flood must be a Flood or None, not {flood!r}")


class StructlogOutlet(LineOutlet):
    """The default outlet: one structlog event each, named after the event.

    Where the application has configured structlog, its configuration decides. Where it has not,
    the event goes to the standard library's logger ``cleanclose`` as ``name key=value …``, so
    that debug events stay silent until somebody asks for them: structlog's own default would
    print each one. The record has the fields as attributes, too, for formatters that write JSON.

    Args:
        levels: How loud each event is. Default: the table as it stands.
        flood: From when on lines of the same kind are folded. None: never.
        ids: Where else to look for ids; see `LineOutlet`.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: ``flood`` is no `Flood`, or one of ``ids`` cannot be called.
    """

    def __init__(
        self,
        levels: Levels | None = None,
        *,
        flood: Flood | None = DEFAULT_FLOOD,
        ids: Iterable[Ids] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(levels, flood=flood, ids=ids, clock=clock)
        self._structured: Any = None
        self._plain = logging.getLogger(LOGGER_NAME)

    def is_on(self, level: int) -> bool:
        """Whether a line of this level would be seen: what a configured structlog shows is its."""
        return _configured_structlog() is not None or self._plain.isEnabledFor(level)

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Write one line."""
        structlog = _configured_structlog()
        if structlog is None:
            extra = {"event": name, **fields}
            # As structlog's `KeyValueRenderer` has it.
            text = " ".join(f"{key}={value!r}" for key, value in extra.items())
            # Passed as an argument, because a field may contain a per cent sign.
            self._plain.log(level, "%s", text, exc_info=error, extra=extra)
            return
        if error is not None:
            fields["exc_info"] = error
        # By the method's name: all of structlog's classes have these methods. Not all have log(),
        # and those that do know only these numbers.
        result: object = getattr(self._logger(structlog), _method(level))(name, **fields)
        if inspect.iscoroutine(result):
            _see_through(result)

    def _logger(self, structlog: Any) -> Any:
        config = structlog.get_config()
        wrapper: object = config["wrapper_class"]
        if isinstance(wrapper, type) and issubclass(wrapper, structlog.stdlib.AsyncBoundLogger):
            # Its methods need an await, and it can only be made while a loop runs.
            factory: Any = config["logger_factory"]
            return structlog.wrap_logger(
                factory(LOGGER_NAME), wrapper_class=structlog.stdlib.BoundLogger
            )
        if self._structured is None:
            self._structured = structlog.get_logger(LOGGER_NAME)
        return self._structured


def _configured_structlog() -> Any:
    """structlog, if the application has configured it, and None if it has not.

    It is not imported for that: who has configured it has imported it, and the import takes a
    quarter of a second where rich and Twisted are installed.
    """
    module: Any = sys.modules.get("structlog")
    # Another thread may be importing it right now.
    is_configured = getattr(module, "is_configured", None)
    return module if is_configured is not None and is_configured() else None


_METHODS: Final = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)


def _method(level: int) -> str:
    return next((name for least, name in _METHODS if level >= least), "debug")


_RUNNING: Final[set[asyncio.Task[object]]] = set()
"""asyncio itself does not keep its tasks."""


def _see_through(coroutine: Coroutine[Any, Any, object]) -> None:
    """Complete an asynchronous logger's call, which nobody here can await."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        # Not asyncio.run(), which would take away the thread's own loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(coroutine)
        return
    task = loop.create_task(coroutine)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
