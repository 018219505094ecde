"""The mark by which others know that a function has to be awaited."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

__all__ = ["as_coroutine_function"]


def as_coroutine_function(function: Any) -> None:
    """Mark a function that returns another one's coroutine as a coroutine function.

    asgiref's ``AsyncToSync`` warns of every call otherwise.

    Args:
        function: The function.
    """
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(function)
    else:
        # Python 3.11: what `asyncio.iscoroutinefunction` looks for.
        function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
