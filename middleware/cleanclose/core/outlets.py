"""Where events go, and why none of it can disturb a request."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import inspect
import logging
import math
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, cast

import structlog

from cleanclose.core.counters import PROCESS, Counters
from cleanclose.core.events import DepartureSurge, Event, Facts, UpstreamReset
from cleanclose.core.floods import DEFAULT_FLOOD, FOLDED, Flood, FloodControl, Fold
from cleanclose.core.levels import Levels
from cleanclose.core.listening import listen
from cleanclose.core.outside import contained
from cleanclose.core.process import at_exit, renew_after_fork
from cleanclose.core.watch import Watch

__all__ = [
    "LISTENERS",
    "LOGGER_NAME",
    "Detector",
    "Ids",
    "LineOutlet",
    "Outlet",
    "Reporter",
    "StructlogOutlet",
    "event_of_line",
    "on_event",
]

LOGGER_NAME: Final = "cleanclose"
"""The logger of the lines about events."""


class Outlet(Protocol):
    """Something that receives events. It is called in the request's own thread or task."""

    def __call__(self, event: Event, /) -> None:
        """Receive one event.

        Whatever it raises is counted and reported once, be it no `Exception`. Only what interrupts
        it from outside goes on: a signal handler's exception, a greenlet's end.
        """


Ids = Callable[[], Mapping[str, object]]
"""Ids of the request that is being handled, by the names that they have in a line."""


_ABOUT: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar(
    "cleanclose_line", default=None
)


