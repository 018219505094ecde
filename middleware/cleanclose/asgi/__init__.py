"""The ASGI shim: ``app.add_middleware(CleanCloseMiddleware)``.

In a handler: `leave_alone` sends this one response as if there were no middleware, `client_gone`
asks whether the client has left.
"""

from cleanclose.asgi._middleware import CleanCloseMiddleware
from cleanclose.asgi._middleware import skip as leave_alone
from cleanclose.core.watch import client_gone

__all__ = ["CleanCloseMiddleware", "client_gone", "leave_alone", "skip"]

skip = leave_alone
"""The old name of `leave_alone`."""
