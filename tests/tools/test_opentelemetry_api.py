"""The OpenTelemetry outlet in a process without an SDK."""

from __future__ import annotations

from tests.harness.processes import run_python

WITHOUT_SDK = """
import sys
from tests.harness.processes import run_python
from cleanclose.core import ClientDeparted, Facts, Mechanism, Phase, Side, Verdict
from cleanclose.integrations.opentelemetry import OpenTelemetryOutlet

OpenTelemetryOutlet()(ClientDeparted(
    facts=Facts(framework="wsgi", server="gunicorn", method="GET"),
    age_ms=1.0,
    verdict=Verdict(side=Side.CLIENT, phase=Phase.HANDLER, mechanism=Mechanism.EOF),
))
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""


def test_without_an_sdk_it_does_nothing() -> None:
    run_python(WITHOUT_SDK)
