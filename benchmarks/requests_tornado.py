"""Requests to Tornado's own HTTPServer, on a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler

from benchmarks.requests import ANSWER, BARE, FORWARDING, WRAPPED, Batch, Method, wire
from cleanclose.tornado import install

__all__ = ["batches"]


class Page(RequestHandler):
    """What is measured."""

    def get(self) -> None:
        """Answer."""
        self.write(ANSWER)  # pyright: ignore[reportUnknownMemberType]

    post = get


class ForwardingConnection(HTTPConnection):
    """What the application writes to, looked at."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Any:
        """Write the head."""
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Any:
        """Write a piece."""
        return self._connection.write(chunk)

    def finish(self) -> None:
        """End the response."""
        self._connection.finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class ForwardingDelegate(HTTPMessageDelegate):
    """What the application reads from, looked at."""

    def __init__(self, delegate: HTTPMessageDelegate) -> None:
        self._delegate = delegate

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Any:
        """The head."""
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        """A piece of the body."""
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        """The end of the request."""
        self._delegate.finish()

    def on_connection_close(self) -> None:
        """The client has left."""
        self._delegate.on_connection_close()


class Forwarding(HTTPServerConnectionDelegate):
    """What everything costs that looks at requests and responses of an application."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Serve one request."""
        connection = ForwardingConnection(request_conn)
        return ForwardingDelegate(self._application.start_request(server_conn, connection))


class _Batch:
    """Some requests, one after the other on one connection."""

    def __init__(self, runner: asyncio.Runner, application: Any, method: Method) -> None:
        self._runner = runner
        self._application = application
        self._request = wire(method)

    def prepare(self, requests: int) -> Callable[[], None]:
        """Make a connection; return what serves that many requests on it."""
        client, server = socket.socketpair()
        client.setblocking(False)

        async def listen() -> HTTPServer:
            made = HTTPServer(self._application)
            made.handle_stream(IOStream(server), ("127.0.0.1", 50000))
            return made

        http_server = self._runner.run(listen())

        def serve() -> None:
            with client:
                self._runner.run(self._serve(client, requests))
                self._runner.run(self._close(http_server))

        return serve

    async def _serve(self, client: socket.socket, requests: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(requests):
            client.send(self._request)
            answer = await loop.sock_recv(client, 4096)
            assert answer.endswith(ANSWER), answer

    async def _close(self, server: HTTPServer) -> None:
        await server.close_all_connections()


def batches(runner: asyncio.Runner, method: Method) -> dict[str, Batch]:
    """By variant, what serves requests.

    Args:
        runner: The event loop.
        method: The requests' method.
    """

    def application() -> Application:
        return Application([("/files", Page)])

    applications: dict[str, object] = {
        BARE: application(),
        FORWARDING: Forwarding(application()),
        WRAPPED: install(application(), surge=False),
    }
    return {name: _Batch(runner, each, method).prepare for name, each in applications.items()}
