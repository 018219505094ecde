"""What both asynchronous shims use to stop work: the block, and who is to be cancelled."""

from cleanclose.stop._block import StopWork, client_left, stop_work

__all__ = ["StopWork", "client_left", "stop_work"]
