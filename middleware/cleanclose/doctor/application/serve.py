"""Serve `cleanclose.doctor.application.served` on servers that have no command line.

``python -m cleanclose.doctor.application.serve NAME PORT``
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["RUNNERS"]

_HOST: Final = "127.0.0.1"


def _app() -> Any:
    return importlib.import_module("cleanclose.doctor.application.served").app


def _tornado(port: int) -> None:
    import asyncio

    from tornado.httpserver import HTTPServer
    from tornado.log import enable_pretty_logging

    async def serve() -> None:
        application = _app()
        # As `tornado.options.parse_command_line` does it in almost every program.
        enable_pretty_logging()
        HTTPServer(application).listen(port, _HOST)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _cheroot(port: int) -> None:
    server: Any = importlib.import_module("cheroot.wsgi").Server((_HOST, port), _app())
    server.start()


def _werkzeug(port: int) -> None:
    from werkzeug.serving import run_simple

    run_simple(_HOST, port, _app(), threaded=True)


def _wsgiref(port: int) -> None:
    from wsgiref.simple_server import make_server

    make_server(_HOST, port, _app()).serve_forever()


def _gevent(port: int) -> None:
    importlib.import_module("gevent.monkey").patch_all()
    server: Any = importlib.import_module("gevent.pywsgi").WSGIServer((_HOST, port), _app())
    server.serve_forever()


RUNNERS: Final[dict[str, Callable[[int], None]]] = {
    "tornado": _tornado,
    "cheroot": _cheroot,
    "werkzeug": _werkzeug,
    "wsgiref": _wsgiref,
    "gevent": _gevent,
}


if __name__ == "__main__":
    RUNNERS[sys.argv[1]](int(sys.argv[2]))
