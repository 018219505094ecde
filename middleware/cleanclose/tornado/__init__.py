"""The tornado shim: ``install(application)``.

In a handler: `leave_alone` sends this one response as if nothing were installed, `client_gone`
asks whether the client has left, `client_left` waits for that, and `stop_work` ends a block of
work with it.
"""

from cleanclose.core.asking import client_gone, raise_if_gone
from cleanclose.core.stop import ClientLeft, Stoppable
from cleanclose.stop import StopWork, client_left, stop_work
from cleanclose.tornado._install import install
from cleanclose.tornado._install import skip as leave_alone

__all__ = [
    "ClientLeft",
    "StopWork",
    "Stoppable",
    "client_gone",
    "client_left",
    "install",
    "leave_alone",
    "raise_if_gone",
    "skip",
    "stop_work",
]

skip = leave_alone
"""The old name of `leave_alone`."""
