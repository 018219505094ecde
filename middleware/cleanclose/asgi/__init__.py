"""The ASGI shim: ``app.add_middleware(CleanCloseMiddleware)``.

In a handler: `leave_alone` sends this one response as if there were no middleware, `client_gone`
asks whether the client has left, `client_left` waits for that, and `stop_work` ends a block of
work with it.
"""

from cleanclose.asgi._middleware import CleanCloseMiddleware
from cleanclose.asgi._serving import skip as leave_alone
from cleanclose.core.asking import client_gone, raise_if_gone
from cleanclose.core.stop import ClientLeft, Stoppable
from cleanclose.stop import StopWork, client_left, stop_work

__all__ = [
    "CleanCloseMiddleware",
    "ClientLeft",
    "StopWork",
    "Stoppable",
    "client_gone",
    "client_left",
    "leave_alone",
    "raise_if_gone",
    "skip",
    "stop_work",
]

skip = leave_alone
"""The old name of `leave_alone`."""
