"""The routes on Flask: abort(), streamed responses, request.stream, call_on_close."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, request, stream_with_context

from tests.harness.apps import routes

METHODS = ["GET", "HEAD", "POST", "PUT"]

seen = routes.Seen()
app = Flask(__name__)


@app.before_request
def count() -> None:
    seen.count(request.path)


@app.route(routes.INDEX, methods=METHODS)
def index() -> Response:
    request.get_data(cache=False)
    return Response(routes.OK_BODY)


@app.route(routes.REFUSE, methods=METHODS)
def refuse() -> Response:
    abort(Response(routes.REFUSAL, 413))


@app.route(routes.REFUSE_LARGE, methods=METHODS)
def refuse_large() -> Response:
    return Response(routes.LARGE, 401)


@app.route(routes.REFUSE_AFTER, methods=METHODS)
def refuse_after() -> Response:
    size = 0
    while size < routes.READ_FIRST and (piece := request.stream.read(routes.PIECE)):
        size += len(piece)
    return Response(routes.REFUSAL, 413)


@app.route(routes.REFUSE_STREAMING, methods=METHODS)
def refuse_streaming() -> Response:
    def chunks() -> Iterator[bytes]:
        for number, chunk in enumerate(routes.CHUNKS):
            if number:
                time.sleep(routes.CHUNK_PAUSE)
            yield chunk

    return Response(chunks(), 413)


@app.route(routes.REFUSE_BACKGROUND, methods=METHODS)
def refuse_background() -> Response:
    def work() -> None:
        time.sleep(routes.WORK_SECONDS)
        seen.count_background()

    response = Response(routes.REFUSAL, 413)
    response.call_on_close(work)
    return response


@app.route(routes.REFUSE_LATE, methods=METHODS)
def refuse_late() -> Response:
    time.sleep(routes.LATE_SECONDS)
    return Response(routes.REFUSAL, 413)


@app.route(routes.REDIRECT, methods=METHODS)
def redirect_early() -> Response:
    # Flask's own redirect() adds a page, which the other apps do not have.
    return Response(status=303, headers={"Location": "/"})


@app.route(routes.NOTHING, methods=METHODS)
def nothing() -> Response:
    return Response(status=204)


@app.route(routes.ERROR, methods=METHODS)
def error() -> Response:
    raise RuntimeError("the app failed, as this route promises")


@app.route(routes.ACCEPT, methods=METHODS)
def accept() -> Response:
    digest = hashlib.sha256()
    size = 0
    while piece := request.stream.read(routes.PIECE):
        digest.update(piece)
        size += len(piece)
    return Response(routes.accepted_json(size, digest.hexdigest()), mimetype="application/json")


@app.route(routes.ECHO, methods=METHODS)
def echo() -> Response:
    def parts() -> Iterator[bytes]:
        while piece := request.stream.read(routes.PIECE):
            yield piece

    return Response(stream_with_context(parts()))


@app.route(routes.SLEEP, methods=METHODS)
def sleep() -> Response:
    time.sleep(routes.LATE_SECONDS)
    return Response(routes.OK_BODY)


@app.route(routes.COUNTERS, methods=METHODS)
def counters() -> Response:
    return Response(routes.counters_json(), mimetype="application/json")


@app.route(routes.SEEN, methods=METHODS)
def what_was_seen() -> Response:
    return Response(seen.json(), mimetype="application/json")


if routes.wrapped():
    from cleanclose.wsgi import CleanCloseMiddleware

    middleware: Any = CleanCloseMiddleware
    # The documented way: replacing the method keeps `app` the Flask object.
    app.wsgi_app = middleware(app.wsgi_app, **routes.settings())  # type: ignore[method-assign]
