"""One thread and a selector, which carry out the steps of `cleanclose.core.deliver.linger`.

Theory of operation. `Lingerer.take` puts a connection into an inbox and wakes the thread through
a pipe; it never waits. The thread waits for bytes and for the next moment at which a connection
needs attention (a heap). It does not read a connection that the server still has, unless the shim
says that nobody else reads it. So it never takes anything from a server that goes on using its
connection.

The thread looks everything up on its modules when it starts: if gevent or eventlet have patched
`threading` and `selectors` by then, the thread is a greenlet and waits like one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import dataclasses
import heapq
import math
import os
import selectors
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.deliver.linger import Close, Discard, Linger, State, Step, Wait
from cleanclose.core.events import Event, Mechanism
from cleanclose.core.kernel import ask_connection
from cleanclose.linger._sockets import SUPPORTED, Descriptor

if sys.platform != "win32":
    import resource

__all__ = ["LINGERER", "Handover", "Lingerer", "Taken", "can_linger"]

LINGERS_ON: Final = 1.0
"""Seconds that the thread stays with nothing to do, because another connection may come."""

_clock: Final = time.monotonic


def can_linger() -> bool:
    """Whether this system allows taking over connections at all."""
    return SUPPORTED


def most_lingering(setting: int) -> int:
    """How many connections may linger: the setting, but at most half of the descriptors.

    Args:
        setting: `cleanclose.core.Settings.max_lingering`.
    """
    if sys.platform == "win32":
        return setting
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return setting if soft == resource.RLIM_INFINITY else max(1, min(setting, soft // 2))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """A connection that is handed over.

    Args:
        linger: Its state, with the rules.
        report: Called with the event at the end, in the context of the hand-over.
        most: How many connections may linger (`cleanclose.core.Settings.max_lingering`).
        held_as: The number of the server's own descriptor: once that is closed, the connection is
            the lingerer's. None if the server has let go already.
    """

    linger: Linger
    report: Callable[[Event], None]
    most: int
    held_as: int | None = None


class _Entry:
    """One lingering connection."""

    __slots__ = (
        "address",
        "context",
        "descriptor",
        "due",
        "handover",
        "held_as",
        "linger",
        "registered",
        "shut",
    )

    def __init__(self, descriptor: Descriptor, handover: Handover) -> None:
        self.descriptor: Descriptor = descriptor
        self.handover: Handover = handover
        self.linger: Linger = handover.linger
        self.held_as: int | None = handover.held_as
        self.address: str | None = descriptor.address()
        self.context: contextvars.Context = contextvars.copy_context()
        # Keeping it would keep the server's buffers for this request.
        self.context.run(CURRENT.set, None)
        self.registered: bool = False
        self.shut: bool = False
        self.due: float = math.inf


class Lingerer:
    """The lingering connections of a process."""

    def __init__(self) -> None:
        self._forget()
        self._stops_at_exit = False

    def _forget(self) -> None:
        # Reentrant: the garbage collector may hand a connection over at any point.
        self._lock = threading.RLock()
        self._running: _Loop | None = None

    def take(self, number: int, handover: Handover, *, own: bool = False) -> Taken | None:
        """Take a connection over, without waiting.

        Args:
            number: The connection's descriptor.
            handover: Everything else about it.
            own: Whether the number itself is handed over, and closed in the end. Otherwise it is
                duplicated, and stays the server's.

        Returns:
            The object to notify about it later; None if no descriptor (or no thread) was left, in
            which case nothing has been done.
        """
        descriptor: Descriptor | None = None
        # Hold the lock from here on: a forked child must know about every descriptor.
        with self._lock:
            try:
                descriptor = Descriptor(number) if own else Descriptor.of(number)
                entry = _Entry(descriptor, handover)
                if self._running is None:
                    self._running = _Loop(self._lock, self._ended)
                    self._stop_at_exit()
                self._running.add(entry)
                return Taken(self._running, entry)
            except (OSError, RuntimeError):
                if descriptor is not None and own:
                    descriptor.give_up()
                elif descriptor is not None:
                    descriptor.close()
                return None

    def _stop_at_exit(self) -> None:
        # Not on import: the last one registered is called first, and the outlets, which have work
        # at the end themselves, must receive the events before that.
        if not self._stops_at_exit:
            self._stops_at_exit = True
            atexit.register(self.stop)

    @property
    def count(self) -> int:
        """How many connections linger at this moment."""
        running = self._running
        return 0 if running is None else running.count

    def _ended(self, loop: _Loop) -> None:
        if self._running is loop:
            self._running = None

    def stop(self) -> None:
        """The process ends: close what is left, and report it."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def before_fork(self) -> None:
        """A parent forks: no descriptor may be half taken or half closed meanwhile."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """The fork is over, with or without a child."""
        self._lock.release()

    def after_fork(self) -> None:
        """In a child: the connections are the parent's."""
        running = self._running
        # A greenlet of the parent goes on in the child, and would wait for it.
        self._lock.release()
        self._forget()
        if running is not None:
            running.abandon()


