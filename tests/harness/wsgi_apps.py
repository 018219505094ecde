"""What WSGI applications of the tests are made of."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import FileWrapper

from cleanclose.core import (
    Event,
)
from cleanclose.wsgi import CleanCloseMiddleware

App = Callable[[Any, Any], Iterable[bytes]]
MIB = 1024 * 1024
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "2")]


def wrap(app: App, events: list[Event] | None = None, **settings: Any) -> CleanCloseMiddleware:
    outlet = (events if events is not None else []).append
    return CleanCloseMiddleware(app, outlets=[outlet], **settings)


def refuse(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("413 Too Large", HEADERS)
    return [b"no"]


def refuse_by_generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", HEADERS)
    yield b"n"
    yield b"o"


def refuse_by_file(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("413 Too Large", HEADERS)
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"no"))
    return result


def ok(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", HEADERS)
    return [b"ok"]


def start(status: str, headers: Any, exc_info: Any = None) -> Any:
    return len


def environ_of(body: bytes = b"", *, length: Any = None, **more: Any) -> Any:
    return {
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body) if length is None else length),
        "wsgi.input": io.BytesIO(body),
        "wsgi.file_wrapper": FileWrapper,
        **more,
    }


GET: dict[str, Any] = {"REQUEST_METHOD": "GET", "CONTENT_LENGTH": ""}


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Threads(ThreadingMixIn, WSGIServer):
    pass


def told_of_threads(app: Any) -> App:
    """What wsgiref says of itself, right for `Threads`."""

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.multithread"] = True
        result: Iterable[bytes] = app(environ, start_response)
        return result

    return outer


@contextlib.contextmanager
def serving(app: Any, kind: type[WSGIServer] = WSGIServer) -> Generator[int]:
    """The app on a real server, one request at a time; gives the port."""
    with make_server("127.0.0.1", 0, app, kind, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
