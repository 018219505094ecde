"""The lingerer: the one part of a process that keeps closing connections open.

A shim hands a connection over when its response is on its way. One thread per process discards what
the client still sends, by the rules of `cleanclose.core.deliver.linger`, so that no worker, no task
and no stopping server waits for a client. The thread starts with the first connection and ends with
the last one; a greenlet takes its place where gevent or eventlet have patched threads.
"""

from cleanclose.core.kernel import descriptor_of
from cleanclose.linger._entry import Handover
from cleanclose.linger._handing import hand_over, look_soon
from cleanclose.linger._lingerer import LINGERER, Lingerer, Taken, can_linger

__all__ = [
    "LINGERER",
    "Handover",
    "Lingerer",
    "Taken",
    "can_linger",
    "descriptor_of",
    "hand_over",
    "look_soon",
]
