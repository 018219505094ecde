"""The tornado shim: ``install(application)``.

In a handler: `leave_alone` sends this one response as if nothing were installed, `client_gone`
asks whether the client has left.
"""

from cleanclose.core.watch import client_gone
from cleanclose.tornado._install import install
from cleanclose.tornado._install import skip as leave_alone

__all__ = ["client_gone", "install", "leave_alone", "skip"]

skip = leave_alone
"""The old name of `leave_alone`."""
