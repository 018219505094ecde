"""What the page knows, and how it is served on each interface."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
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
from cleanclose.integrations.status.drawing import BARS, PHASES, POLICY, render

__all__ = ["StatusPage"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MOST_SURGES: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class StatusPage:
    """The page, and the outlet that it learns from.

    The counters are this process's own; with several workers each has its own page, and the page
    says whose it is. Nothing is kept but the numbers of the last ``minutes`` and the last 20
    surges.

    Args:
        title: What the page is headed with. Default ``cleanclose``.
        minutes: How many minutes the plots show, from 2 to 1,440. Default 60.
        show_clients: Whether the networks of clients are shown, where a surge names one. Default
            False.
        kernel: Whether the kernel's figures are shown (Linux): those of everything that shares
            this process's network, other services included. Default True.
        clock: The time in seconds since 1970.

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
        self._since = clock()
        self._lock = Lock()
        self._bars: deque[tuple[int, Counter[str]]] = deque(maxlen=BARS)
        self._surges: deque[tuple[float, DepartureSurge]] = deque(maxlen=_MOST_SURGES)
        self._handler: Any = None

    def __call__(self, event: Event, /) -> None:
        """Take note of an event: this is an outlet."""
        match event:
            case ClientDeparted():
                key = event.verdict.phase.value
            case UploadDrained():
                key = event.outcome.value
            case DepartureSurge():
                with self._lock:
                    self._surges.append((self._clock(), event))
                return
            case _:
                return
        with self._lock:
            bar = int(self._clock() / self._seconds)
            if not self._bars or self._bars[-1][0] < bar:
                self._bars.append((bar, Counter()))
            self._bars[-1][1][key] += 1

    # The adapters.

    async def asgi(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """The page as an ASGI application, for any path below the one it is mounted at.

        Raises:
            ValueError: The scope is none of HTTP.
        """
        if scope["type"] != "http":
            raise ValueError(f"the status page speaks HTTP, not {scope['type']}")
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        answer = self._answer(scope["method"], accept.decode("latin-1"))
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def wsgi(
        self, environ: Mapping[str, Any], start_response: Callable[..., object]
    ) -> Iterable[bytes]:
        """The page as a WSGI application, for any path below the one it is mounted at."""
        answer = self._answer(environ["REQUEST_METHOD"], environ.get("HTTP_ACCEPT", ""))
        start_response(f"{answer.status} {answer.reason}", list(answer.headers))
        return [answer.body]

    @property
    def tornado(self) -> Any:
        """The page as a `tornado.web.RequestHandler`, for a route of the application's.

        Raises:
            ImportError: Tornado is not installed.
        """
        if self._handler is None:
            self._handler = _tornado_handler(self._answer)
        return self._handler

    # What is shown.

    def figures(self) -> dict[str, Any]:
        """Everything that the page shows, as plain values: what a client gets as JSON."""
        now = self._clock()
        last = int(now / self._seconds)
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
                "since": _iso(self._since),
                "now": _iso(now),
            },
            "counters": snapshot(),
            "surges": [self._surge(at, surge) for at, surge in reversed(surges)],
            "series": {
                "from": _iso((last - BARS + 1) * self._seconds),
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

    def _answer(self, method: str, accept: str) -> _Answer:
        if method not in ("GET", "HEAD"):
            headers = [("Allow", "GET, HEAD"), ("Content-Length", "0")]
            return _Answer(405, "Method Not Allowed", headers, b"")
        figures = self.figures()
        if _wants_json(accept):
            content_type = "application/json"
            body = json.dumps(figures).encode()
        else:
            content_type = "text/html; charset=utf-8"
            body = render(figures).encode()
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ]
        return _Answer(200, "OK", headers, b"" if method == "HEAD" else body)


def _tornado_handler(answer: Callable[[str, str], _Answer]) -> Any:
    # Only those who use it have it.
    from tornado import web

    class StatusHandler(web.RequestHandler):
        """The status page."""

        def _show(self) -> None:
            request = self.request
            shown = answer(request.method or "GET", request.headers.get("Accept", ""))
            self.set_status(shown.status)
            for name, value in shown.headers:
                self.set_header(name, value)
            self.write(shown.body)  # pyright: ignore[reportUnknownMemberType]

        get = head = post = put = patch = delete = options = _show

    return StatusHandler


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


def _wants_json(accept: str) -> bool:
    """Whether a client asks for JSON, and not at least as much for HTML (RFC 9110, 12.5.1)."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights[kind] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
    json_weight = weights.get("application/json", 0.0)
    return json_weight > 0 and json_weight > weights.get("text/html", 0.0)
