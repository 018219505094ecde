"""Every outlet survives that the cyclic collector ends another exchange inside of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from cleanclose.core import (
    ClientDeparted,
    Facts,
    Mechanism,
    Outlet,
    Phase,
    Side,
    StructlogOutlet,
    Verdict,
)
from cleanclose.core.tell.reporter import Reporter
from cleanclose.integrations.opentelemetry import OpenTelemetryOutlet
from cleanclose.integrations.prometheus import PrometheusOutlet
from cleanclose.integrations.queue import QueuedOutlet
from cleanclose.integrations.sentry import SentryOutlet
from cleanclose.integrations.status import StatusPage
from cleanclose.integrations.stdlib import StdlibOutlet
from tests.harness.collector import gets_through

OUTLETS: Final[Mapping[str, Callable[[], Outlet]]] = {
    "opentelemetry": lambda: OpenTelemetryOutlet(
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()])
    ),
    "prometheus": lambda: PrometheusOutlet(CollectorRegistry(), routes=["/known"]),
    "queue": lambda: QueuedOutlet(StdlibOutlet()),
    "sentry": SentryOutlet,
    "status": StatusPage,
    "stdlib": StdlibOutlet,
    "structlog": StructlogOutlet,
}
EVENT: Final = ClientDeparted(
    facts=Facts(framework="asgi", server="uvicorn", method="GET", route="/known"),
    age_ms=1.0,
    verdict=Verdict(side=Side.CLIENT, phase=Phase.HANDLER, mechanism=Mechanism.RESET),
)


@pytest.mark.parametrize("name", OUTLETS)
def test_it_gets_through(name: str) -> None:
    reporter = Reporter([OUTLETS[name]()])
    assert gets_through(lambda: reporter.report(EVENT))
