"""A Starlette app whose requests have spans, and which shows its own telemetry.

``TEST_SPANS`` says whether the spans are ``outside`` of cleanclose or ``inside``, in the way of
OpenTelemetry's instrumentation for ASGI: one span around each request, with an error status if an
exception passes.

================  ================================================================================
``/``             200
``POST /read``    reads the body; 200
``POST /work``    works until its client has left; 200
``/reset``        its upstream resets the connection
``POST /refuse``  413, from the headers
``/telemetry``    the spans that have ended and the metrics, as JSON
================  ================================================================================
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import client_gone
from cleanclose.integrations.opentelemetry import OpenTelemetryOutlet
from tests.harness.apps.starlette_parts import read, refuse
from tests.harness.quitter import quitter

spans = InMemorySpanExporter()
reader = InMemoryMetricReader()
WORKING: Final[list[str]] = []


class Traced:
    """A span around each request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] == "/telemetry":
            await self.app(scope, receive, send)
            return
        name = f"{scope['method']} {scope['path']}"
        with trace.get_tracer("test").start_as_current_span(name, kind=trace.SpanKind.SERVER):
            await self.app(scope, receive, send)


async def index(request: Request) -> Response:
    return PlainTextResponse("ok")


async def work(request: Request) -> Response:
    await request.body()
    WORKING.append("it has the order")
    while not client_gone():  # noqa: ASYNC110 - it is polled
        await asyncio.sleep(0.01)
    return PlainTextResponse("done")


async def reset(request: Request) -> Response:
    with quitter() as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        try:
            writer.write(b"hello\n")
            await reader.readexactly(1)
        finally:
            writer.close()
    return PlainTextResponse("no")


async def telemetry(request: Request) -> Response:
    told = {"spans": list(ended_spans()), "metrics": list(points()), "working": len(WORKING)}
    return JSONResponse(told)


def ended_spans() -> Iterator[dict[str, Any]]:
    for span in spans.get_finished_spans():
        yield {
            "name": span.name,
            "status": span.status.status_code.name,
            "attributes": dict(span.attributes or {}),
            "events": [
                {"name": event.name, "attributes": dict(event.attributes or {})}
                for event in span.events
            ],
        }


def points() -> Iterator[dict[str, Any]]:
    data = reader.get_metrics_data()
    if data is None:
        return
    for metric in json.loads(data.to_json())["resource_metrics"][0]["scope_metrics"][0]["metrics"]:
        for point in metric["data"]["data_points"]:
            yield {
                "name": metric["name"],
                "unit": metric["unit"],
                "attributes": point["attributes"],
                "value": point.get("value", point.get("count")),
                "bounds": point.get("explicit_bounds"),
            }


def make_app() -> ASGIApp:
    """The app, with the spans where the environment wants them."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    app: ASGIApp = Starlette(
        routes=[
            Route("/", index),
            Route("/read", read, methods=["POST"]),
            Route("/work", work, methods=["POST"]),
            Route("/reset", reset),
            Route("/refuse", refuse, methods=["POST"]),
            Route("/telemetry", telemetry),
        ]
    )
    inside = os.environ["TEST_SPANS"] == "inside"
    if inside:
        app = Traced(app)
    # Before the global provider is there: an application may set it later.
    app = CleanCloseMiddleware(app, outlets=[OpenTelemetryOutlet()])
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return app if inside else Traced(app)


app = make_app()
