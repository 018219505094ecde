"""Event loops, asyncio's and trio's: what a shim needs of them that anyio does not have."""

from cleanclose.loops._bell import Bell
from cleanclose.loops._coroutines import as_coroutine_function
from cleanclose.loops._late_reader import LateReader
from cleanclose.loops._runtime import Runtime, current_runtime

__all__ = ["Bell", "LateReader", "Runtime", "as_coroutine_function", "current_runtime"]
