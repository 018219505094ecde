"""The doctor's routes, as a WSGI application around the user's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cleanclose.doctor.application import routes
from cleanclose.doctor.application.framework_routes import add_reading_route
from cleanclose.doctor.application.journal import Journal
from cleanclose.testing.uploads import SMUGGLED_PATH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["WsgiProbe"]

_REASONS = {200: "200 OK", 401: "401 Unauthorized", 413: "413 Content Too Large"}
_CASE = "HTTP_" + routes.CASE_HEADER.upper().replace("-", "_")


class WsgiProbe:
    """The user's application and the doctor's routes; it records every request in the journal.

    Args:
        app: The application.
        journal: The journal to write to.
        framework: The application's framework: some get the route that reads as one of their own.
    """

    def __init__(self, app: WSGIApplication, journal: Journal, framework: str | None) -> None:
        self.app = app
        self.journal = journal
        self._reads_itself = add_reading_route(app, framework)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, or pass it on to the application."""
        path: str = environ.get("PATH_INFO", "")
        if path == SMUGGLED_PATH:
            self.journal.write("smuggled")
        case: str | None = environ.get(_CASE)
        self.journal.write("begin", path=path, case=case)
        exchange = _Exchange(environ, start_response)

        def over() -> None:
            self.journal.write("end", path=path, case=case, **exchange.facts())

        try:
            if path.startswith(routes.PREFIX):
                result = self._serve(path, environ, exchange)
            else:
                result = self.app(environ, exchange.start_response)
        except BaseException:
            over()
            raise
        if isinstance(result, list | tuple):
            # The same object goes back: a server may look at its length.
            over()
            return result
        return _Result(result, over)

    def _serve(self, path: str, environ: WSGIEnvironment, exchange: _Exchange) -> Iterable[bytes]:
        def answer(status: int, body: bytes) -> list[bytes]:
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
            exchange.start_response(_REASONS[status], headers)
            return [body]

        if path == routes.REFUSE:
            return answer(413, routes.REFUSAL)
        if path == routes.REFUSE_LARGE:
            return answer(401, routes.LARGE)
        if path == routes.READ and self._reads_itself:
            return self.app(environ, exchange.start_response)
        if path == routes.READ:
            _read(environ)
        elif path == routes.SLOW:
            time.sleep(routes.SLOW_SECONDS)
        elif path == routes.STREAM:
            exchange.start_response("200 OK", [("Content-Type", "text/plain")])
            return _pieces()
        elif path == routes.UPSTREAM:
            routes.fail_like_an_upstream()
        elif path == routes.COUNTERS:
            return answer(200, routes.counters_json())
        return answer(200, routes.OK)


class _Exchange:
    """What an application did with its request: the bytes of the body, and the status."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._start_response = start_response
        self.status: int | None = None
        length = str(environ.get("CONTENT_LENGTH") or "")
        self.expected = int(length) if length.isdigit() else None
        self.input = environ["wsgi.input"] = _CountingInput(environ["wsgi.input"])

    def start_response(self, status: str, headers: Any, *more: Any) -> Any:
        self.status = int(status[:3])
        return self._start_response(status, headers, *more)

    def facts(self) -> dict[str, object]:
        return {
            "read": self.input.count,
            "read_to_end": self.input.ended,
            "expected": self.expected,
            "status": self.status,
        }


class _CountingInput:
    """The body, whose bytes it counts; everything else is the server's own object's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.count = 0
        self.ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._inner:
            yield self._counted(line, len(line))
        self.ended = True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None else size
        data = self._inner.read() if wanted < 0 else self._inner.read(wanted)
        return self._counted(data, wanted)

    def readline(self, size: int | None = -1, /) -> bytes:
        data = self._inner.readline() if size is None or size < 0 else self._inner.readline(size)
        return self._counted(data, len(data) or 1)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        return [self._counted(line, len(line)) for line in self._inner.readlines()]

    def _counted(self, data: bytes, wanted: int) -> bytes:
        self.count += len(data)
        if wanted < 0 or len(data) < wanted:
            self.ended = True
        return data


class _Result:
    """The user's iterable; when the server closes it, it records its figures."""

    def __init__(self, inner: Iterable[bytes], over: Any) -> None:
        self._inner = inner
        self._over = over

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def close(self) -> None:
        try:
            close = getattr(self._inner, "close", None)
            if close is not None:
                close()
        finally:
            self._over()


def _pieces() -> Iterator[bytes]:
    for _ in range(routes.PIECES):
        yield routes.PIECE


def _read(environ: WSGIEnvironment) -> None:
    length = str(environ.get("CONTENT_LENGTH") or "")
    if length.isdigit():
        environ["wsgi.input"].read(int(length))
    elif environ.get("wsgi.input_terminated"):
        environ["wsgi.input"].read()
