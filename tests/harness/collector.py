"""What happens when the cyclic collector ends an exchange in the middle of another one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

__all__ = ["gets_through"]


class _Forgotten:
    """What only the collector finds."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._itself = self
        self._act = act

    def __del__(self) -> None:
        self._act()


def gets_through(act: Callable[[], object]) -> bool:
    """Act, and let the collector do the same at every place where it may.

    Args:
        act: What is done, and what an object does that the collector finds meanwhile.

    Returns:
        Whether it came to its end.
    """

    def act_again_and_again() -> None:
        for allocations in range(1, 100):
            gc.collect()
            _Forgotten(act)
            gc.set_threshold(allocations)
            act()

    thread = threading.Thread(target=act_again_and_again, daemon=True)
    before = gc.get_threshold()
    # What is there already need not be looked through each time.
    gc.collect()
    gc.freeze()
    try:
        thread.start()
        thread.join(30)
    finally:
        gc.set_threshold(*before)
    return not thread.is_alive()
