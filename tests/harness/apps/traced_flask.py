"""Flask with the middleware at ``app.wsgi_app``, and around both what ``TEST_TRACER`` names.

``sentry`` is sentry-sdk itself, which stands around ``Flask.__call__``; ``opentelemetry`` wraps
``start_response`` into a function as `opentelemetry.instrumentation.wsgi` does, with a span of the
SDK's.

===============  ================================================================================
``/``            200
``PUT /refuse``  413, from the headers
===============  ================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from flask import Flask, Response, abort

from cleanclose.wsgi import CleanCloseMiddleware


def _sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.flask import FlaskIntegration

    def drop(envelope: Any) -> None:
        """Send it nowhere."""

    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        integrations=[FlaskIntegration()],
        traces_sample_rate=1.0,
        transport=drop,
    )


def _traced(app: Any) -> Any:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        with tracer.start_as_current_span(environ["REQUEST_METHOD"]) as span:

            def begin(status: str, headers: Any, *arguments: Any, **keywords: Any) -> Any:
                span.set_attribute("http.status_code", status)
                return start_response(status, headers, *arguments, **keywords)

            result: Iterable[bytes] = app(environ, begin)
            return result

    return outer


if os.environ["TEST_TRACER"] == "sentry":
    _sentry()

flask = Flask(__name__)


@flask.get("/")
def index() -> str:
    return "ok"


@flask.put("/refuse")
def refuse() -> str:
    abort(Response("too large", 413))


if os.environ["CLEANCLOSE"] == "1":
    flask.wsgi_app = CleanCloseMiddleware(flask.wsgi_app, outlets=[])  # type: ignore[method-assign]
app: Any = _traced(flask) if os.environ["TEST_TRACER"] == "opentelemetry" else flask
