"""What clients leave in the middle of: a plain WSGI app, and the same in frameworks.

Radicale and WsgiDAV, which are applications, are served as they are, but for ``/``.

The environment decides: ``CLEANCLOSE=1`` wraps the app, ``TEST_FRAMEWORK`` is the framework,
``TEST_TAP`` the file that records and events go to, ``TEST_LOOKAHEAD`` how many requests waitress
reads ahead on a connection, ``TEST_LOGGERS`` what loggers a user names. Run as a program it
serves by itself: ``python -m tests.harness.apps.noise_wsgi waitress 8000``.

====================  ==========================================================================
``/``                 200; the counters as JSON
``/read``             reads the body with ``read()``, as a framework does; 200 and its length
``/read-length``      the same with ``read(CONTENT_LENGTH)``
``/read-lines``       the same line by line
``/read-pieces``      the same in pieces of 7 bytes
``/json``             bottle and falcon: reads and parses it, and answers 400 to half of it
``/unlimited``        the same two: reads the server's own stream to its end; 200 and its length
``/compare``          the same, and answers 400 if that is not the declared length
``/work``             waits at the gate; 200
``/gone``             waits at the gate; writes what ``client_gone()`` says
``/stream``           200, in pieces without an end
``/big``              200, one piece of 64 MiB
``/file``             200, a file of 64 MiB through the server's ``wsgi.file_wrapper``
``/write``            200, through ``write()`` without an end
``/reset``            its upstream resets before it has begun to respond
``/reset-first``      the same in the response's iteration, before the first piece
``/reset-later``      the same behind the first piece
``/reset-declared``   the same with a Content-Length
``/reset-close``      the same in the response's ``close()``
``/refused``          its upstream refuses the connection
``/reset-unread``     ``/reset`` without a look at the request's body
``/reset-gone``       ``/reset`` when the gate is open: the client may have left
``/proxy``            sends the body on, by the library that the query names
``/hide``             fails, and reads the body meanwhile; the query names the construct
``/hide-in-pieces``   the same in the response's iteration
====================  ==========================================================================

A gate is a file named by the query: the handler makes ``<gate>.entered`` and waits for the file.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from wsgiref.simple_server import make_server

from cleanclose.core import client_gone, snapshot
from cleanclose.quiet import install_quiet_logs
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness import tap
from tests.harness.applications import radicale, wsgidav
from tests.harness.hiding import HIDES
from tests.harness.proxying import PROXIES, URL
from tests.harness.waiting import until

LOGGERS: Final = "TEST_LOGGERS"
MIB: Final = 1024 * 1024
PIECE: Final = b"x" * 65536
_LINGER_0: Final = struct.pack("ii", 1, 0)


def reset_upstream() -> None:
    """A real connection of the application's own, which its other end resets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        served.close()
        with client:
            client.recv(1)


