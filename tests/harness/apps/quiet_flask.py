"""Flask, wrapped the usual way: what it logs on the application's own logger."""

from __future__ import annotations

import contextlib
import json
import os

from flask import Flask, request

from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.tap import outlets, tap_logging

tap_logging()

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "ready"


@app.post("/body")
def body() -> str:
    return str(len(request.get_data()))


@app.post("/upstream")
def upstream() -> str:
    with contextlib.suppress(Exception):
        request.get_data()
    raise ConnectionResetError(104, "Connection reset by peer")


app.wsgi_app = CleanCloseMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, outlets=outlets(), **json.loads(os.environ.get("CLEANCLOSE_SETTINGS", "{}"))
)
