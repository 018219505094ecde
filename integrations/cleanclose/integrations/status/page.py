"""The figures that the page shows, and where they come from."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

from cleanclose.core import (
    ClientDeparted,
    DepartureSurge,
    Event,
    KernelFigures,
    Lock,
    Outcome,
    UploadDrained,
    kernel_figures,
    snapshot,
)
from cleanclose.integrations.status.drawing import BARS, PHASES
from cleanclose.integrations.status.showing import Shown, show

__all__ = ["StatusPage"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MOST_SURGES: Final = 20


class StatusPage:
    """The page, which is also an outlet: it shows the events that it receives.

    The counters belong to this process: with several workers, each has a page of its own, which
    names its process. The page keeps only the numbers of the last ``minutes`` and the last 20
    surges.

    Args:
        title: The page's heading. Default ``cleanclose``.
        minutes: How many minutes the plots show, from 2 to 1,440. Default 60.
        show_clients: Whether the networks of clients are shown, where a surge names one. Default
            False.
        kernel: Whether the kernel's figures are shown (Linux): those of everything that shares
            this process's network, other services included. Default True.
        clock: The time in seconds since 1970, which may be set at any moment.
        monotonic: The time in seconds on a clock that only goes forward. It gives bars and surges
            their places.

    Raises:
        ValueError: An argument has the wrong type or is out of its range.
    """

    def __init__(
        self,
        *,
        title: str = "cleanclose",
        minutes: int = 60,
        show_clients: bool = False,
        kernel: bool = True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_text("title", title)
        _check_minutes(minutes)
        _check_flag("show_clients", show_clients)
        _check_flag("kernel", kernel)
        self._title = title
        self._seconds = minutes * 60 / BARS
        self._show_clients = show_clients
        self._kernel = kernel
        self._clock = clock
        self._monotonic = monotonic
        self._since = monotonic()
        self._lock = Lock()
        self._bars: deque[tuple[int, Counter[str]]] = deque(maxlen=BARS)
        self._surges: deque[tuple[float, DepartureSurge]] = deque(maxlen=_MOST_SURGES)

    def __call__(self, event: Event, /) -> None:
        """Receive an event, as an outlet."""
        match event:
            case ClientDeparted():
                key = event.verdict.phase.value
            case UploadDrained():
                key = event.outcome.value
            case DepartureSurge():
                with self._lock:
                    self._surges.append((self._monotonic(), event))
                return
            case _:
                return
        with self._lock:
            bar = int(self._monotonic() / self._seconds)
            if not self._bars or self._bars[-1][0] < bar:
                self._bars.append((bar, Counter()))
            self._bars[-1][1][key] += 1

    # The adapters. Each imports its framework only when you use it.

    async def asgi(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The page as an ASGI application, for any path below the one it is mounted at.

        Raises:
            ImportError: Starlette is not installed: ``cleanclose[asgi]`` brings it.
            ValueError: The scope is not of type ``http``.
        """
        from cleanclose.integrations.status._on_starlette import StatusEndpoint

        if scope["type"] != "http":
            raise ValueError(f"the status page speaks HTTP, not {scope['type']}")
        await StatusEndpoint(self._show, scope, receive, send)

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The page as a WSGI application, for any path below the one it is mounted at.

        Raises:
            ImportError: Werkzeug is not installed: ``cleanclose[wsgi]`` brings it.
        """
        from cleanclose.integrations.status._on_werkzeug import respond

        return respond(self._show, environ, start_response)

    @property
    def tornado(self) -> Any:
        """The page as a `tornado.web.RequestHandler`, for a route of the application's.

        Raises:
            ImportError: Tornado is not installed: ``cleanclose[tornado]`` brings it.
        """
        from cleanclose.integrations.status._on_tornado import handler_for

        return handler_for(self._show)

    # What is shown.

    def figures(self) -> dict[str, Any]:
        """Everything that the page shows, as plain values: the JSON that a client can ask for."""
        now, at = self._clock(), self._monotonic()
        # Added to a moment's monotonic time, this gives the time of day as the clock, set by now,
        # has it.
        set_by = now - at
        last = int(at / self._seconds)
        with self._lock:
            bars = dict(self._bars)
            surges = list(self._surges)
        numbers = [bars.get(number, Counter()) for number in range(last - BARS + 1, last + 1)]
        kernel = kernel_figures() if self._kernel else None
        return {
            "title": self._title,
            "process": {
                "pid": os.getpid(),
                "python": platform.python_version(),
                "since": _iso(self._since + set_by),
                "now": _iso(now),
            },
            "counters": snapshot(),
            "surges": [self._surge(seen + set_by, surge) for seen, surge in reversed(surges)],
            "series": {
                "from": _iso((last - BARS + 1) * self._seconds + set_by),
                "seconds_each": self._seconds,
                "departures": {
                    phase.value: [bar[phase.value] for bar in numbers] for phase in PHASES
                },
                "early_responses": {
                    outcome.value: [bar[outcome.value] for bar in numbers] for outcome in Outcome
                },
            },
            "kernel": None if kernel is None else _kernel(kernel),
        }

    def _surge(self, at: float, surge: DepartureSurge) -> dict[str, Any]:
        fields = surge.fields()
        fields.pop("age_ms", None)
        if not self._show_clients:
            fields.pop("network", None)
        return {"at": _iso(at), **fields}

    def _show(self, accept: str) -> Shown:
        return show(self.figures(), accept)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {value!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def _check_minutes(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 1440:
        raise ValueError(f"minutes must be a whole number from 2 to 1440, not {value!r}")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _kernel(figures: KernelFigures) -> dict[str, Any]:
    return {
        "counters": dict(figures.counters),
        "listeners": [dataclasses.asdict(listener) for listener in figures.listeners],
    }
