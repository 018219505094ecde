"""The servers that have no command line: ``python -m benchmarks.serve_refusing KIND PORT WAY``."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from tornado import web

from benchmarks import refusing

__all__: list[str] = []


async def _tornado(port: int, app: web.Application) -> None:
    app.listen(port, "127.0.0.1")
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


def _werkzeug(port: int, app: Any) -> None:
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, app, threaded=True)


def _wsgiref(port: int, app: Any) -> None:
    from wsgiref.simple_server import WSGIServer, make_server

    # With its own five places a burst of connections is lost before it is accepted.
    WSGIServer.request_queue_size = 1024
    make_server("127.0.0.1", port, app).serve_forever()


def _cheroot(port: int, app: Any) -> None:
    from cheroot.wsgi import Server

    server: Any = Server(("127.0.0.1", port), app, request_queue_size=1024)
    server.start()


def _gevent(port: int, app: Any) -> None:
    pywsgi: Any = importlib.import_module("gevent.pywsgi")
    server: Any = pywsgi.WSGIServer(("127.0.0.1", port), app, log=None)
    server.serve_forever()


_WSGI: dict[str, Callable[[int, Any], None]] = {
    "cheroot": _cheroot,
    "gevent": _gevent,
    "werkzeug": _werkzeug,
    "wsgiref": _wsgiref,
}

if __name__ == "__main__":
    kind, number, way = sys.argv[1:4]
    interface = "tornado" if kind == "tornado" else "wsgi"
    chosen: Any = getattr(refusing, interface if way == "bare" else f"{interface}_{way}")
    if kind == "tornado":
        asyncio.run(_tornado(int(number), chosen()))
    else:
        _WSGI[kind](int(number), chosen)