class Taken:
    """A connection that has been taken over, as seen by the code that sends its response."""

    __slots__ = ("_entry", "_loop")

    def __init__(self, loop: _Loop, entry: _Entry) -> None:
        self._loop = loop
        self._entry = entry

    def let_go(self) -> None:
        """The response is out, and the server no longer has the connection."""
        self._entry.held_as = None
        self._loop.look_at(self._entry)


class _Loop:
    """The thread, from the first connection to the last.

    Args:
        lock: Guards the inbox and the thread's end.
        ended: Called, with the lock held, when the thread ends.
    """

    def __init__(self, lock: Any, ended: Callable[[_Loop], None]) -> None:
        self._lock = lock
        self._ended = ended
        self._inbox: deque[_Entry] = deque()
        self._news: deque[_Entry] = deque()
        self._entries: dict[_Entry, None] = {}
        self._by_address: Counter[str | None] = Counter()
        self._times: list[tuple[float, int, _Entry]] = []
        self._pushed = 0
        self._stopped = False
        self._closed = False
        self._called = False
        self._selector = selectors.DefaultSelector()
        try:
            self._wakes, self._wake = os.pipe()
        except OSError:
            self._selector.close()
            raise
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._wake, False)
        try:
            self._selector.register(self._wakes, selectors.EVENT_READ, None)
            threading.Thread(target=self._run, name="cleanclose-linger", daemon=True).start()
        except (OSError, RuntimeError):
            self._close_own()
            raise

    @property
    def count(self) -> int:
        return len(self._entries) + len(self._inbox)

    # From any thread.

    def add(self, entry: _Entry) -> None:
        """Take an entry in. The caller has the lock."""
        self._inbox.append(entry)
        self._call()

    def look_at(self, entry: _Entry) -> None:
        with self._lock:
            self._news.append(entry)
            self._call()

    def stop(self) -> None:
        now = _clock()
        with self._lock:
            self._stopped = True
            self._call()
            entries = [*self._entries, *self._inbox]
            self._entries.clear()
            self._inbox.clear()
            self._by_address.clear()
            for entry in entries:
                entry.linger.stopped(now)
                entry.linger.kernel_says(self._ask(entry), now)
                self._release(entry)
        for entry in entries:
            self._report(entry)

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors.

        No thread runs there; a greenlet does, and must find nothing to do.
        """
        entries = [*self._entries, *self._inbox]
        self._stopped = True
        self._entries.clear()
        self._inbox.clear()
        # The selector first. Unregistering would affect the parent, which shares it.
        self._close_own()
        for entry in entries:
            entry.descriptor.close()

    def _call(self) -> None:
        # Once the thread has ended, the number may belong to something else.
        if not self._closed and not self._called:
            self._called = True
            # A full pipe wakes the thread as well.
            with contextlib.suppress(OSError):
                os.write(self._wake, b"x")

    # In the thread.

    def _run(self) -> None:
        try:
            idle_since: float | None = None
            while not self._is_over(idle_since):
                now = _clock()
                if self.count:
                    idle_since = None
                elif idle_since is None:
                    idle_since = now
                    # The rest belongs to connections that are gone.
                    self._times.clear()
                self._turn((now if idle_since is None else idle_since) + LINGERS_ON, now)
        except Exception:
            # A greenlet in a forked child finds its selector closed.
            if not self._stopped:
                raise
        finally:
            with self._lock:
                self._ended(self)
                self._close_own()
            # Usually nothing.
            self.stop()

    def _is_over(self, idle_since: float | None) -> bool:
        """Whether the thread ends. If so, it accepts nothing any more."""
        with self._lock:
            if not self._stopped and (
                self.count or idle_since is None or _clock() < idle_since + LINGERS_ON
            ):
                return False
            self._ended(self)
            return True

    def _turn(self, idle_until: float, now: float) -> None:
        ready = self._selector.select(self._seconds(idle_until, now))
        now = _clock()
        for key, _ in ready:
            if key.data is None:
                self._empty_pipe()
            else:
                self._guarded(self._read, key.data, now)
        self._look_into_inbox(now)
        while self._times and self._times[0][0] <= now:
            due, _, entry = heapq.heappop(self._times)
            # Otherwise an earlier moment has been planned since.
            if entry in self._entries and entry.due == due:
                entry.due = math.inf
                self._guarded(self._look, entry, now)

    def _seconds(self, idle_until: float, now: float) -> float:
        if self._inbox or self._news:
            return 0.0
        return max(0.0, (self._times[0][0] if self._times else idle_until) - now)

    def _empty_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wakes, 4096)) == 4096:
                pass
        # Whoever calls from here on, and whoever has called before, is looked for below.
        self._called = False

    def _look_into_inbox(self, now: float) -> None:
        while (entry := self._next_of_inbox()) is not None:
            self._guarded(self._begin, entry, now)
            most = most_lingering(entry.handover.most)
            while (other := self._one_too_many(most)) is not None:
                self._guarded(self._turn_out, other, now)
        while self._news:
            entry = self._news.popleft()
            if entry in self._entries:
                self._guarded(self._begin, entry, now)

    def _next_of_inbox(self) -> _Entry | None:
        with self._lock:
            if not self._inbox:
                return None
            entry = self._inbox.popleft()
            self._entries[entry] = None
            self._by_address[entry.address] += 1
            return entry

    def _guarded(self, work: Callable[[_Entry, float], None], entry: _Entry, now: float) -> None:
        try:
            work(entry, now)
        except Exception:  # noqa: BLE001 - the others' connections must not suffer for one
            entry.linger.stopped(now)
            self._close(entry)

    def _one_too_many(self, most: int) -> _Entry | None:
        """The oldest connection of the address that has most of them, if there are too many."""
        with self._lock:
            if len(self._entries) <= most:
                return None
            address = max(self._by_address, key=lambda each: self._by_address[each])
            return next(entry for entry in self._entries if entry.address == address)

    def _turn_out(self, entry: _Entry, now: float) -> None:
        self._do(entry, entry.linger.turned_out(now), now)

    def _begin(self, entry: _Entry, now: float) -> None:
        self._look_for_let_go(entry, now)
        self._do(entry, entry.linger.step(now), now)

    def _look(self, entry: _Entry, now: float) -> None:
        """Handle a connection whose moment has come."""
        linger = entry.linger
        self._look_for_let_go(entry, now)
        said = self._ask(entry) if linger.asks_kernel else None
        if said is not None and said.reset:
            # It looks the same if both ends have closed in turn; reading tells them apart.
            self._read(entry, now)
        else:
            self._do(entry, linger.kernel_says(said, now), now)

    def _look_for_let_go(self, entry: _Entry, now: float) -> None:
        if entry.linger.state is not State.SENDING:
            return
        if entry.held_as is not None and entry.descriptor.is_held_as(entry.held_as):
            return
        if entry.linger.half_closes:
            entry.descriptor.shut_down()
            entry.shut = True
        entry.linger.let_go(now)

    def _read(self, entry: _Entry, now: float) -> None:
        if entry not in self._entries:
            return
        linger = entry.linger
        try:
            size = entry.descriptor.discard()
        except OSError as error:
            self._do(entry, linger.reset(Mechanism.of(error), self._ask(entry), now), now)
            return
        if size is None:
            step = linger.step(now)
        elif size:
            step = linger.received(size, now)
        else:
            step = linger.ended(self._ask(entry), now)
        if size == 0 and linger.state is State.SENDING:
            # Nothing more will come; the response may still arrive.
            linger.reads = False
            step = linger.step(now)
        self._do(entry, step, now)

    def _ask(self, entry: _Entry) -> Any:
        connection = ask_connection(entry.descriptor.sock, shut=entry.shut)
        if connection is not None and connection.reset and entry.shut:
            # Or both ends have closed in good order (TIME-WAIT is CLOSE to a socket), and what
            # came before is still unread: the next reading tells.
            return dataclasses.replace(connection, reset=False)
        return connection

    def _do(self, entry: _Entry, step: Step, now: float) -> None:
        if isinstance(step, Close):
            entry.linger.kernel_says(self._ask(entry), now)
            self._close(entry)
            return
        self._watch(entry, step.read if isinstance(step, Wait) else isinstance(step, Discard))
        due = now + step.seconds
        if due < entry.due:
            entry.due = due
            self._pushed += 1
            heapq.heappush(self._times, (due, self._pushed, entry))

    def _watch(self, entry: _Entry, wanted: bool) -> None:
        if wanted and not entry.registered:
            self._selector.register(entry.descriptor.fileno(), selectors.EVENT_READ, entry)
        elif entry.registered and not wanted:
            self._selector.unregister(entry.descriptor.fileno())
        entry.registered = wanted

    def _close(self, entry: _Entry) -> None:
        with self._lock:
            if entry not in self._entries:
                # Closed before, by `stop`.
                return
            del self._entries[entry]
            self._by_address[entry.address] -= 1
            if self._by_address[entry.address] <= 0:
                del self._by_address[entry.address]
            self._release(entry)
        self._report(entry)

    def _release(self, entry: _Entry) -> None:
        """Close the descriptor, after taking it out of the selector."""
        if entry.registered and not self._closed:
            with contextlib.suppress(KeyError, OSError, ValueError):
                self._selector.unregister(entry.descriptor.fileno())
        entry.registered = False
        with contextlib.suppress(OSError):
            entry.descriptor.close()

    def _report(self, entry: _Entry) -> None:
        # The reporter counts what an outlet raises; nothing may end this thread.
        with contextlib.suppress(Exception, SystemExit, asyncio.CancelledError):
            entry.context.run(entry.handover.report, entry.linger.event(_clock()))

    def _close_own(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._selector.close()
        for number in (self._wakes, self._wake):
            with contextlib.suppress(OSError):
                os.close(number)


LINGERER: Final = Lingerer()
"""The process's one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=LINGERER.before_fork,
        after_in_parent=LINGERER.after_fork_in_parent,
        after_in_child=LINGERER.after_fork,
    )
