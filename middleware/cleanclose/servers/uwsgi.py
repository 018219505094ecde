"""uWSGI."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import number
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _threads(environ: Mapping[str, Any], response: Any) -> int | None:
    # The module that it puts into its own processes; one core is one thread of a worker.
    return number(sys.modules.get("uwsgi"), "cores")


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    own = ["--master", "--enable-threads", "--need-app", "--die-on-term"]
    run = ["-c", "import pyuwsgi; pyuwsgi.run()", f"--module={app}", *own, *options]
    return [*run, f"--http-socket=127.0.0.1:{port}"]


ROOM: Final = Room(
    package="uwsgi",
    program=Program(
        distribution="pyuwsgi",
        words=_words,
        names=("uwsgi", "pyuwsgi"),
        backlog=100,
        backlog_options=("--listen", "-l"),
        # uwsgi_chunked_read() of its own is the only way to those.
        hands_out_chunks=False,
    ),
    environ_key="uwsgi.version",
    # It never sends a 100 itself; its HTTP router does with http-manage-expect, and then by itself.
    wsgi=Server(
        "uwsgi",
        Continue.LAZY,
        closes_anyway=True,
        keeps_quiet=True,
        descriptor="uwsgi.connection_fd",
        # plugins/http: it ends everything when the worker has sent its last byte. The router, and
        # other proxies, tell their client's port; http-socket has no REMOTE_PORT.
        relays=True,
        threads=_threads,
    ),
)
