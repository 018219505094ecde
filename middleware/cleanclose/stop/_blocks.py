"""A block on asyncio and on trio: what it cancels, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from types import FrameType, TracebackType
from typing import Any, Final, Protocol

from cleanclose.core.stop import Stops
from cleanclose.stop._starlette import is_end_of_worker, worker_of
from cleanclose.stop._tasks import (
    current_scope,
    has_begun,
    has_swallowed,
    is_generator,
    is_shielded,
    is_waiting_in,
    owner_of,
    wait_of,
)

__all__ = ["AsyncioBlock", "Block", "TrioBlock", "new_block"]

_AGAIN: Final = 0.01
"""Seconds before another look at a task that may not be cancelled at the moment."""
_WORD: Final = "the client has left"


class Block(Protocol):
    """One block on one event loop."""

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """The block is over.

        Returns:
            Whether the cancellation that this block asked for has ended it.
        """
        ...


def new_block(stops: Stops, cleanup_seconds: float, frame: FrameType | None) -> Block:
    """Begin a block in the current task, on asyncio (any loop) or trio.

    Args:
        stops: The exchange's book.
        cleanup_seconds: For how long clean-up may take.
        frame: The frame that enters the block.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # Not asyncio: trio is running, so somebody has imported it.
        return TrioBlock(stops, sys.modules["trio"], frame)
    assert task is not None
    return AsyncioBlock(stops, cleanup_seconds, task, frame)


class AsyncioBlock:
    """Does what `asyncio.timeout` does: one ``Task.cancel()``, and ``uncancel()`` at its end.

    Args:
        stops: The exchange's book.
        cleanup_seconds: For how long clean-up may take before it is cancelled as well.
        task: The task that the block is in.
        frame: The frame that enters the block.
    """

    def __init__(
        self,
        stops: Stops,
        cleanup_seconds: float,
        task: asyncio.Task[Any],
        frame: FrameType | None,
    ) -> None:
        self._stops = stops
        self._cleanup_seconds = cleanup_seconds
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._cancelling = task.cancelling()
        self._scope = current_scope(task)
        owner = owner_of(frame)
        self._owner = id(owner)
        self._is_in_generator = owner is not None and is_generator(owner)
        # No other frame gets that id meanwhile. A generator's refers to this object, and one that
        # nobody reads any more must end.
        self._kept = None if self._is_in_generator else owner
        self._cancels: dict[asyncio.Task[Any], int] = {}
        self._patient_until = math.inf
        self._worker: asyncio.Task[Any] | None = None
        self._waiter: Any = None
        self._overdue = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        stops.begun()
        stops.ask(self._peer_left)

    def _peer_left(self) -> None:
        # This may be another thread. It is never the task itself, which would be cancelled at its
        # next await, inside the block or after it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self, _: object = None) -> None:
        if self._over or self._worker is not None:
            return
        worker = worker_of(self._task, self._owner)
        if (
            worker is None
            or self._is_elsewhere()
            or not has_begun(worker)
            or is_shielded(worker, self._scope)
            or self._is_cleaning_up(worker)
        ):
            self._look_again(worker or self._task)
            return
        self._worker = worker
        self._cancel(worker)

    def _look_again(self, worker: asyncio.Task[Any]) -> None:
        """Come back after the task has gone on: it may be cancellable for one turn only.

        That is so where it calls one thread after the other, each of which is shielded. This
        callback stands behind the task's own, so that it finds the task at its next await.
        """
        waiter: Any = getattr(worker, "_fut_waiter", None)
        if waiter is not None and waiter is not self._waiter and not waiter.done():
            self._waiter = waiter
            waiter.add_done_callback(self._stop)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_AGAIN, self._stop)

    def _is_cleaning_up(self, worker: asyncio.Task[Any]) -> bool:
        """Whether somebody else has cancelled a task inside of the block, like a time limit.

        Its clean-up would be cut short. A cancellation that the work has caught and forgotten looks
        the same, so that this is believed for no longer than clean-up may take.
        """
        before = self._cancelling if worker is self._task else 0
        if worker.cancelling() <= before + self._cancels.get(worker, 0):
            return False
        now = self._loop.time()
        self._patient_until = min(self._patient_until, now + self._cleanup_seconds)
        return now < self._patient_until

    def _cancel(self, worker: asyncio.Task[Any]) -> None:
        self._cancels[worker] = self._cancels.get(worker, 0) + 1
        wait = wait_of(worker)
        worker.cancel(_WORD)
        if wait is not None:
            # Behind the task's own next step.
            self._loop.call_soon(self._see_it_arrive, wait)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._cleanup_seconds, self._clean_up_hangs, worker)

    def _see_it_arrive(self, wait: tuple[object, asyncio.Future[Any]]) -> None:
        """Cancel again what has met no cancellation: its wait was over at the same moment."""
        if has_swallowed(wait):
            self._worker = None
            self._stop()

    def _clean_up_hangs(self, worker: asyncio.Task[Any]) -> None:
        if not self._over:
            self._overdue = True
            self._cancel(worker)

    def _is_elsewhere(self) -> bool:
        """Whether the task is at work outside of the generator that the block is in."""
        return self._is_in_generator and not is_waiting_in(self._task.get_coro(), self._owner)

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """The block is over. As of `Block`."""
        if self._over:
            return False
        self._over = True
        self._stops.forget(self._peer_left)
        self._waiter = self._kept = None
        if self._timer is not None:
            self._timer.cancel()
        ours = False
        if own := self._cancels.get(self._task, 0):
            left = self._cancelling
            for _ in range(own):
                left = self._task.uncancel()
            # More cancellations than at the start: somebody else has cancelled the task as well.
            ours = isinstance(error, asyncio.CancelledError) and left <= self._cancelling
            self._stops.ended(cut=error is not None, overdue=self._overdue)
        elif self._worker is not None:
            ours = self._worker.cancelled() and is_end_of_worker(error)
            # An error that it raised meanwhile comes out of the block as well.
            cut = self._worker.cancelled() or (self._worker.done() and error is not None)
            self._stops.ended(cut=cut, overdue=self._overdue)
        self._stops.over()
        return ours


