"""Whether an exception is an outlet's own, or interrupted the outlet from outside.

An outlet's exception must not reach the request, even if it is not an `Exception`. But some
exceptions come out of an outlet without being its own: a signal handler runs wherever the main
thread happens to be, and a greenlet is killed wherever it happens to wait. Those have to go on, or
a server would not stop.

An outlet is called, and never awaited: a task's cancellation, a trio scope's or a generator's end
come at an ``await`` or a ``yield``, and so never out of an outlet. A `gevent.Timeout` cannot be
told from one of the outlet's own; it need not be: when an event comes, the exchange is over, and
nothing is left to cut short.
"""

from __future__ import annotations

import opcode
import signal
import threading
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Final

__all__ = ["contained", "is_from_outside"]

_RAISE: Final = opcode.opmap["RAISE_VARARGS"]


def _ignored(error: BaseException) -> None:
    pass


class contained:
    """Keep exceptions of an outlet or a listener away from the request.

    Args:
        failed: Called with the exception. Default: do nothing.
    """

    # A class, because a generator would cost as much as what nearly all outlets do.
    __slots__ = ("_failed",)

    def __init__(self, failed: Callable[[BaseException], object] = _ignored) -> None:
        self._failed = failed

    def __enter__(self) -> None:
        """Nothing is to be done before."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Whether an exception ends here."""
        if error is None or is_from_outside(error):
            return False
        self._failed(error)
        return True


def is_from_outside(error: BaseException) -> bool:
    """Whether an exception that came out of an outlet was raised in it by somebody else.

    Args:
        error: The exception. Its traceback is the evidence.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return _is_signals(error)
    # greenlet.GreenletExit: what greenlets are killed with, by gevent and eventlet.
    is_kill = any(each.__name__ == "GreenletExit" for each in type(error).__mro__)
    return is_kill and not _is_raised(error)


def _is_signals(error: BaseException) -> bool:
    """Whether a signal handler has raised it. Those run only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {_code(handler) for handler in handlers} - {None}
    if any(each.tb_frame.f_code in codes for each in _tracebacks(error)):
        return True
    # The interpreter's own handler is no Python, and has no frame.
    return (
        isinstance(error, KeyboardInterrupt)
        and signal.default_int_handler in handlers
        and not _is_raised(error)
    )


def _code(handler: object) -> CodeType | None:
    # asyncio's is a partial.
    code = getattr(getattr(handler, "func", handler), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _is_raised(error: BaseException) -> bool:
    """Whether a ``raise`` statement raised it where it first appeared."""
    *_, last = _tracebacks(error)
    return last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE


def _tracebacks(error: BaseException) -> list[TracebackType]:
    found: list[TracebackType] = []
    traceback = error.__traceback__
    while traceback is not None:
        found.append(traceback)
        traceback = traceback.tb_next
    return found
