"""The ASGI shim: ``app.add_middleware(CleanCloseMiddleware)``."""

from cleanclose.asgi._middleware import CleanCloseMiddleware, skip
from cleanclose.core import ClientLeft, Stoppable, client_gone, raise_if_gone
from cleanclose.stop import StopWork, client_left, stop_work

__all__ = [
    "CleanCloseMiddleware",
    "ClientLeft",
    "StopWork",
    "Stoppable",
    "client_gone",
    "client_left",
    "raise_if_gone",
    "skip",
    "stop_work",
]
