"""Flask, for the tests about outlets, trackers and access logs; ``/raw/…`` is plain WSGI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Flask, Response

from cleanclose.core import client_gone
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.apps import told
from tests.harness.apps.flask_parts import read, refuse

told.prepare_logging()
if "TEST_SENTRY" in os.environ:
    from sentry_sdk.integrations.flask import FlaskIntegration

    told.prepare_sentry(FlaskIntegration())

flask = Flask(__name__)
flask.post("/read")(read)
flask.post("/refuse")(refuse)


@flask.get("/")
def index() -> bytes:
    return told.counters()


@flask.route("/work", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def work() -> str:
    deadline = time.monotonic() + 10
    while not client_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    return "late"


@flask.get("/stream")
def stream() -> Response:
    def pieces() -> Iterator[bytes]:
        for _ in range(2000):
            yield told.PIECE
            time.sleep(0.001)

    return Response(pieces())


@flask.get("/reset")
def reset() -> str:
    told.reset_upstream()
    return "never"


@flask.get("/reset-later")
def reset_later() -> Response:
    def pieces() -> Iterator[bytes]:
        yield b"begun"
        told.reset_upstream()

    return Response(pieces())


flask_wsgi = flask.wsgi_app


def with_raw(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The same with a path that Flask does not see."""
    match environ["PATH_INFO"]:
        case "/raw/reset":
            told.reset_upstream()
        case "/raw/read":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("200 OK", [("Content-Length", "1")])
            return [b"%d" % (len(body) % 10)]
        case _:
            pass
    return flask_wsgi(environ, start_response)


wsgi: Any = with_raw
if os.environ["CLEANCLOSE"] == "1":
    wsgi = CleanCloseMiddleware(with_raw, outlets=told.outlets())
if os.environ.get("TEST_SENTRY_WSGI") == "1":
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

    wsgi = SentryWsgiMiddleware(wsgi)
flask.wsgi_app = wsgi  # type: ignore[method-assign]
app: Any = flask
