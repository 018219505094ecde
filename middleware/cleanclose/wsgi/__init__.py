"""The WSGI shim: ``app.wsgi_app = CleanCloseMiddleware(app.wsgi_app)``.

In a handler: `leave_alone` sends this one response as if there were no middleware, `client_gone`
asks whether the client has left, and `raise_if_gone` ends the work with it. A body that is cut
short raises `TruncatedBodyError`.
"""

from cleanclose.core.asking import client_gone, raise_if_gone
from cleanclose.core.errors import TruncatedBodyError
from cleanclose.core.stop import ClientLeft, Stoppable
from cleanclose.wsgi._middleware import CleanCloseMiddleware
from cleanclose.wsgi._middleware import skip as leave_alone

__all__ = [
    "CleanCloseMiddleware",
    "ClientLeft",
    "Stoppable",
    "TruncatedBodyError",
    "client_gone",
    "leave_alone",
    "raise_if_gone",
    "skip",
]

skip = leave_alone
"""The old name of `leave_alone`."""
