"""mod_wsgi, in Apache httpd."""

from __future__ import annotations

from typing import Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._room import Room

__all__ = ["ROOM"]

ROOM: Final = Room(
    package="mod_wsgi",
    environ_key="mod_wsgi.version",
    # httpd passes the whole body on to its daemon, or discards it itself after the response.
    # Its input filters (SetInputFilter DEFLATE) change the body and not its Content-Length.
    wsgi=Server("mod_wsgi", Continue.EAGER, reads_first=True, declares_length=False),
)
