"""A Flask service whose metrics Prometheus scrapes, on several gunicorn workers.

Run it from the root of the checkout, with an empty folder for the workers' figures::

    export PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
    gunicorn -c example_apps/metered_gunicorn.py 'example_apps.metered:make_app()'

``PRICES`` is the address of the other API that it asks (``http://host:port``), ``PORT`` the port
whose accept queue is shown, ``ORDER_SECONDS`` how long an order takes. The rules and the dashboard
for it are in ``integrations/``.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import prometheus_client
from flask import Flask, Response, abort, request
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cleanclose.core import StructlogOutlet
from cleanclose.integrations.prometheus import KernelCollector, PrometheusOutlet
from cleanclose.wsgi import CleanCloseMiddleware

MAX_BYTES: Final = 1024 * 1024
"""An upload that announces more is refused from its headers."""
# What most exporters for Flask count. The share of departures needs to know of how many.
REQUESTS: Final = Counter("http_requests_total", "Requests.", ("method", "code"))


def make_app() -> Flask:
    """Build the app."""
    prices = os.environ.get("PRICES", "http://127.0.0.1:9")
    order_seconds = float(os.environ.get("ORDER_SECONDS", "0.5"))
    app = Flask(__name__)
    # Otherwise Flask answers for every exception by itself, and the middleware sees none.
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.after_request
    def count(response: Response) -> Response:
        REQUESTS.labels(request.method, response.status_code).inc()
        return response

    @app.get("/")
    def index() -> str:
        return "ok"

    @app.put("/files")
    def store() -> tuple[str, int]:
        if (request.content_length or 0) > MAX_BYTES:
            abort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        size = 0
        while piece := request.stream.read(65536):
            size += len(piece)
        return str(size), HTTPStatus.CREATED

    @app.post("/orders")
    def order() -> tuple[str, int]:
        request.get_data()
        time.sleep(order_seconds)
        return "ordered", HTTPStatus.CREATED

    @app.get("/report")
    def report() -> Response:
        return Response(_lines(), mimetype="text/plain")

    @app.get("/prices")
    def ask() -> bytes:
        with urllib.request.urlopen(prices, timeout=5) as answer:  # pyright: ignore[reportUnknownVariableType]
            body: bytes = answer.read()
        return body

    wsgi_app: Any = DispatcherMiddleware(app.wsgi_app, {"/metrics": _metrics()})
    app.wsgi_app = CleanCloseMiddleware(  # type: ignore[method-assign]
        wsgi_app, outlets=[StructlogOutlet(), PrometheusOutlet()]
    )
    return app


def _metrics() -> Any:
    """The application that Prometheus scrapes: the sum over all workers."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    KernelCollector(registry, ports=[int(os.environ.get("PORT", "8000"))])
    client: Any = prometheus_client
    return client.make_wsgi_app(registry)


def _lines() -> Iterator[bytes]:
    """Some 300 MiB."""
    for number in range(5000):
        yield b"%d\n" % number * 16384
