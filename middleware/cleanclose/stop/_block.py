"""``async with stop_work():``, and a way to wait for the departure itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cleanclose.core import ClientLeft, Side, Watch, current
from cleanclose.core.blame.provenance import leaves
from cleanclose.stop._blocks import Block, new_block

__all__ = ["StopWork", "client_left", "stop_work"]

CLEANUP_SECONDS = 10.0


class StopWork:
    """What `stop_work` returns: a block that ends when nobody waits for its work any more.

    Args:
        quiet: Whether the block then ends without a `cleanclose.core.ClientLeft`.
        cleanup_seconds: Seconds that its clean-up may take.

    Attributes:
        stopped: Whether it was cut short, known once it is over.

    Raises:
        ValueError: ``cleanup_seconds`` is not above 0.
    """

    def __init__(self, *, quiet: bool = False, cleanup_seconds: float = CLEANUP_SECONDS) -> None:
        if not 0 < cleanup_seconds < math.inf:
            raise ValueError(f"cleanup_seconds must be above 0, not {cleanup_seconds!r}")
        self.stopped: bool = False
        self._quiet = quiet
        self._cleanup_seconds = cleanup_seconds
        self._block: Block | None = None
        self._watch: Watch | None = None

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError("a stop_work() is for one block")
        watch = current()
        if watch is not None and not watch.ended:
            self._watch = watch
            watch.look_out()
            self._block = new_block(watch.write_stops(), self._cleanup_seconds, sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # As in `asyncio.timeout`, so that type checkers know after the block what it assigns.
        if self._block is None or self._watch is None:
            return False
        if not self._block.leave(kind, error, traceback):
            return False
        self.stopped = True
        word = ClientLeft()
        word.__cause__ = cause = _cancellation(error)
        # A quiet block must not hide what the client must not hide.
        if self._quiet and self._watch.judge(word).side is Side.CLIENT:
            return True
        try:
            raise word from cause
        finally:
            # An exception that only follows from the cancellation must not be its context.
            word.__context__ = cause
            del word, cause


def _cancellation(error: BaseException | None) -> BaseException | None:
    """The cancellation among the exceptions that ended the block; None if they only follow from it.

    A nursery has it in a group.
    """
    while error is not None and (held := leaves(error)):
        error = held[0]
    return None if isinstance(error, Exception) else error


def stop_work(*, quiet: bool = False, cleanup_seconds: float = CLEANUP_SECONDS) -> StopWork:
    """Stop what runs inside of an ``async with`` when the client of this request has left.

    It is cancelled as `asyncio.timeout` cancels: once, so that the awaits of ``finally`` blocks
    and context managers run to their end. On trio it is a cancel scope, with trio's rules. The
    block then ends with `cleanclose.core.ClientLeft`; if the work raises an exception meanwhile,
    that one comes instead, and a cancellation from elsewhere stays one. Nothing outside the block
    is cancelled. Parts that anyio shields finish first.

    It works in handlers, in dependencies, in the iterators of streams, and behind any number of
    Starlette's ``BaseHTTPMiddleware``. The block does nothing where the middleware is not
    installed, outside a request, and while the process is stopping, because the server then ends
    requests in its own way.

    Args:
        quiet: Whether the block ends without an exception; see `StopWork.stopped`. Default
            False. If the client's departure would hide the loss of an upstream, the exception comes
            anyway.
        cleanup_seconds: How many seconds the work may go on, once cancelled, before it is cancelled
            again; the event then has ``overdue=True``, at WARNING. Default 10. It has no effect on
            trio, where clean-up has to shield itself.

    Raises:
        ValueError: ``cleanup_seconds`` is not above 0.
    """
    return StopWork(quiet=quiet, cleanup_seconds=cleanup_seconds)


async def client_left() -> None:
    """Wait until the client of this request has left.

    For use beside something else: in a task of a group, with ``asyncio.wait``. It may be
    cancelled at any time. It never returns if the client stays, if the middleware is not installed,
    outside a request, or while the process is stopping.
    """
    left, wake = _signal()
    watch = current()
    if watch is None or watch.ended:
        await left()
        return
    watch.look_out()
    stops = watch.write_stops()
    stops.ask(wake)
    try:
        await left()
    finally:
        stops.forget(wake)


def _signal() -> tuple[Callable[[], Any], Callable[[], None]]:
    """An event in the running loop, and a function that sets it from any thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        trio: Any = sys.modules["trio"]
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake_trio() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        return event.wait, wake_trio
    signal = asyncio.Event()

    def wake() -> None:
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(signal.set)

    return signal.wait, wake
