"""Stopping work, for both asynchronous shims: the block, and the choice of the task to cancel."""

from cleanclose.stop._block import StopWork, client_left, stop_work

__all__ = ["StopWork", "client_left", "stop_work"]
