"""The kernel's own reasons for the resets that the servers send, where it can be asked."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from cleanclose.doctor.kernel.tracing import Direction, Reset, Tracer, Untraceable

__all__ = ["ResetWatch"]

_EVERY: Final = 0.05
_MEANWHILE: Final = 2 * _EVERY


class ResetWatch:
    """Collects every reset while it is entered; none where tracing is impossible."""

    def __init__(self) -> None:
        self._tracer = Tracer()
        self._lock = threading.Lock()
        self._seen: list[Reset] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._tracer.__enter__()
        except Untraceable:
            return self
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._tracer.close()

    def catch_up(self) -> None:
        """Wait until all resets up to now have been read."""
        if self._thread is not None:
            time.sleep(_MEANWHILE)

    def sent_from(self, port: int, began: float, ended: float) -> tuple[str, ...]:
        """Give the reasons of the resets that were sent from a loopback port.

        Args:
            port: The port.
            began: The beginning of the time in question, in seconds of `time.monotonic`.
            ended: Its end.
        """
        with self._lock:
            sent = [reset for reset in self._seen if reset.direction is Direction.SENT]
        end = f":{port}"
        return tuple(
            reset.reason or "unknown"
            for reset in sent
            if began <= reset.at < ended and reset.local.endswith(end)
        )

    def _listen(self) -> None:
        while not self._stop.is_set():
            found = self._tracer.read(_EVERY)
            with self._lock:
                self._seen += found