def refused_upstream() -> None:
    """An upstream that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    socket.create_connection(address)


def wait_at(gate: str) -> None:
    """Wait until the test says go."""
    path = Path(gate)
    path.with_suffix(".entered").touch()
    until(path.exists, "the gate stayed closed")


def counters() -> bytes:
    return json.dumps(snapshot()).encode()


class Body:
    """A response that is made as it is sent, and may fail anywhere."""

    def __init__(self, where: str, pieces: Iterable[bytes]) -> None:
        self._where = where
        self._pieces = iter(pieces)
        self._first = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._where == "first" or (self._where == "later" and not self._first):
            reset_upstream()
        self._first = False
        return next(self._pieces)

    def close(self) -> None:
        if self._where == "close":
            reset_upstream()


def endless() -> Iterator[bytes]:
    for _ in range(5000):
        yield PIECE


def file_of_64_mib() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.truncate(64 * MIB)
    return file


def raw(environ: Any, start_response: Any) -> Iterable[bytes]:
    path: str = environ["PATH_INFO"]
    gate: str = environ.get("QUERY_STRING", "")
    stream = environ["wsgi.input"]
    length = int(environ.get("CONTENT_LENGTH") or 0)

    def answer(body: bytes, status: str = "200 OK") -> list[bytes]:
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    match path:
        case "/":
            return answer(counters())
        case "/read":
            return answer(b"%d" % len(stream.read()))
        case "/read-length":
            return answer(b"%d" % len(stream.read(length)))
        case "/read-lines":
            return answer(b"%d" % sum(map(len, stream)))
        case "/read-pieces":
            size = 0
            while size < length and (piece := stream.read(min(7, length - size))):
                size += len(piece)
            return answer(b"%d" % size)
        case "/work":
            wait_at(gate)
            return answer(b"done")
        case "/gone":
            wait_at(gate)
            Path(gate).with_suffix(".gone").write_text(str(client_gone()))
            return answer(b"done")
        case "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return endless()
        case "/big":
            return answer(b"x" * (64 * MIB))
        case "/file":
            start_response("200 OK", [("Content-Length", str(64 * MIB))])
            wrapper = environ.get("wsgi.file_wrapper")
            result: Iterable[bytes] = (
                endless() if wrapper is None else wrapper(file_of_64_mib(), 65536)
            )
            return result
        case "/write":
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            for piece in endless():
                write(piece)
            return []
        case "/reset":
            stream.read(length)
            reset_upstream()
        case "/reset-unread":
            reset_upstream()
        case "/reset-gone":
            wait_at(gate)
            reset_upstream()
        case "/refused":
            refused_upstream()
        case "/proxy":
            PROXIES[gate](os.environ[URL], stream, length)
            return answer(b"done")
        case "/hide":
            HIDES[gate](stream.read)
        case "/hide-in-pieces":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return (b"%d" % len(str(HIDES[gate](stream.read))) for _ in range(1))
        case "/reset-declared":
            start_response("200 OK", [("Content-Length", "1000")])
            return Body("later", [b"begun"])
        case "/reset-first" | "/reset-later" | "/reset-close":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Body(path.removeprefix("/reset-"), [b"begun", b"ended"])
        case _:
            pass
    return answer(b"", "404 Not Found")


def load(name: str) -> Any:
    """A module that has no types."""
    return importlib.import_module(name)


def flask() -> Any:
    module = load("flask")
    app = module.Flask(__name__)

    def read() -> str:
        return str(len(module.request.get_data()))

    def proxy() -> str:
        length = module.request.content_length or 0
        PROXIES[module.request.query_string.decode()](
            os.environ[URL], module.request.stream, length
        )
        return "done"

    app.get("/")(counters)
    app.post("/read")(read)
    app.post("/proxy")(proxy)
    return app.wsgi_app


def django() -> Any:
    response = load("django.http").HttpResponse
    path = load("django.urls").path

    def index(request: Any) -> Any:
        return response(counters())

    def read(request: Any) -> Any:
        return response(str(len(request.body)))

    def proxy(request: Any) -> Any:
        length = int(request.META["CONTENT_LENGTH"])
        PROXIES[request.META["QUERY_STRING"]](os.environ[URL], request, length)
        return response("done")

    urls = (path("", index), path("read", read), path("proxy", proxy))
    load("django.conf").settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"])
    load("django").setup()
    return load("django.core.handlers.wsgi").WSGIHandler()


def bottle() -> Any:
    module = load("bottle")
    app = module.Bottle()
    app.get("/", callback=counters)
    app.post("/read", callback=lambda: str(len(module.request.body.read())))
    app.post("/json", callback=lambda: str(module.request.json))

    def unlimited() -> str:
        return str(len(module.request.environ["wsgi.input"].read()))

    def compare() -> str:
        if int(unlimited()) != module.request.content_length:
            raise module.HTTPError(400, "half of it")
        return "whole"

    app.post("/unlimited", callback=unlimited)
    app.post("/compare", callback=compare)
    return app


def cherrypy() -> Any:
    module = load("cherrypy")
    module.config.update({"environment": "embedded"})

    class Root:
        @module.expose  # type: ignore[untyped-decorator]
        def index(self) -> bytes:
            return counters()

        @module.expose  # type: ignore[untyped-decorator]
        def read(self) -> str:
            return str(len(module.request.body.read()))

    return module.Application(Root(), config={"/": {"request.methods_with_bodies": ("POST",)}})


def counted(app: Any) -> Any:
    """An application of somebody else's, and the counters."""

    def front(environ: Any, start_response: Any) -> Iterable[bytes]:
        inner = raw if environ["PATH_INFO"] == "/" else app
        result: Iterable[bytes] = inner(environ, start_response)
        return result

    return front


