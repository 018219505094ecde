"""The lingerer: the one part of a process that keeps closing connections open.

A shim hands a connection over when its response is on its way. One thread per process discards
what the client still sends, as `cleanclose.core.deliver.linger` has it, so that neither a worker
nor a task nor a stopping server waits for a client. The thread starts with the first connection
and ends with the last one; a greenlet takes its place where gevent or eventlet have patched
threads.
"""

from cleanclose.linger._lingerer import LINGERER, Handover, Lingerer, can_linger
from cleanclose.linger._sockets import descriptor_of

__all__ = ["LINGERER", "Handover", "Lingerer", "can_linger", "descriptor_of"]
