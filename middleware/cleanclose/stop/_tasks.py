"""Where a suspended task is, and whether it may be cancelled at this moment.

Both questions depend on other people's internals: coroutines that wait for each other, and anyio's
cancel scopes. If a version of theirs does not show these, the task is cancelled at once.
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
    "DEEPEST",
    "calls_of",
    "current_scope",
    "frame_of",
    "has_begun",
    "has_swallowed",
    "is_generator",
    "is_shielded",
    "is_waiting_in",
    "owner_of",
    "pass_cancellation_on",
    "wait_of",
]

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
DEEPEST: Final = 1000


def owner_of(frame: FrameType | None) -> FrameType | None:
    """The frame that a block belongs to: the code that entered it.

    A generator that contextlib turns into a context manager yields no values: the code that
    entered it counts.

    Args:
        frame: The frame that entered the block.
    """
    while frame is not None:
        above = frame.f_back
        name = None if above is None else above.f_globals.get("__name__")
        if (
            frame.f_code.co_name == "__aenter__"
            or frame.f_globals.get("__name__") == "contextlib"
            or (is_generator(frame) and name == "contextlib")
        ):
            frame = above
        else:
            return frame
    return None


def is_generator(frame: FrameType) -> bool:
    """Whether a frame is an async generator's.

    While it waits for its next reader, its task is at work elsewhere.
    """
    return bool(frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR)


def is_waiting_in(coroutine: object, frame_id: int) -> bool:
    """Whether a suspended task waits for something inside a frame.

    Args:
        coroutine: The task's.
        frame_id: The frame, by its id.
    """
    return any(id(frame_of(each)) == frame_id for each in calls_of(coroutine))


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
    calls = list(calls_of(task.get_coro()))
    frame = frame_of(calls[-1]) if calls else None
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
    return frame_of(call) is None and not awaited.cancelled()


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


def calls_of(each: Any) -> Iterator[Any]:
    """The chain of calls that a suspended task's coroutine waits in, from the outside in."""
    for _ in range(DEEPEST):
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


def frame_of(each: Any) -> FrameType | None:
    """The frame of a coroutine or generator; None if it is over."""
    frame: FrameType | None = getattr(each, _FRAME[type(each)])
    return frame