def pyramid() -> Any:
    response = load("pyramid.response").Response

    def index(request: Any) -> Any:
        return response(counters())

    def read(request: Any) -> Any:
        return response(str(len(request.body)))

    with load("pyramid.config").Configurator() as config:
        config.add_route("index", "/")
        config.add_route("read", "/read")
        config.add_view(index, route_name="index")
        config.add_view(read, route_name="read")
        return config.make_wsgi_app()


def falcon() -> Any:
    class Index:
        def on_get(self, request: Any, response: Any) -> None:
            response.data = counters()

    class Read:
        def on_post(self, request: Any, response: Any) -> None:
            response.text = str(len(request.bounded_stream.read()))

    class Json:
        def on_post(self, request: Any, response: Any) -> None:
            response.media = request.get_media()

    class Unlimited:
        def on_post(self, request: Any, response: Any) -> None:
            response.text = str(len(request.stream.read()))

    class Compare:
        def on_post(self, request: Any, response: Any) -> None:
            if len(request.stream.read()) != request.content_length:
                raise load("falcon").HTTPBadRequest(title="half of it")

    app = load("falcon").App()
    app.add_route("/", Index())
    app.add_route("/compare", Compare())
    app.add_route("/unlimited", Unlimited())
    app.add_route("/json", Json())
    app.add_route("/read", Read())
    return app


_FRAMEWORKS: Final[dict[str, Callable[[], Any]]] = {
    "raw": lambda: raw,
    "flask": flask,
    "django": django,
    "bottle": bottle,
    "cherrypy": cherrypy,
    "pyramid": pyramid,
    "falcon": falcon,
    "radicale": lambda: counted(radicale()),
    "wsgidav": lambda: counted(wsgidav()),
}


def make_app() -> Any:
    """The app as the environment asks for it."""
    tap.tap_logging()
    bare = _FRAMEWORKS[os.environ.get("TEST_FRAMEWORK", "raw")]()
    if os.environ["CLEANCLOSE"] != "1":
        return bare
    from cleanclose.core import StructlogOutlet

    install_quiet_logs(loggers=os.environ.get(LOGGERS, "").split())
    # So many clients leave in these tests that a surge would be the truth.
    return CleanCloseMiddleware(bare, outlets=[StructlogOutlet(), *tap.outlets()], surge=False)


app = make_app()


def serve(server: str, port: int) -> None:
    """Serve until the process is ended."""
    certificate = os.environ.get("TEST_CERTIFICATE")
    match server:
        case "waitress":
            # The lookahead is what makes it see a client that leaves while the app works.
            lookahead = int(os.environ.get("TEST_LOOKAHEAD", "0"))
            load("waitress").serve(
                app, host="127.0.0.1", port=port, threads=4, channel_request_lookahead=lookahead
            )
        case "cheroot":
            cheroot = load("cheroot.wsgi").Server(("127.0.0.1", port), app, numthreads=4)
            if certificate:
                adapter = load("cheroot.ssl.builtin").BuiltinSSLAdapter
                cheroot.ssl_adapter = adapter(certificate, certificate)
            cheroot.start()
        case "werkzeug":
            tls = (certificate, certificate) if certificate else None
            load("werkzeug.serving").run_simple(
                "127.0.0.1", port, app, threaded=True, ssl_context=tls
            )
        case "wsgiref":
            make_server("127.0.0.1", port, app).serve_forever()
        case "gevent":
            files = {"certfile": certificate, "keyfile": certificate} if certificate else {}
            load("gevent.pywsgi").WSGIServer(("127.0.0.1", port), app, **files).serve_forever()
        case _:
            raise SystemExit(f"there is no {server}")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
