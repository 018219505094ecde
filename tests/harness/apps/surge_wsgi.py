"""The routes of ``surge_asgi`` on Flask. What is waited for is a stream of small pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, Response, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cleanclose.integrations.status import StatusPage
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness import tap
from tests.harness.apps.flask_parts import read, refuse

app = Flask(__name__)


def pieces(seconds: float) -> Iterator[bytes]:
    end = time.monotonic() + seconds
    yield b"ok\n"
    while time.monotonic() < end:
        time.sleep(0.02)
        yield b"."


def wait() -> Response:
    return Response(pieces(float(request.args.get("wait", "0"))))


for path in ("/", "/a", "/b", "/c", "/d", "/e"):
    app.add_url_rule(path, path, wait)


app.post("/upload")(read)
app.post("/refuse")(refuse)

page = StatusPage(title="gunicorn <here>")
mounted = DispatcherMiddleware(app.wsgi_app, {"/status": page.wsgi})
app.wsgi_app = CleanCloseMiddleware(mounted, outlets=[*tap.outlets(), page])  # type: ignore[method-assign]
