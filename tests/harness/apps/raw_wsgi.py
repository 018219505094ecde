"""The routes as a plain WSGI app, without any framework."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tests.harness.apps import routes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

seen = routes.Seen()

STATUS = {
    200: "200 OK",
    204: "204 No Content",
    303: "303 See Other",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    404: "404 Not Found",
    413: "413 Content Too Large",
}


def pieces(environ: WSGIEnvironment) -> Iterator[bytes]:
    """The body; never read past a declared length, which some servers answer by blocking."""
    declared = environ.get("CONTENT_LENGTH")
    left = int(declared) if declared else None
    if left is None and not environ.get("wsgi.input_terminated"):
        return
    while left is None or left > 0:
        piece = environ["wsgi.input"].read(
            routes.PIECE if left is None else min(left, routes.PIECE)
        )
        if not piece:
            return
        if left is not None:
            left -= len(piece)
        yield piece


class Working:
    """A response with work to do behind its last byte, as frameworks do it: in ``close()``."""

    def __init__(self, body: bytes) -> None:
        self.body = iter([body])

    def __iter__(self) -> Iterator[bytes]:
        return self.body

    def close(self) -> None:
        """Called by the server when the response is out."""
        time.sleep(routes.WORK_SECONDS)
        seen.count_background()


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The app."""
    path: str = environ["PATH_INFO"]
    seen.count(path)

    def answer(status: int, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
        framing = [] if status == 204 else [("Content-Length", str(len(body)))]
        start_response(STATUS[status], [("Content-Type", "text/plain"), *framing, *headers])
        return [body]

    return respond(path, environ, start_response, answer)


def respond(
    path: str,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    answer: Callable[..., list[bytes]],
) -> Iterable[bytes]:
    """Dispatch one request."""
    match path:
        case routes.REFUSE:
            return answer(413, routes.REFUSAL)
        case routes.REFUSE_LARGE:
            return answer(401, routes.LARGE)
        case routes.REFUSE_AFTER:
            size = 0
            for piece in pieces(environ):
                size += len(piece)
                if size >= routes.READ_FIRST:
                    break
            return answer(413, routes.REFUSAL)
        case routes.REFUSE_STREAMING:
            start_response(STATUS[413], [("Content-Type", "text/plain")])
            return refuse_streaming()
        case routes.REFUSE_UNSIZED:
            start_response(STATUS[413], [("Content-Type", "text/plain")])
            return [routes.REFUSAL]
        case routes.REFUSE_BACKGROUND:
            return Working(answer(413, routes.REFUSAL)[0])
        case routes.REFUSE_LATE:
            time.sleep(routes.LATE_SECONDS)
            return answer(413, routes.REFUSAL)
        case routes.REDIRECT:
            return answer(303, b"", ("Location", "/"))
        case routes.NOTHING:
            return answer(204, b"")
        case routes.ERROR:
            raise RuntimeError("the app failed, as this route promises")
        case routes.ACCEPT:
            digest = hashlib.sha256()
            size = 0
            for piece in pieces(environ):
                digest.update(piece)
                size += len(piece)
            return answer(200, routes.accepted_json(size, digest.hexdigest()))
        case routes.FORGIVE:
            try:
                for _ in pieces(environ):
                    pass
            except Exception:  # noqa: BLE001 - each server has its own for a bad chunk
                return answer(400, routes.REFUSAL)
            return answer(200, routes.OK_BODY)
        case routes.ECHO:
            start_response(STATUS[200], [("Content-Type", "application/octet-stream")])
            return pieces(environ)
        case routes.SLEEP:
            time.sleep(routes.LATE_SECONDS)
            return answer(200, routes.OK_BODY)
        case routes.COUNTERS:
            return answer(200, routes.counters_json())
        case routes.SEEN:
            return answer(200, seen.json())
        case routes.INDEX:
            for _ in pieces(environ):
                pass
            return answer(200, routes.OK_BODY)
        case _:
            return answer(404, b"There is no such route.\n")


def refuse_streaming() -> Iterator[bytes]:
    """A response in pieces, as a template engine makes them."""
    for number, chunk in enumerate(routes.CHUNKS):
        if number:
            time.sleep(routes.CHUNK_PAUSE)
        yield chunk


def make_app() -> WSGIApplication:
    """The app as the environment asks for it."""
    if not routes.wrapped():
        return bare
    from cleanclose.wsgi import CleanCloseMiddleware

    middleware: Any = CleanCloseMiddleware
    wrapped: WSGIApplication = middleware(bare, **routes.settings())
    return wrapped


app = make_app()
