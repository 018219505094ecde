"""Requests to gunicorn's own parser, environ and response, over a connection."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from gunicorn.http.wsgi import create  # type: ignore[import-untyped]

from benchmarks.requests import ANSWER, BARE, FORWARDING, WRAPPED, Batch, Method, wire
from cleanclose.wsgi import CleanCloseMiddleware

__all__ = ["batches"]

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """What is measured: it reads what there is, and answers."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]
    start_response("200 OK", headers)
    return [ANSWER]


class ForwardedBody:
    """A response's iterable, looked at."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result
        self._pieces = iter(result)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Close what is looked at."""
        close = getattr(self._result, "close", None)
        if close is not None:
            close()


def forwarding(app: WSGIApp) -> WSGIApp:
    """What every middleware costs that looks at the response's head and its end."""

    def wrapper(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def forward(status: str, headers: object, exc_info: object = None) -> Any:
            return start_response(status, headers, exc_info)

        return ForwardedBody(app(environ, forward))

    return wrapper


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection, as servers have it: `socket.socketpair` gives none of TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        # As gunicorn has it.
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server


class _Batch:
    """Some requests, one after the other on one connection, as gunicorn's gthread serves them."""

    def __init__(self, app: WSGIApp, method: Method) -> None:
        self._app = app
        self._request = wire(method)
        self._config = Config()

    def prepare(self, requests: int) -> Callable[[], None]:
        """Make a connection; return what serves that many requests on it."""
        client, server = _tcp_pair()
        parser: Any = RequestParser(self._config, server, ("127.0.0.1", 50000))

        def serve() -> None:
            with client, server:
                for _ in range(requests):
                    client.sendall(self._request)
                    self._serve(next(parser), server)
                    # gunicorn sends the head by itself.
                    answer = client.recv(4096)
                    while not answer.endswith(ANSWER):
                        more = client.recv(4096)
                        assert more
                        answer += more

        return serve

    def _serve(self, request: Any, server: socket.socket) -> None:
        # As ThreadWorker.handle_request has it.
        made: Any = create(request, server, ("127.0.0.1", 50000), ("127.0.0.1", 8000), self._config)
        response, environ = made
        environ["wsgi.multithread"] = True
        pieces = self._app(environ, response.start_response)
        for piece in pieces:
            response.write(piece)
        response.close()
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def batches(method: Method) -> dict[str, Batch]:
    """By variant, what serves requests.

    Args:
        method: The requests' method.
    """
    apps: dict[str, WSGIApp] = {
        BARE: app,
        FORWARDING: forwarding(app),
        WRAPPED: CleanCloseMiddleware(app, surge=False),
    }
    return {name: _Batch(each, method).prepare for name, each in apps.items()}
