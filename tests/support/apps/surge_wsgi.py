"""The routes of ``surge_asgi`` on Flask. What is waited for is a stream of small pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, Response, request

from cleanclose.wsgi import CleanCloseMiddleware
from tests.support import tap

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


@app.post("/upload")
def upload() -> str:
    return str(len(request.get_data()))


@app.post("/refuse")
def refuse() -> tuple[str, int]:
    return "no", 413


app.wsgi_app = CleanCloseMiddleware(app.wsgi_app, outlets=tap.outlets())  # type: ignore[method-assign]
