"""A queue before a slow outlet, so that no request waits for it.

An outlet is called in the request's own thread, or in the event loop. An outlet that uses a network
belongs behind a queue. For slow log handlers, use the standard library's
`logging.handlers.QueueHandler`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections import deque
from typing import Final

from cleanclose.core import (
    LOGGER_NAME,
    Event,
    Lock,
    Outlet,
    at_exit,
    count_outlet_drop,
    count_outlet_error,
    renew_after_fork,
)

__all__ = ["QueuedOutlet"]

_AT_EXIT: Final = 1.0
"""Seconds for which the process waits for the queue when it ends."""

_Item = tuple[contextvars.Context, Event]


class QueuedOutlet:
    """Hands events to another outlet in a thread of its own.

    Each object has one daemon thread, which starts with the first event; after a fork the child
    starts its own. Where gevent or eventlet have patched threads before the first event, a greenlet
    takes its place. The queue drops and counts an event for which it has no room
    (``cleanclose_outlet_dropped_events_total``). It counts what the outlet raises, and reports it
    once, as for any other outlet. It calls the outlet with the context variables of the request.

    When the process ends, the remaining events have one second.

    Args:
        outlet: The outlet that may be slow.
        size: How many events may wait. Default 1,000.

    Raises:
        TypeError: The outlet cannot be called.
        ValueError: ``size`` is not a whole number of 1 or more.
    """

    def __init__(self, outlet: Outlet, *, size: int = 1000) -> None:
        _check_size(size)
        if not callable(outlet):
            raise TypeError(f"outlet must be callable, not {outlet!r}")
        self._outlet = outlet
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._reported = False
        self._closed = False
        self._lock = Lock()
        self.renew()
        renew_after_fork(self)
        at_exit(self)

    def renew(self) -> None:
        """A child has just been forked: neither the thread nor the waiting events are its own."""
        self._runner: _Runner | None = None

    def finish(self) -> None:
        """The interpreter exits."""
        self.flush(_AT_EXIT)

    def __getstate__(self) -> dict[str, object]:
        """For copy and pickle: an empty queue before the same outlet."""
        return {"_outlet": self._outlet, "_size": self._size}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Begin as a copy."""
        self.__dict__.update(state)
        self._begin()

    def __call__(self, event: Event, /) -> None:
        """Put an event into the queue, or drop it, without waiting."""
        with self._lock:
            if self._closed or (self._runner is not None and self._runner.waiting >= self._size):
                count_outlet_drop()
                return
            if self._runner is None:
                self._runner = self._started()
            self._runner.add((contextvars.copy_context(), event))

    def _started(self) -> _Runner:
        # Set before it starts: where threads are greenlets, others run meanwhile.
        runner = self._runner = _Runner(self)
        try:
            runner.thread.start()
        except BaseException:
            # It may fail because no thread is left, and succeed the next time.
            self._runner = None
            raise
        return runner

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until the outlet has had all events that are in the queue now.

        Args:
            seconds: The longest time to wait.

        Returns:
            Whether it has had them.
        """
        runner = self._runner
        return runner is None or runner.wait(seconds)

    def close(self, seconds: float = 5.0) -> bool:
        """Accept no more events, and wait for those in the queue.

        Args:
            seconds: The longest time to wait.

        Returns:
            Whether the outlet has had all of them.
        """
        self._closed = True
        done = self.flush(seconds)
        runner = self._runner
        if runner is not None:
            runner.end()
            if done:
                runner.thread.join(seconds)
        return done

    def hand_on(self, item: _Item) -> None:
        """Hand an event to the outlet: in the queue's own thread."""
        context, event = item
        try:
            context.run(self._outlet, event)
        except BaseException as error:
            count_outlet_error()
            if not self._reported:
                self._reported = True
                with contextlib.suppress(Exception):
                    logging.getLogger(LOGGER_NAME).error(
                        "An outlet failed: %r", self._outlet, exc_info=error
                    )


class _Runner:
    """A queue and its thread, both made for the kind of threads that the first event found.

    An outlet may be made before gevent patches threads (``gunicorn --preload``, a late
    ``patch_all``): a queue made before that would block every greenlet for ever as soon as one
    waits for it.
    """

    def __init__(self, queued: QueuedOutlet) -> None:
        self._queued = queued
        self._items: deque[_Item | None] = deque()
        # Locked while there is nothing to do. A queue.Queue or a condition would not
        # work: the garbage collector may end another exchange inside of either, in the same thread.
        self._idle = threading.Lock()
        self._idle.acquire()
        self._changed = threading.Condition(threading.RLock())
        self._unfinished = 0
        self.thread = threading.Thread(target=self._run, name="cleanclose-outlet", daemon=True)

    @property
    def waiting(self) -> int:
        """How many events have not reached the outlet."""
        return len(self._items)

    def add(self, item: _Item) -> None:
        """Add an event."""
        with self._changed:
            self._unfinished += 1
        self._put(item)

    def end(self) -> None:
        """Let the thread end after the queue's last event."""
        self._put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until the outlet has had all events.

        Returns:
            Whether it has, within so many seconds.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._unfinished:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _put(self, item: _Item | None) -> None:
        self._items.append(item)
        # It is already free if the thread has not taken it again yet.
        with contextlib.suppress(RuntimeError):
            self._idle.release()

    def _run(self) -> None:
        while True:
            self._idle.acquire()
            while self._items:
                item = self._items.popleft()
                if item is None:
                    return
                try:
                    self._queued.hand_on(item)
                finally:
                    # Keep nothing of a request while waiting for the next one.
                    item = None
                    with self._changed:
                        self._unfinished -= 1
                        self._changed.notify_all()


def _check_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of 1 or more, not {size!r}")
