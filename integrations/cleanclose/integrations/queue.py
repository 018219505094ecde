"""A queue before a slow outlet, so that no request waits for it.

An outlet is called in the request's own thread, or in the event loop. One that talks to something
over a network belongs behind a queue. For slow log handlers there is the standard library's
`logging.handlers.QueueHandler`.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import os
import queue
import threading
import time
import weakref
from typing import Final

from cleanclose.core import LOGGER_NAME, Event, Outlet, count_outlet_drop, count_outlet_error

__all__ = ["QueuedOutlet"]

_AT_EXIT: Final = 1.0
"""Seconds for which the end of the process waits for what is in the queue."""

_Item = tuple[contextvars.Context, Event]


class QueuedOutlet:
    """Hands events to another outlet in a thread of its own.

    There is one daemon thread for each object, from its first event on; after a fork the child
    makes its own. An event for which there is no room is dropped and counted
    (``cleanclose_outlet_dropped_events_total``). What the outlet raises is counted and reported
    once, as for any other. It is called with the context variables of the request.

    At the end of the process what is left has one second.

    Args:
        outlet: The outlet that may be slow.
        size: How many events may wait. Default 1,000.

    Raises:
        TypeError: The outlet cannot be called.
        ValueError: ``size`` is no whole number of 1 or more.
    """

    def __init__(self, outlet: Outlet, *, size: int = 1000) -> None:
        _check_size(size)
        if not callable(outlet):
            raise TypeError(f"outlet must be callable, not {outlet!r}")
        self._outlet = outlet
        self._size = size
        self._reported = False
        self._closed = False
        self._renew()
        reference: weakref.ReferenceType[QueuedOutlet] = weakref.ref(self)
        if hasattr(os, "register_at_fork"):
            # The child has neither the thread nor a right to what is the parent's to tell; and
            # the parent's thread may have held a lock.
            os.register_at_fork(after_in_child=lambda: _call(reference, "_renew"))
        atexit.register(lambda: _call(reference, "_finish"))

    def __call__(self, event: Event, /) -> None:
        """Put an event into the queue, or drop it. It waits for nothing."""
        if self._closed:
            count_outlet_drop()
            return
        with self._changed:
            if self._queue.qsize() >= self._size:
                count_outlet_drop()
                return
            if self._thread is None:
                self._start()
            self._unfinished += 1
            self._queue.put((contextvars.copy_context(), event))

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until the outlet has had what is in the queue by now.

        Args:
            seconds: How long at most.

        Returns:
            Whether it has.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._unfinished:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, seconds: float = 5.0) -> bool:
        """Take no more events, and wait for what is in the queue.

        Args:
            seconds: How long at most.

        Returns:
            Whether the outlet has had all of it.
        """
        self._closed = True
        done = self.flush(seconds)
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if done:
                thread.join(seconds)
        return done

    def _renew(self) -> None:
        # Neither of the two minds if the cyclic collector ends another exchange inside of it, in
        # the same thread: queue.Queue would wait for itself.
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._unfinished = 0
        self._thread: threading.Thread | None = None

    def _finish(self) -> None:
        if self._thread is not None:
            self.flush(_AT_EXIT)

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run, args=(self._queue,), name="cleanclose-outlet", daemon=True
        )
        # It may fail for want of threads, and not the next time.
        thread.start()
        self._thread = thread

    def _run(self, waiting: queue.SimpleQueue[_Item | None]) -> None:
        while True:
            item = waiting.get()
            if item is None:
                return
            try:
                context, event = item
                context.run(self._outlet, event)
            except BaseException as error:  # noqa: BLE001 - the next event is another matter
                self._failed(error)
            finally:
                # Nothing of a request may be kept while the next one is waited for.
                item = context = event = None  # type: ignore[assignment]
                with self._changed:
                    self._unfinished -= 1
                    self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        count_outlet_error()
        if not self._reported:
            self._reported = True
            with contextlib.suppress(Exception):
                logging.getLogger(LOGGER_NAME).error(
                    "An outlet failed: %r", self._outlet, exc_info=error
                )


def _check_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of 1 or more, not {size!r}")


def _call(reference: weakref.ReferenceType[QueuedOutlet], method: str) -> None:
    outlet = reference()
    if outlet is not None:
        getattr(outlet, method)()
