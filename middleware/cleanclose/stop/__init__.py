"""Stopping work, for both asynchronous shims: the block, and the choice of the task to cancel."""

from cleanclose.stop._block import StopWork, client_left, stop_work
from cleanclose.stop._tasks import pass_cancellation_on

__all__ = ["StopWork", "client_left", "pass_cancellation_on", "stop_work"]
