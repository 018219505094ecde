"""The OpenTelemetry outlet: names, units and attributes by the conventions, no status."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cleanclose.core import (
    Event,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Watch,
    Witness,
)
from cleanclose.core.blame.departures import DEPARTURE_LISTENERS
from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.counters import COUNTED, MEASURED, PROCESS
from cleanclose.integrations import opentelemetry
from cleanclose.integrations.opentelemetry import OpenTelemetryOutlet
from tests.harness.made import departed, facts

VERDICT = Verdict(
    side=Side.CLIENT,
    phase=Phase.HANDLER,
    mechanism=Mechanism.EOF,
    witnesses=(Witness.SOCKET, Witness.CLOSE),
)


DRAINED = UploadDrained(facts=facts(), age_ms=1.0, outcome=Outcome.DELIVERED, drained=9)
UPSTREAM = UpstreamReset(
    facts=facts(), age_ms=1.0, verdict=VERDICT, error="pika.StreamLost", library="pika"
)


class Metrics:
    """A meter provider, and what it has."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self._reader])

    def all(self) -> dict[str, list[Any]]:
        """The metrics by name, with unit and points."""
        data = self._reader.get_metrics_data()
        assert data is not None
        (resource,) = json.loads(data.to_json())["resource_metrics"]
        (scope,) = resource["scope_metrics"]
        assert scope["scope"]["name"] == "cleanclose"
        return {
            metric["name"]: [metric["unit"], metric["data"]["data_points"]]
            for metric in scope["metrics"]
        }


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.provider.shutdown()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


def test_names_and_units_are_by_the_conventions(metrics: Metrics) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    for event in (departed(), DRAINED, UPSTREAM):
        outlet(event)
    PROCESS.count_quieted_record()
    PROCESS.count_outlet_error()
    found = metrics.all()
    assert all(re.fullmatch(r"cleanclose\.[a-z]+(_[a-z]+)*", name) for name in found)
    assert {name: unit for name, (unit, _) in found.items()} == {
        "cleanclose.departures": "{departure}",
        "cleanclose.departure_age": "s",
        "cleanclose.early_responses": "{response}",
        "cleanclose.early_response_duration": "s",
        "cleanclose.drained": "By",
        "cleanclose.upstream_resets": "{reset}",
        "cleanclose.quieted_records": "{record}",
        "cleanclose.outlet_errors": "{error}",
    }


def test_stopped_work(metrics: Metrics) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    for overdue in (None, None, True):
        outlet(departed(stopped=True, overdue=overdue))
    unit, points = metrics.all()["cleanclose.stopped"]
    assert unit.startswith("{")
    assert {each["attributes"]["cleanclose.overdue"]: each["value"] for each in points} == {
        "false": 2,
        "true": 1,
    }


def test_an_exporter_for_prometheus_gives_the_names_of_the_other_outlet() -> None:
    # OpenTelemetry's compatibility specification: dots to underscores, the unit, _total.
    units = {"By": "_bytes", "s": "_seconds"}
    for counted in COUNTED:
        name = f"cleanclose.{counted.name}".replace(".", "_")
        unit = opentelemetry._unit(counted)  # pyright: ignore[reportPrivateUsage]
        assert f"{name}{units.get(unit, '')}_total" == counted.full_name
    for measured in MEASURED:
        assert f"cleanclose_{measured.name}_seconds" == measured.full_name


@pytest.mark.parametrize(
    ("method", "told"),
    [("PATCH", "PATCH"), ("WEBSOCKET", "GET"), ("BREW", "_OTHER"), ("get", "_OTHER")],
)
def test_a_method_that_a_client_has_made_up(metrics: Metrics, method: str, told: str) -> None:
    OpenTelemetryOutlet(meter_provider=metrics.provider)(departed(method=method))
    _, (point,) = metrics.all()["cleanclose.departures"]
    assert point["attributes"]["http.request.method"] == told


def test_no_attribute_has_an_address_an_id_or_a_path(metrics: Metrics) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    for event in (departed(route="/files/{name}"), departed(), DRAINED, UPSTREAM):
        outlet(event)
    names = {
        name
        for _, points in metrics.all().values()
        for point in points
        for name in point["attributes"]
    }
    assert names == {
        "cleanclose.side",
        "cleanclose.phase",
        "cleanclose.mechanism",
        "cleanclose.outcome",
        "cleanclose.restored",
        "http.request.method",
        "http.route",
        "error.type",
    }


