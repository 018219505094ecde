"""gunicorn's access log: 499 for a client that left.

gunicorn writes its line when the response is over or has broken off
(``SyncWorker.handle_request``, ``ThreadWorker.handle_request``,
``ASGIProtocol._handle_http_request``), with the status of the response that it was about to send.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from gunicorn import glogging  # type: ignore[import-untyped]

from cleanclose.core import current

__all__ = ["DepartedStatus", "Logger"]

_DEPARTED: Final = "499"

if TYPE_CHECKING:

    class _Atoms:
        def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
            """What an access line is made of, by gunicorn's letters."""
            ...

else:
    _Atoms = object


class DepartedStatus(_Atoms):
    """A mix-in for your own logger class: put it before gunicorn's class among the bases.

    The line of a client that left shows the status 499 (``%(s)s``), which is never sent. The rest
    of the line, and all other lines, stay as they were.
    """

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        """What an access line is made of, by gunicorn's letters."""
        atoms = super().atoms(resp, req, environ, request_time)
        watch = current()
        if watch is not None and watch.has_left(sys.exception()):
            atoms["s"] = _DEPARTED
        return atoms


class Logger(DepartedStatus, glogging.Logger):  # type: ignore[misc]  # it has no types
    """gunicorn's logger with that status, for ``logger_class`` in its configuration.

    gunicorn's ``statsd_host`` uses another logger class: there, put `DepartedStatus` before
    ``gunicorn.instrument.statsd.Statsd``.
    """
