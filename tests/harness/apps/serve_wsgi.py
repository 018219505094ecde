"""The plain WSGI app on servers that are started from Python.

Run as a program: ``python -m tests.harness.apps.serve_wsgi waitress 8000``. With ``TEST_APP`` it
serves the ``app`` of another module of this package, and with ``TEST_TLS``, the path of a file
with a key and a certificate, it speaks TLS, on the servers that can.
"""

from __future__ import annotations

import importlib
import os
import socketserver
import sys
from collections.abc import Callable
from typing import Any, Final
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer, make_server

THREADS: Final = 4


def load(module: str) -> Any:
    """A module that is imported only where it is asked for."""
    return importlib.import_module(module)


def app() -> Any:
    """The app that is to be served."""
    return load(f"tests.harness.apps.{os.environ.get('TEST_APP', 'raw_wsgi')}").app


def tls() -> str | None:
    """The file with a key and a certificate, if TLS is asked for."""
    return os.environ.get("TEST_TLS") or None


def waitress(port: int) -> None:
    """Waitress, with its own threads."""
    load("waitress").serve(app(), host="127.0.0.1", port=port, threads=THREADS)


def cheroot(port: int) -> None:
    """Cheroot, with its own threads."""
    server = load("cheroot.wsgi").Server(("127.0.0.1", port), app(), numthreads=THREADS)
    file = tls()
    if file:
        server.ssl_adapter = load("cheroot.ssl.builtin").BuiltinSSLAdapter(file, file)
    server.start()


def werkzeug(port: int, *, threaded: bool = True) -> None:
    """Werkzeug's development server."""
    file = tls()
    load("werkzeug.serving").run_simple(
        "127.0.0.1", port, app(), threaded=threaded, ssl_context=(file, file) if file else None
    )


def werkzeug_unthreaded(port: int) -> None:
    """The same, one connection at a time."""
    werkzeug(port, threaded=False)


def wsgiref(port: int) -> None:
    """The standard library's."""
    make_server("127.0.0.1", port, app()).serve_forever()


class _Http11Handler(ServerHandler):
    http_version = "1.1"


class _Http11RequestHandler(WSGIRequestHandler):
    """As people make one that speaks HTTP/1.1: by its http.server half. It keeps no connection.

    http.server sends ``100 Continue`` from HTTP/1.1 on, in ``parse_request``.
    """

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        # All three are declared as less than they are.
        reader: Any = self.rfile
        writer: Any = self.wfile
        errors: Any = self.get_stderr()
        handler = _Http11Handler(reader, writer, errors, self.get_environ(), multithread=True)
        handler.request_handler = self  # type: ignore[attr-defined]
        server: Any = self.server
        handler.run(server.get_app())


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def wsgiref_http11(port: int) -> None:
    """The same with HTTP/1.1 in its answers, and a thread for each connection."""
    make_server(
        "127.0.0.1",
        port,
        app(),
        server_class=_ThreadingServer,
        handler_class=_Http11RequestHandler,
    ).serve_forever()


def gevent(port: int) -> None:
    """gevent.pywsgi, in a process without monkey patches."""
    file = tls()
    options: dict[str, Any] = {"certfile": file, "keyfile": file} if file else {}
    server: Any = load("gevent.pywsgi").WSGIServer(("127.0.0.1", port), app(), log=None, **options)
    server.serve_forever()


def gevent_patched(port: int) -> None:
    """The same as its own documentation advises: everything patched."""
    load("gevent.monkey").patch_all()
    gevent(port)


def eventlet(port: int) -> None:
    """eventlet.wsgi, in a process without monkey patches."""
    load("eventlet.wsgi").server(load("eventlet").listen(("127.0.0.1", port)), app())


SERVERS: Final[dict[str, Callable[[int], None]]] = {
    "waitress": waitress,
    "cheroot": cheroot,
    "werkzeug": werkzeug,
    "werkzeug-unthreaded": werkzeug_unthreaded,
    "wsgiref": wsgiref,
    "wsgiref-http11": wsgiref_http11,
    "gevent": gevent,
    "gevent-patched": gevent_patched,
    "eventlet": eventlet,
}


if __name__ == "__main__":
    SERVERS[sys.argv[1]](int(sys.argv[2]))
