"""What a process has of its own: locks that its child gets anew, and last words at its end.

Each is registered once for all objects, and refers to them weakly: what is made and thrown away
leaves nothing behind, however often.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import itertools
import os
import weakref
from typing import Any, Final, Protocol

__all__ = ["COPYING", "Lock", "at_exit", "renew_after_fork"]


COPYING: Final = frozenset(
    {"__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__"}
)
"""Names by which `copy` and `pickle` ask for an object's own ways: an object that stands for
another one must not have the other one's."""


class Renewable(Protocol):
    """Something that a child must not have as its parent left it."""

    def renew(self) -> None:
        """Begin anew, in a child that has just been forked. It must not raise."""
        ...


class Ending(Protocol):
    """Something that has a last word."""

    def finish(self) -> None:
        """The interpreter exits."""
        ...


_RENEWED: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()
_ENDING: Final[weakref.WeakValueDictionary[int, Ending]] = weakref.WeakValueDictionary()
_NUMBERS: Final = itertools.count()


def renew_after_fork(what: Renewable) -> None:
    """Have `Renewable.renew` called in each child that is forked while the object exists.

    In the child there is one thread alone, and what others held or were in the middle of stays so
    for ever.

    Args:
        what: The object. It is referred to weakly.
    """
    _RENEWED.add(what)


def at_exit(what: Ending) -> None:
    """Have `Ending.finish` called when the interpreter exits, if the object still exists.

    What came last is called first, as with `atexit`.

    Args:
        what: The object. It is referred to weakly.
    """
    number = next(_NUMBERS)
    if not number:
        # Not on import: what the application registers before it makes its first outlet (for the
        # end of its logging, say) has to come later.
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
    """A lock for a few lines of Python, which wait for nothing and call nobody.

    It is free in a child, whoever held it when the child was forked. It may be taken again by
    whoever has it: the cyclic collector may end another exchange in the middle of anything, in the
    same thread. A copy of it, and what it is unpickled to, is a new one.

    It is the interpreter's own, also where gevent has patched `threading`: no greenlet switches
    while it has such a lock, and a thread of another world may want it too.
    """

    __slots__ = ("__weakref__", "_inner")

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin anew, in a child that has just been forked."""
        # Not of threading: gevent has another one there.
        self._inner: Any = _thread.RLock()

    def __enter__(self) -> None:
        """Take it."""
        self._inner.acquire()

    def __exit__(self, *exc_info: object) -> None:
        """Give it back."""
        # It was the parent's that this child took, if it was forked meanwhile.
        with contextlib.suppress(RuntimeError):
            self._inner.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        """For copy and pickle: a new one."""
        return Lock, ()