def test_what_has_no_event_is_counted_too(metrics: Metrics) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    PROCESS.count_quieted_record()
    _, (point,) = metrics.all()["cleanclose.quieted_records"]
    assert point["value"] == 1
    outlet.close()
    outlet.close()
    PROCESS.count_quieted_record()
    _, (point,) = metrics.all()["cleanclose.quieted_records"]
    assert point["value"] == 1


def test_outlets_that_are_gone_leave_nothing_behind() -> None:
    def listeners() -> tuple[int, int]:
        gc.collect()
        return len(DEPARTURE_LISTENERS), len(PROCESS.listeners)

    before = listeners()
    kept = [
        OpenTelemetryOutlet(meter_provider=MeterProvider(shutdown_on_exit=False))
        for _ in range(1000)
    ]
    assert listeners() == (before[0] + 1, before[1] + 1), "one listener is enough for all of them"
    kept.clear()
    assert listeners() == before
    kept.append(OpenTelemetryOutlet(spans=False))
    assert listeners() == (before[0], before[1] + 1)
    kept.pop().close()
    assert listeners() == before


def test_outlets_with_one_provider_share_its_instruments(metrics: Metrics) -> None:
    for _ in range(3):
        OpenTelemetryOutlet(meter_provider=metrics.provider)(departed())
    _, (point,) = metrics.all()["cleanclose.departures"]
    assert point["value"] == 3


@pytest.mark.parametrize("event", [departed(), DRAINED, UPSTREAM])
def test_no_event_sets_a_status(
    event: Event, metrics: Metrics, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    with tracer.start_as_current_span("request"):
        outlet(event)
    (span,) = spans.get_finished_spans()
    assert span.status.is_unset
    assert [each.name for each in span.events] == [event.name]


def test_spans_can_be_left_alone(
    metrics: Metrics, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider, spans=False)
    with tracer.start_as_current_span("request"):
        outlet(departed())
    (span,) = spans.get_finished_spans()
    assert not span.events
    assert not span.attributes


@pytest.mark.parametrize("spans", [1, "yes", None])
def test_spans_is_true_or_false(spans: Any) -> None:
    with pytest.raises(TypeError, match="spans must be True or False"):
        OpenTelemetryOutlet(spans=spans)


class Watched(Watch):
    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return facts(method="POST")


def test_a_departure_that_is_seen_and_then_told_is_one_event(
    metrics: Metrics, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    watch = Watched(0.0)
    entered = CURRENT.set(watch)
    try:
        with tracer.start_as_current_span("request"):
            watch.peer_gone(Witness.SOCKET, 1.0)
            watch.peer_gone(Witness.CLOSE, 1.0)
            outlet(ResponseUndelivered(facts=facts(method="POST"), age_ms=1.0, verdict=VERDICT))
    finally:
        CURRENT.reset(entered)
    (span,) = spans.get_finished_spans()
    assert [event.name for event in span.events] == ["client_departed"]
    assert dict(span.attributes or {}) == {
        "cleanclose.event": "response_undelivered",
        "cleanclose.side": "client",
        "cleanclose.phase": "handler",
        "cleanclose.mechanism": "eof",
    }


def test_a_span_that_fails_disturbs_nobody(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            raise RuntimeError("span")

    outlet = OpenTelemetryOutlet(meter_provider=metrics.provider)
    before = PROCESS.snapshot()["cleanclose_outlet_errors_total"]
    watch = Watched(0.0)
    entered = CURRENT.set(watch)
    try:
        with trace.use_span(Broken(trace.INVALID_SPAN_CONTEXT)):
            watch.peer_gone(Witness.SOCKET, 1.0)
    finally:
        CURRENT.reset(entered)
    assert PROCESS.snapshot()["cleanclose_outlet_errors_total"] == before + 1
    outlet.close()


def test_outside_of_a_request_a_departure_has_no_span() -> None:
    outlet = OpenTelemetryOutlet()
    for listener in tuple(DEPARTURE_LISTENERS):
        listener()
    outlet.close()
