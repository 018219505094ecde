"""One thread and a selector, which carry out the steps of `cleanclose.core.deliver.linger`.

Theory of operation. `Lingerer.take` notes a connection; it never waits. The thread waits for bytes
and for the next moment at which a connection needs attention (a heap). It does not read a
connection that the server still has, unless the shim says that nobody else reads it. So it never
takes anything from a server that goes on using its connection.

Waking the thread costs a refused request more than all else here: two threads then hand the
interpreter's lock to each other. A shim that can tell when the server has let go does the first
steps itself (`Taken.look`, `Taken.let_go`), in its own thread: the connection joins the selector,
and the thread wakes only for what the client does. Where no shim tells, or where the selector is
none that another thread may add to, a pipe wakes the thread, which looks for itself. Each step on a
connection holds the lock, which no step keeps for long; events go out without it.

The thread looks everything up on its modules when it starts: if gevent or eventlet have patched
`threading` and `selectors` by then, the thread is a greenlet and waits like one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import operator
import os
import selectors
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from cleanclose.core.deliver.linger import Close, Discard, State, Step, Wait
from cleanclose.core.events import Mechanism
from cleanclose.core.kernel import ask_connection
from cleanclose.core.tcp_info import Connection
from cleanclose.linger._entry import Entry, Handover
from cleanclose.linger._moments import Moments
from cleanclose.linger._sockets import PIECE, SUPPORTED, WORTH_WAKING, Descriptor

if sys.platform != "win32":
    import resource

__all__ = ["LINGERER", "UNNOTIFIED", "Lingerer", "Taken", "can_linger"]

LINGERS_ON: Final = 1.0
"""Seconds that the thread stays with nothing to do, because another connection may come."""

UNNOTIFIED: Final = 1.0
"""Seconds after which the thread looks by itself, because no shim has said anything."""

_SHARED_SELECTORS: Final = ("EpollSelector", "KqueueSelector")
"""Those of `selectors` whose wait also sees a connection that another thread adds meanwhile."""

_clock: Final = time.monotonic


def reads(step: Step) -> bool:
    """Whether a step is to read what comes."""
    return step.read if isinstance(step, Wait) else isinstance(step, Discard)


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
                entry = Entry(descriptor, handover)
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

    def __init__(self, loop: _Loop, entry: Entry) -> None:
        self._loop = loop
        self._entry = entry

    def is_held(self) -> bool:
        """Whether the server still has the connection; the kernel is asked."""
        held_as = self._entry.held_as
        return held_as is not None and self._entry.descriptor.is_held_as(held_as)

    def look(self) -> None:
        """The response is on its way, and the server may have let go. If not, look again later."""
        self._loop.look_at(self._entry)

    def let_go(self) -> None:
        """The response is out, and the server no longer has the connection."""
        self._entry.held_as = None
        self._loop.look_at(self._entry)


class _Loop:
    """The thread, from the first connection to the last.

    Args:
        lock: Guards everything here. The thread has it for one connection at a time.
        ended: Called, with the lock held, when the thread ends.
    """

    def __init__(self, lock: Any, ended: Callable[[_Loop], None]) -> None:
        self._lock = lock
        self._ended = ended
        self._news: deque[Entry] = deque()
        self._entries: dict[Entry, None] = {}
        self._by_address: Counter[str | None] = Counter()
        self._moments = Moments()
        self._stopped = False
        self._closed = False
        self._called = False
        # When the thread will look around by itself. While it works: at once.
        self._wakes_at = -math.inf
        self._selector = selectors.DefaultSelector()
        kind = type(self._selector)
        self._shares_selector = kind.__module__ == "selectors" and (
            kind.__name__ in _SHARED_SELECTORS
        )
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
        return len(self._entries)

    # From any thread.

    def add(self, entry: Entry) -> None:
        """Take an entry in. The caller has the lock."""
        self._entries[entry] = None
        self._by_address[entry.address] += 1
        if entry.handover.notified and self.count <= most_lingering(entry.handover.most):
            self._plan(entry, _clock(), UNNOTIFIED)
        else:
            self._news.append(entry)
            self._call()

    def look_at(self, entry: Entry) -> None:
        """Take the first steps on an entry, here or in the thread."""
        if self._shares_selector:
            self._guarded(self._begin, entry, _clock())
            return
        with self._lock:
            self._news.append(entry)
            self._call()

    def stop(self) -> None:
        now = _clock()
        with self._lock:
            self._stopped = True
            self._call()
            entries = [*self._entries]
            self._entries.clear()
            self._by_address.clear()
            for entry in entries:
                self._catch_up(entry, now)
                entry.linger.stopped(now)
                entry.linger.kernel_says(self._ask(entry), now)
                self._release(entry)
        for entry in entries:
            self._report(entry)

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors.

        No thread runs there; a greenlet does, and must find nothing to do.
        """
        entries = [*self._entries]
        self._stopped = True
        self._entries.clear()
        # The selector first. Unregistering would affect the parent, which shares it.
        self._close_own()
        for entry in entries:
            entry.descriptor.close()

    def _call(self, due: float = -math.inf) -> None:
        """Wake the thread, unless it will look around by then anyway."""
        # Once the thread has ended, the number may belong to something else.
        if due < self._wakes_at and not self._closed and not self._called:
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
        self._wakes_at = -math.inf
        now = _clock()
        for key, _ in ready:
            if key.data is None:
                self._empty_pipe()
            else:
                self._guarded(self._read, key.data, now)
        while self._news:
            entry = self._news.popleft()
            self._guarded(self._begin, entry, now)
            most = most_lingering(entry.handover.most)
            while (other := self._one_too_many(most)) is not None:
                self._guarded(self._turn_out, other, now)
        while (due := self._next_due(now)) is not None:
            self._guarded(self._look, due, now)

    def _seconds(self, idle_until: float, now: float) -> float:
        """For how long the thread may wait."""
        # Whoever comes from here on has to wake it.
        self._wakes_at = math.inf
        if self._news:
            return 0.0
        with self._lock:
            first = self._moments.first()
            self._wakes_at = idle_until if first is None else first
        return max(0.0, self._wakes_at - now)

    def _next_due(self, now: float) -> Entry | None:
        with self._lock:
            return self._moments.take_due(now)

    def _plan(self, entry: Entry, now: float, seconds: float) -> None:
        """Look at a connection after so many seconds, if not before. The caller has the lock."""
        if self._moments.plan(entry, now, seconds):
            self._call(entry.due)

    def _empty_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wakes, 4096)) == 4096:
                pass
        # Whoever calls from here on, and whoever has called before, is looked for below.
        self._called = False

    def _guarded(self, work: Callable[[Entry, float], None], entry: Entry, now: float) -> None:
        """Do a piece of work on a connection, and report its event if that ends it."""
        with self._lock:
            if entry not in self._entries:
                # Closed before.
                return
            try:
                work(entry, now)
            except Exception:  # noqa: BLE001 - the others' connections must not suffer for one
                entry.linger.stopped(now)
                self._close(entry)
            is_over = entry not in self._entries
        if is_over:
            self._report(entry)

    def _one_too_many(self, most: int) -> Entry | None:
        """The oldest connection of the address that has most of them, if there are too many."""
        with self._lock:
            if len(self._entries) <= most:
                return None
            # Copies: the garbage collector may hand a connection over at any point.
            address, _ = max([*self._by_address.items()], key=operator.itemgetter(1))
            return next((each for each in [*self._entries] if each.address == address), None)

    def _catch_up(self, entry: Entry, now: float) -> None:
        """Discard what has come, before a close: with unread bytes it would be a reset."""
        if entry.registered and entry.linger.state is State.LINGERING:
            with contextlib.suppress(OSError):
                entry.linger.received(entry.descriptor.discard() or 0, now)

    def _turn_out(self, entry: Entry, now: float) -> None:
        self._catch_up(entry, now)
        self._do(entry, entry.linger.turned_out(now), now)

    def _begin(self, entry: Entry, now: float) -> None:
        self._look_for_let_go(entry, now)
        if entry.linger.state is State.LINGERING and not entry.registered:
            # Nearly always something has come with the request's head.
            self._read(entry, now)
        else:
            self._do(entry, entry.linger.step(now), now)

    def _look(self, entry: Entry, now: float) -> None:
        """Handle a connection whose moment has come."""
        self._look_for_let_go(entry, now)
        if entry.linger.state is State.LINGERING:
            # Too little may have come for the selector to tell.
            self._read(entry, now, on_time=True)
        else:
            self._do(entry, entry.linger.tick(now), now)

    def _look_for_let_go(self, entry: Entry, now: float) -> None:
        if entry.linger.state is not State.SENDING:
            return
        if entry.held_as is not None and entry.descriptor.is_held_as(entry.held_as):
            return
        if entry.linger.half_closes:
            entry.descriptor.shut_down()
            entry.shut = True
        entry.linger.let_go(now)

    def _read(self, entry: Entry, now: float, *, on_time: bool = False) -> None:
        """Discard what has come, until there is no more or it is the next one's turn.

        Args:
            entry: The connection.
            now: The time.
            on_time: Whether a moment has come, and not bytes.
        """
        linger = entry.linger
        step: Step | None = None
        left = PIECE
        while left > 0 and (step is None or reads(step)):
            try:
                size = entry.descriptor.discard()
            except OSError as error:
                step = linger.reset(Mechanism.of(error), self._ask(entry), now)
                self._do(entry, step, now, asked=True)
                return
            if size == 0:
                self._ended_by_peer(entry, now)
                return
            if size is None:
                break
            heard = now - entry.descriptor.silent_for() if on_time else now
            step = linger.received(size, now, heard=heard)
            if size < WORTH_WAKING:
                # The selector tells when there is more.
                break
            left -= size
        if on_time:
            step = linger.kernel_says(self._ask(entry) if linger.asks_kernel else None, now)
        self._do(entry, linger.step(now) if step is None else step, now)

    def _ended_by_peer(self, entry: Entry, now: float) -> None:
        linger = entry.linger
        step = linger.ended(self._ask(entry), now)
        if linger.state is State.SENDING:
            # Nothing more will come; the response may still arrive.
            linger.reads = False
            step = linger.step(now)
        self._do(entry, step, now, asked=True)

    def _ask(self, entry: Entry) -> Connection | None:
        connection = ask_connection(entry.descriptor.sock, shut=entry.shut)
        if connection is not None and connection.reset and entry.shut:
            # Or both ends have closed in good order (TIME-WAIT is CLOSE to a socket), and what
            # came before is still unread: the next reading tells.
            return Connection(unacked=connection.unacked, peer_closed=connection.peer_closed)
        return connection

    def _do(self, entry: Entry, step: Step, now: float, *, asked: bool = False) -> None:
        if isinstance(step, Close):
            if not asked:
                entry.linger.kernel_says(self._ask(entry), now)
            self._close(entry)
            return
        self._watch(entry, reads(step))
        self._plan(entry, now, step.seconds)

    def _watch(self, entry: Entry, wanted: bool) -> None:
        if wanted and not entry.registered:
            if entry.linger.state is State.LINGERING:
                entry.descriptor.wake_for_much()
            self._selector.register(entry.descriptor.fileno(), selectors.EVENT_READ, entry)
        elif entry.registered and not wanted:
            self._selector.unregister(entry.descriptor.fileno())
        entry.registered = wanted

    def _close(self, entry: Entry) -> None:
        """Close a connection. The caller has the lock, and reports the event without it."""
        del self._entries[entry]
        self._by_address[entry.address] -= 1
        if self._by_address[entry.address] <= 0:
            del self._by_address[entry.address]
        self._release(entry)

    def _release(self, entry: Entry) -> None:
        """Close the descriptor, after taking it out of the selector."""
        if entry.registered and not self._closed:
            with contextlib.suppress(KeyError, OSError, ValueError):
                self._selector.unregister(entry.descriptor.fileno())
        entry.registered = False
        entry.due = math.inf
        with contextlib.suppress(OSError):
            entry.descriptor.close()

    def _report(self, entry: Entry) -> None:
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
