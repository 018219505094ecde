"""An application that refuses, and tells what the middleware has told of it.

======================  =========================================================================
``/refuse``             413 from the headers alone
``/refuse-medium``      the same, with as much of a response as is sent before the body has ended
``/events``             JSON: a list of the fields of each event so far
======================  =========================================================================

``TEST_KERNEL=silent`` takes away what the kernel tells of a connection, as on other systems.

Run as ``python -m tests.harness.apps.evidence SERVER PORT``, or by gunicorn as ``application``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from cleanclose.core import Event, kernel
from tests.harness.apps import routes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REFUSE: Final = "/refuse"
REFUSE_MEDIUM: Final = "/refuse-medium"
EVENTS: Final = "/events"
MEDIUM: Final = b"x" * (60 * 1024)

told: Final[list[dict[str, object]]] = []


def tell(event: Event) -> None:
    """The outlet."""
    told.append(event.fields())


if os.environ.get("TEST_KERNEL") == "silent":
    kernel.__dict__["sys"] = SimpleNamespace(platform="another")


def answer(path: str) -> tuple[int, bytes]:
    """What a path is answered with."""
    if path == routes.INDEX:
        return 200, routes.OK_BODY
    if path == EVENTS:
        return 200, json.dumps(told).encode()
    return 413, MEDIUM if path == REFUSE_MEDIUM else routes.REFUSAL


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application, bare."""
    status, body = answer(environ["PATH_INFO"])
    start_response(f"{status} Some", [("Content-Length", str(len(body)))])
    return [body]


def make_application() -> WSGIApplication:
    """The WSGI application."""
    from cleanclose.wsgi import CleanCloseMiddleware

    middleware: Any = CleanCloseMiddleware
    wrapped: WSGIApplication = middleware(plain, outlets=[tell], **routes.settings())
    return wrapped


def serve_werkzeug(port: int) -> None:
    """Serve with Werkzeug's development server, a thread for each connection."""
    from werkzeug.serving import make_server as make

    make("127.0.0.1", port, make_application(), threaded=True).serve_forever()


class QuietHandler(WSGIRequestHandler):
    """Without an access log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve_wsgiref(port: int) -> None:
    """Serve with the standard library's server, one connection after the other."""
    make_server("127.0.0.1", port, make_application(), handler_class=QuietHandler).serve_forever()


def serve_cheroot(port: int) -> None:
    """Serve with cheroot, CherryPy's server."""
    from cheroot.wsgi import Server

    server: Any = Server(("127.0.0.1", port), make_application())
    server.safe_start()


def serve_gevent(port: int) -> None:
    """Serve with gevent's own server, a greenlet for each connection."""
    pywsgi = importlib.import_module("gevent.pywsgi")
    pywsgi.WSGIServer(("127.0.0.1", port), make_application(), log=None).serve_forever()


def serve_tornado(port: int) -> None:
    """Serve with Tornado."""
    from tornado.httpserver import HTTPServer
    from tornado.web import Application, RequestHandler, stream_request_body

    from cleanclose.tornado import install

    @stream_request_body
    class Handler(RequestHandler):
        def prepare(self) -> None:
            status, body = answer(self.request.path)
            self.set_status(status)
            self.finish(body)  # pyright: ignore[reportUnknownMemberType]

        def data_received(self, chunk: bytes) -> None:
            """Nobody wants it."""

    async def main() -> None:
        application = Application([(".*", Handler)])
        options: Any = routes.settings()
        install(application, outlets=[tell], **options)
        server = HTTPServer(application, max_body_size=1 << 40)
        server.listen(port, "127.0.0.1")
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()

    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    asyncio.run(main())


application = make_application()

SERVE: Final = {
    "cheroot": serve_cheroot,
    "gevent": serve_gevent,
    "tornado": serve_tornado,
    "werkzeug": serve_werkzeug,
    "wsgiref": serve_wsgiref,
}

if __name__ == "__main__":
    SERVE[sys.argv[1]](int(sys.argv[2]))
