"""Which task does the application's work where Starlette runs it in a task of an anyio group.

Whoever cancels the group's host instead has the group cancel that task at every await, and so cut
its clean-up short. Everything that is known of Starlette's functions stands here, for all versions
since 0.37.2. If a version does not show them, the block's own task is cancelled.
"""

from __future__ import annotations

import asyncio
from types import AsyncGeneratorType, FrameType
from typing import Any, Final

from cleanclose.servers import MISSING, find
from cleanclose.stop._tasks import DEEPEST, calls_of, frame_of

__all__ = ["is_end_of_worker", "worker_of"]

_BASE: Final = "starlette.middleware.base"
_HOST: Final = "BaseHTTPMiddleware.__call__"
_CALL_NEXT: Final = f"{_HOST}.<locals>.call_next"
_BODY: Final = f"{_CALL_NEXT}.<locals>.body_stream"
_HOSTS: Final = frozenset({_HOST, _CALL_NEXT, _BODY, "_StreamingResponse.__call__"})
"""What waits for the application."""
_RESPONSES: Final = "starlette.responses"
_STREAM: Final = "StreamingResponse.__call__"
_NO_WORK: Final = ".close_recv_stream_on_response_sent"
"""The other task of the group, up to Starlette 0.45.0: it only waits."""


def worker_of(task: asyncio.Task[Any], owner: int) -> asyncio.Task[Any] | None:
    """The task that does the application's work for a suspended one: most often itself.

    Args:
        task: The suspended one.
        owner: The frame that the block belongs to, by its id. What lies around it does not count,
            unless the task is in no such frame any more.

    Returns:
        None while the work has raised an error that is on its way out of another task: who
        cancels now loses it.
    """
    # The application behind the innermost middleware: also a stream of the middleware's own may
    # wait for it, in a task of its own.
    behind: asyncio.Task[Any] | None = None
    is_inside = all(id(frame_of(each)) != owner for each in calls_of(task.get_coro()))
    for _ in range(DEEPEST):
        found: asyncio.Task[Any] | None = None
        for each in calls_of(task.get_coro()):
            frame = frame_of(each)
            if frame is None:
                continue
            if _hands_an_error_on(frame):
                return None
            module, name = _name_of(frame)
            if module == _BASE and name in _HOSTS:
                if name == _HOST:
                    behind = _task_of(frame)
                found = behind if is_inside else None
            elif (module, name) == (_RESPONSES, _STREAM) and is_inside:
                found = behind if _only_forwards(frame) and behind else _task_of(frame) or found
            is_inside = is_inside or id(frame) == owner
        if found is None:
            return task
        if found is behind:
            behind = None
        task = found
    return task


def is_end_of_worker(error: BaseException | None) -> bool:
    """Whether an error says only that the task that did the work has been cancelled.

    ``BaseHTTPMiddleware`` finds its stream ended, without a response and without an exception.
    """
    if type(error) is not RuntimeError:
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and _name_of(traceback.tb_frame) == (_BASE, _CALL_NEXT)


def _name_of(frame: FrameType) -> tuple[object, str]:
    return frame.f_globals.get("__name__"), frame.f_code.co_qualname


def _task_of(frame: FrameType) -> asyncio.Task[Any] | None:
    """The running task of a host's group, without those that do no work."""
    running: Any = find(frame.f_locals.get("task_group"), "_tasks")
    if running is MISSING:
        return None
    tasks: list[asyncio.Task[Any]] = [
        each for each in running if not each.done() and not each.get_name().endswith(_NO_WORK)
    ]
    return tasks[0] if len(tasks) == 1 else None


def _only_forwards(frame: FrameType) -> bool:
    """Whether a stream is the one by which a middleware hands on what its application sends.

    Before Starlette 0.38.3 it has a task group, too.
    """
    return type(frame.f_locals.get("self")).__module__ == _BASE


def _hands_an_error_on(frame: FrameType) -> bool:
    """Whether a call has an error of the application's that the middleware has still to raise."""
    module, name = _name_of(frame)
    if module not in (_BASE, _RESPONSES):
        return False
    known = frame.f_locals
    if known.get("app_exc") is not None:
        # Before Starlette 0.46 nothing says so: these two raise it in their next step.
        is_raised = known.get("exception_already_raised", name not in (_CALL_NEXT, _BODY))
        return is_raised is False
    # And it is a variable of the stream that the middleware hands on.
    body = getattr(known.get("self"), "body_iterator", None)
    frame_of_body = frame_of(body) if isinstance(body, AsyncGeneratorType) else None
    return (
        frame_of_body is not None
        and _name_of(frame_of_body) == (_BASE, _BODY)
        and frame_of_body.f_locals.get("app_exc") is not None
    )
