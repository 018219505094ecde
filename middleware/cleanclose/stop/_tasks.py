"""Which task to cancel, and whether it may be cancelled at this moment.

Both questions depend on other people's internals: coroutines that wait for each other, and the task
groups of Starlette and anyio. If a version of theirs does not show these, the block's own task is
cancelled at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

from cleanclose.servers import MISSING, find

__all__ = [
    "current_scope",
    "has_begun",
    "has_swallowed",
    "holder",
    "is_shielded",
    "is_waiting_in",
    "pass_cancellation_on",
    "wait_of",
    "worker_of",
]

_HOSTS: Final = frozenset(
    {
        ("starlette.middleware.base", "BaseHTTPMiddleware.__call__"),
        ("starlette.responses", "StreamingResponse.__call__"),
    }
)
"""Functions that run the application's code in a task of the anyio group that is their
``task_group``, and only wait meanwhile. If these functions were cancelled, the group would cancel
that task at every await, and so cut its clean-up short."""

_WAITS_FOR: Final[dict[type, str]] = {
    CoroutineType: "cr_await",
    AsyncGeneratorType: "ag_await",
    GeneratorType: "gi_yieldfrom",
}
_FRAME: Final[dict[type, str]] = {
    CoroutineType: "cr_frame",
    AsyncGeneratorType: "ag_frame",
    GeneratorType: "gi_frame",
}
_SUSPENDED: Final = tuple(_FRAME)
_DEEPEST: Final = 1000


def holder(frame: FrameType | None) -> FrameType | None:
    """The async generator in which a block was entered, if it yields values inside the block.

    While such a generator waits for its next reader, its task is at work elsewhere. A generator
    that contextlib turns into a context manager yields no values: the code that entered it counts.

    Args:
        frame: The frame that entered the block.

    Returns:
        None where the block belongs to a coroutine.
    """
    while frame is not None:
        above = frame.f_back
        name = None if above is None else above.f_globals.get("__name__")
        if frame.f_code.co_name == "__aenter__" or frame.f_globals.get("__name__") == "contextlib":
            frame = above
        elif not frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            return None
        elif name == "contextlib":
            frame = above
        else:
            return frame
    return None


def is_waiting_in(coroutine: object, frame_id: int) -> bool:
    """Whether a suspended task waits for something inside a frame.

    Args:
        coroutine: The task's.
        frame_id: The frame, by its id.
    """
    return any(id(_frame_of(each)) == frame_id for each in _chain(coroutine))


def worker_of(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """The task that does the application's work for a suspended one: most often itself.

    Args:
        task: The suspended one.

    Returns:
        None while the work has raised an error that is on its way out of another task: who
        cancels now loses it.
    """
    for _ in range(_DEEPEST):
        if any(_hands_an_error_on(each) for each in _chain(task.get_coro())):
            return None
        below = _worker_below(task)
        if below is None:
            return task
        task = below
    return task


def _hands_an_error_on(each: Any) -> bool:
    """Whether a call is ``BaseHTTPMiddleware``'s, with an error that it has still to raise."""
    frame = _frame_of(each)
    if frame is None or frame.f_globals.get("__name__") != "starlette.middleware.base":
        return False
    known = frame.f_locals
    return known.get("app_exc") is not None and known.get("exception_already_raised") is False


def _worker_below(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    found: asyncio.Task[Any] | None = None
    for each in _chain(task.get_coro()):
        frame = _frame_of(each)
        if frame is None:
            continue
        name = (frame.f_globals.get("__name__"), frame.f_code.co_qualname)
        if name not in _HOSTS:
            continue
        running: Any = find(frame.f_locals.get("task_group"), "_tasks")
        if running is MISSING:
            continue
        tasks: list[asyncio.Task[Any]] = [each for each in running if not each.done()]
        if len(tasks) == 1:
            found = tasks[0]
    return found


def has_begun(task: asyncio.Task[Any]) -> bool:
    """Whether a task has made its first step.

    Who cancels it before, in a group of anyio's, has Python warn of a coroutine that was never
    awaited.
    """
    coroutine = task.get_coro()
    return not (
        isinstance(coroutine, CoroutineType)
        and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    )


def wait_of(task: asyncio.Task[Any]) -> tuple[object, asyncio.Future[Any]] | None:
    """The call of `asyncio.wait_for` that a suspended task is in, if it may swallow a cancellation.

    That of Python 3.11 returns its result where what it waits for ends at the moment in which it
    is cancelled (python/cpython#86296). Its successors are of other code.

    Args:
        task: The task.

    Returns:
        What `has_swallowed` is asked about; None where it is in no such call.
    """
    calls = list(_chain(task.get_coro()))
    frame = _frame_of(calls[-1]) if calls else None
    if frame is None or frame.f_code is not asyncio.wait_for.__code__:
        return None
    known = frame.f_locals
    return (calls[-1], known["fut"]) if "waiter" in known else None


def has_swallowed(wait: tuple[object, asyncio.Future[Any]]) -> bool:
    """Whether a call that `wait_of` has found has met a cancellation and let nobody know.

    Asked one step of the task later: a call that heeds it takes longer, because it first cancels
    what it waits for.
    """
    call, awaited = wait
    return _frame_of(call) is None and not awaited.cancelled()


def pass_cancellation_on() -> None:
    """Raise a cancellation of the current task that an exception has replaced.

    An anyio task group whose task raises an exception drops the cancellation of its host. If the
    exception is a block's `ClientLeft`, it ends at the middleware, and a server that has cancelled
    its request would see it return.

    Raises:
        asyncio.CancelledError: The task has been cancelled, on asyncio, and nobody has taken that
            back.
    """
    with contextlib.suppress(RuntimeError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


def current_scope(task: asyncio.Task[Any]) -> Any:
    """The anyio cancel scope that a task is in; None if it is in none."""
    module = sys.modules.get("anyio._backends._asyncio")
    states: Any = None if module is None else find(module, "_task_states")
    if states is None or states is MISSING:
        return None
    return getattr(states.get(task), "cancel_scope", None)


def is_shielded(task: asyncio.Task[Any], outermost: object) -> bool:
    """Whether a task is in a part of its work that anyio shields.

    Args:
        task: The task.
        outermost: The scope that the block is in: shields around the block do not count.
    """
    scope = current_scope(task)
    while scope is not None and scope is not outermost:
        if scope.shield:
            return True
        above = find(scope, "_parent_scope")
        scope = None if above is MISSING else above
    return False


def _chain(each: Any) -> Iterator[Any]:
    """The chain of what a suspended task's coroutine waits for, from the outside in."""
    for _ in range(_DEEPEST):
        if not isinstance(each, _SUSPENDED):
            # The objects that `async for` and `__await__` put in between show their content to
            # nobody else.
            held = (one for one in gc.get_referents(each) if isinstance(one, _SUSPENDED))
            each = next(held, None)
        if each is None:
            return
        yield each
        each = getattr(each, _WAITS_FOR[type(each)])
        if each is None or isinstance(each, asyncio.Future):
            return


def _frame_of(each: Any) -> FrameType | None:
    frame: FrameType | None = getattr(each, _FRAME[type(each)])
    return frame
