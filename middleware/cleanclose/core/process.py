"""State of a process: objects that a forked child must renew, and work at the process's end.

Each hook is registered once for all objects and refers to them weakly, so objects that come and go
leave nothing behind.
"""

from __future__ import annotations

import _thread
import atexit
import itertools
import os
import weakref
from typing import Any, Final, Protocol

__all__ = ["Lock", "at_exit", "renew_after_fork"]


class Renewable(Protocol):
    """Something that a child must not keep in its parent's state."""

    def renew(self) -> None:
        """Reset it in a child that has just been forked. This must not raise."""
        ...


class Ending(Protocol):
    """Something that has work to do at the end."""

    def finish(self) -> None:
        """The interpreter exits."""
        ...


_RENEWED: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()
_ENDING: Final[weakref.WeakValueDictionary[int, Ending]] = weakref.WeakValueDictionary()
_NUMBERS: Final = itertools.count()


def renew_after_fork(what: Renewable) -> None:
    """Have `Renewable.renew` called in each child that is forked while the object exists.

    The child has only one thread: locks that other threads held, and their half-done work, would
    stay that way for ever.

    Args:
        what: The object. It is referred to weakly.
    """
    _RENEWED.add(what)


def at_exit(what: Ending) -> None:
    """Have `Ending.finish` called when the interpreter exits, if the object still exists.

    The last one registered is called first, as with `atexit`.

    Args:
        what: The object. It is referred to weakly.
    """
    number = next(_NUMBERS)
    if not number:
        # Not on import: functions that the application registers before its first outlet (for
        # example to end its logging) have to run later.
        atexit.register(_finish_all)
    _ENDING[number] = what


def _finish_all() -> None:
    for _, what in sorted(_ENDING.items(), reverse=True):
        what.finish()


def _renew_all() -> None:
    for what in list(_RENEWED):
        what.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


class Lock:
    """A lock around a few lines of Python that neither wait nor call other code.

    In a forked child it is free, whoever held it at the fork. Its holder may take it again: the
    garbage collector may end another exchange at any point, in the same thread. Copying and
    unpickling give a new lock.

    It is the interpreter's own lock, even if gevent has patched `threading`: no greenlet switches
    while it holds such a lock, and a native thread may want it too.
    """

    __slots__ = ("__weakref__", "_inner")

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Become free in a child that has just been forked."""
        # Not threading's: gevent replaces that.
        self._inner: Any = _thread.RLock()

    def __enter__(self) -> None:
        """Take it."""
        self._inner.acquire()

    def __exit__(self, *exc_info: object) -> None:
        """Give it back."""
        try:
            self._inner.release()
        except RuntimeError:
            # If the process forked meanwhile, this child took the parent's lock.
            return

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        """For copy and pickle: a new one."""
        return Lock, ()
