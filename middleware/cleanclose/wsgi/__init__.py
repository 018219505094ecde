"""The WSGI shim: ``app.wsgi_app = CleanCloseMiddleware(app.wsgi_app)``."""

from cleanclose.core import ClientLeft, Stoppable, client_gone, raise_if_gone
from cleanclose.wsgi._middleware import CleanCloseMiddleware, skip

__all__ = [
    "CleanCloseMiddleware",
    "ClientLeft",
    "Stoppable",
    "client_gone",
    "raise_if_gone",
    "skip",
]
