"""Werkzeug's development server, which is Flask's."""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _hides(error: OSError) -> bool:
    # WSGIRequestHandler.run_wsgi, connection_dropped_errors.
    return isinstance(error, ConnectionError | TimeoutError | ssl.SSLEOFError)


def _threads(environ: Mapping[str, Any], response: Any) -> int:
    # ThreadedWSGIServer starts one for each connection.
    return sys.maxsize if environ.get("wsgi.multithread") else 1


def _serve(make: Callable[[], Any], host: str, port: int) -> None:
    serving: Any = importlib.import_module("werkzeug.serving")
    serving.run_simple(host, port, make(), threaded=True)


ROOM: Final = Room(
    package="werkzeug",
    program=Program(distribution="werkzeug", serve=_serve),
    environ_key="werkzeug.socket",
    # WSGIRequestHandler.run_wsgi sends the 100 first of all. Its execute() reads, in pieces of
    # 10 MB, until the client closes if anything has come when the response is out; each response
    # closes the connection. The body is the rfile itself, or a DechunkedInput around it.
    wsgi=Server(
        "werkzeug",
        Continue.EAGER,
        "werkzeug.socket",
        hides=_hides,
        replaces_head=True,
        reads_from=("raw._sock", "_rfile.raw._sock"),
        closes_last=True,
        closes_anyway=True,
        threads=_threads,
    ),
    loggers={"werkzeug": Lines()},
    private=(
        Private(
            "werkzeug.serving.DechunkedInput",
            "_rfile",
            "An early response to a chunked body is sent and lingers, but nothing is drained "
            "before.",
        ),
    ),
)