def event_of_line() -> str | None:
    """The name of the event that a line is about which is written here and now.

    For what looks at lines on their way (a filter, a tracker's hook): a line's text says nothing
    about what it is, because a client chooses parts of it.

    Returns:
        The name, also for the line that stands for many such events; None for every line that no
        `LineOutlet` writes.
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
    """What outlets have in common that write a line for each event.

    A subclass writes them. Lines that say the same are folded
    (`cleanclose.core.floods.FloodControl`): what stands for them is written with the next event
    after their time, by `flush`, and when the interpreter exits.

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
        self._ids = _callables("ids", ids)
        self._clock = clock
        self._flood = flood
        self._begin()

    def _begin(self) -> None:
        self.renew()
        if self._flood is not None:
            renew_after_fork(self)
            at_exit(self)

    def renew(self) -> None:
        """In a child that has just been forked: what was folded before is its parent's to tell."""
        self._control = None if self._flood is None else FloodControl(self._flood)

    def finish(self) -> None:
        """The interpreter exits."""
        self.flush()

    def __getstate__(self) -> dict[str, object]:
        """For copy and pickle: what was folded is this one's to tell."""
        return {**self.__dict__, "_control": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Begin as a copy."""
        self.__dict__.update(state)
        self._begin()

    def __call__(self, event: Event, /) -> None:
        """Write the event's line, at its level.

        Raises:
            BaseException: What one of ``ids`` has raised, once the line is written.
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
        """Write what stands for the lines that were folded so far."""
        control = self._control
        if control is not None:
            self._tell(control.rest())

    def write_due(self) -> None:
        """Write what stands for folded lines whose time is over."""
        if self._control is None:
            return
        self._tell(self._control.due(self._clock()))

    def is_on(self, level: int) -> bool:
        """Whether a line of this level would be seen, as far as that is known."""
        return True

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Write one line: the subclass's to do.

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
        self._structured: Any = structlog.get_logger(LOGGER_NAME)
        self._plain = logging.getLogger(LOGGER_NAME)

    def is_on(self, level: int) -> bool:
        """Whether a line of this level would be seen: what a configured structlog shows is its."""
        return structlog.is_configured() or self._plain.isEnabledFor(level)

    def write(
        self, level: int, name: str, fields: dict[str, object], error: BaseException | None
    ) -> None:
        """Write one line."""
        if not structlog.is_configured():
            text = str(_RENDER(None, "", {"event": name, **fields}))
            extra = {"event": name, **fields}
            # An argument of its own: a field may have a per cent sign.
            self._plain.log(level, "%s", text, exc_info=error, extra=extra)
            return
        if error is not None:
            fields["exc_info"] = error
        # By its name: all of structlog's classes have these methods, and not all have log(), nor
        # do those that have it know other numbers than these.
        result: object = getattr(self._logger(), _method(level))(name, **fields)
        if inspect.iscoroutine(result):
            _see_through(result)

    def _logger(self) -> Any:
        config = structlog.get_config()
        wrapper: object = config["wrapper_class"]
        if isinstance(wrapper, type) and issubclass(wrapper, structlog.stdlib.AsyncBoundLogger):
            # Its methods have to be awaited, and it can only be made where a loop runs.
            factory: Any = config["logger_factory"]
            return structlog.wrap_logger(
                factory(LOGGER_NAME), wrapper_class=structlog.stdlib.BoundLogger
            )
        return self._structured


_RENDER: Final = structlog.processors.KeyValueRenderer(key_order=["event"])

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
    """See an asynchronous logger's call through, which nobody here can await."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        # Not asyncio.run(): behind that, the thread's own loop would be no more.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(coroutine)
        return
    task = loop.create_task(coroutine)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)


def _callables(name: str, given: Iterable[object]) -> tuple[Any, ...]:
    """What is given, if each of it can be called and needs not be awaited."""
    if not isinstance(cast("object", given), Iterable):
        raise TypeError(f"{name} must be a collection of callables, not {given!r}")
    found = tuple(given)
    for number, each in enumerate(found):
        if not callable(each):
            raise TypeError(f"{name}[{number}] must be callable, not {each!r}")
        if inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(
            getattr(each, "__call__", None)  # noqa: B004 - not whether, but what it is
        ):
            raise TypeError(f"{name}[{number}] must not be asynchronous: nobody awaits {each!r}")
    return found


class Detector(Protocol):
    """What looks for what departures have in common: `cleanclose.surge.Surge` is one."""

    @property
    def sample_at(self) -> float:
        """`request_begins` is to be asked about a request that begins at this time or later."""
        ...

    def request_begins(self, now: float) -> bool:
        """Whether the request that begins now is one of the samples."""
        ...

    def request_over(self, facts: Facts, now: float) -> None:
        """A request that is a sample is over, and its client has not left."""

    def see(self, event: Event, now: float) -> Sequence[DepartureSurge]:
        """An event has been sent: the warnings that follow from it."""
        ...


LISTENERS: Final[list[Outlet]] = []
"""Outlets of the process: called behind those of each reporter."""


def on_event(outlet: Outlet) -> Callable[[], None]:
    """Hear of the events of all middleware in this process, whatever its outlets are.

    Args:
        outlet: Called with each event, behind the outlets. If it listens already, it is not
            called twice.

    Returns:
        A function that ends this; it may be called more than once.

    Raises:
        TypeError: It cannot be called, or would have to be awaited.
    """
    _callables("outlets", (outlet,))
    return listen(LISTENERS, outlet)


class Reporter:
    """Counts an event, then hands it to the outlets, and to `LISTENERS`.

    Args:
        outlets: The outlets, called in this order. None: one `StructlogOutlet`.
        levels: How loud each event is, for that one.
        counters: What counts. Default: this process's counters.
        surge: What tells when departures stop being random. None: nothing does.
        clock: A clock that only goes forward, in seconds.

    Raises:
        TypeError: One of the outlets cannot be called, or would have to be awaited.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet] | None = None,
        *,
        levels: Levels | None = None,
        counters: Counters = PROCESS,
        surge: Detector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._surge = surge
        self._clock = clock
        self.sample_at: float = math.inf if surge is None else 0.0
        """`request_begins` is to be told of a request that begins at this time or later."""
        self._outlets: tuple[Outlet, ...] = (
            (StructlogOutlet(levels),) if outlets is None else _callables("outlets", outlets)
        )
        self._counters = counters
        self._reported: set[int] = set()

    def __getstate__(self) -> dict[str, object]:
        """For copy and pickle: what only means something here and now begins anew."""
        sample_at = math.inf if self._surge is None else 0.0
        return {**self.__dict__, "_reported": set[int](), "sample_at": sample_at}

    def __deepcopy__(self, memo: dict[int, Any]) -> Reporter:
        """A reporter to the same outlets: they are where events go, be it twice the same."""
        copied = copy.copy(self)
        copied._surge = copy.deepcopy(self._surge, memo)
        return copied

    def report(self, event: Event | None) -> None:
        """Count and pass on an event. Never raises on an outlet's account.

        Args:
            event: The event, or None where there is nothing to say.
        """
        if event is None:
            return
        self._counters.count(event)
        for outlet in (*self._outlets, *LISTENERS):
            with contained(partial(self._failed, outlet)):
                outlet(event)
        if self._surge is not None and not isinstance(event, DepartureSurge):
            for surge in self._see(self._surge, event):
                self.report(surge)

    def request_begins(self, watch: Watch) -> None:
        """A request begins that may become a sample of what requests there are: see `sample_at`.

        Args:
            watch: The request. `request_over` is to be told of it if it is marked as a sample.
        """
        if self._surge is not None:
            watch.is_sample = self._surge.request_begins(watch.started)
            self.sample_at = self._surge.sample_at

    def request_over(self, watch: Watch) -> None:
        """A request that is a sample is over, however it has ended. Never raises.

        Args:
            watch: The request.
        """
        surge = self._surge
        # Who is left is told as an event.
        if surge is None or watch.departure is not None:
            return
        with contained(partial(self._failed, surge)):
            surge.request_over(watch.facts(), self._clock())

    def _see(self, surge: Detector, event: Event) -> Sequence[DepartureSurge]:
        found: list[DepartureSurge] = []
        with contained(partial(self._failed, surge)):
            found += surge.see(event, self._clock())
        return found

    def _failed(self, outlet: object, error: BaseException) -> None:
        self._counters.count_outlet_error()
        if id(outlet) not in self._reported:
            self._reported.add(id(outlet))
            # A filter of the application's may raise as well, and is not caught by logging.
            with contained():
                logging.getLogger(LOGGER_NAME).error("An outlet failed: %r", outlet, exc_info=error)
