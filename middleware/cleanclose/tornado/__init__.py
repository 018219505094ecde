"""The tornado shim: ``install(application)``."""

from cleanclose.core import ClientLeft, Stoppable, client_gone, raise_if_gone
from cleanclose.stop import StopWork, client_left, stop_work
from cleanclose.tornado._install import install, skip

__all__ = [
    "ClientLeft",
    "StopWork",
    "Stoppable",
    "client_gone",
    "client_left",
    "install",
    "raise_if_gone",
    "skip",
    "stop_work",
]
