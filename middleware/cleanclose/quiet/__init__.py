"""Quiet logs: other people's records about a client's departure get the level of its event.

A filter on the loggers of servers, frameworks and asyncio lowers the level of records that are
proven to be about a client's departure, and about nothing else. The shims install it
(``quiet_logs=True``, the default).
"""

from cleanclose.quiet.filter import QuietLogs
from cleanclose.quiet.installation import (
    LOGGERS,
    install_quiet_logs,
    quieten,
    uninstall_quiet_logs,
)
from cleanclose.quiet.loops import install_quiet_asyncio

__all__ = [
    "LOGGERS",
    "QuietLogs",
    "install_quiet_asyncio",
    "install_quiet_logs",
    "quieten",
    "uninstall_quiet_logs",
]