class TrioBlock:
    """A cancel scope: on trio every await behind a cancellation is cancelled, clean-up included.

    Args:
        stops: The exchange's book.
        trio: The module.
        frame: The frame that enters the block.
    """

    def __init__(self, stops: Stops, trio: Any, frame: FrameType | None) -> None:
        self._stops = stops
        self._trio = trio
        self._coroutine: object = trio.lowlevel.current_task().coro
        owner = owner_of(frame)
        self._owner = id(owner)
        self._is_in_generator = owner is not None and is_generator(owner)
        self._over = False
        self._token = trio.lowlevel.current_trio_token()
        self._finished: type[BaseException] = trio.RunFinishedError
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        stops.begun()
        stops.ask(self._peer_left)

    def _peer_left(self) -> None:
        with contextlib.suppress(self._finished):
            self._token.run_sync_soon(self._stop)

    def _stop(self) -> None:
        if self._over:
            return
        if self._is_elsewhere():
            self._trio.lowlevel.spawn_system_task(self._stop_later)
        else:
            self._scope.cancel()

    async def _stop_later(self) -> None:
        while not self._over and self._is_elsewhere():
            await self._trio.sleep(_AGAIN)
        if not self._over:
            self._scope.cancel()

    def _is_elsewhere(self) -> bool:
        return self._is_in_generator and not is_waiting_in(self._coroutine, self._owner)

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """The block is over. As of `Block`."""
        self._over = True
        self._stops.forget(self._peer_left)
        try:
            self._scope.__exit__(kind, error, traceback)
        finally:
            cut = self._scope.cancelled_caught
            self._stops.ended(cut=cut or (self._scope.cancel_called and error is not None))
            self._stops.over()
        # It also returns True where there was nothing to swallow.
        caught: bool = self._scope.cancelled_caught
        return caught
