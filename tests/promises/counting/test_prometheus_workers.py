"""The Prometheus outlet in processes that fork."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.processes import run_python

FORK = """
import os
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tests.harness.processes import run_python
from cleanclose.core import ClientDeparted, Facts, Mechanism, Phase, Side, Verdict
from cleanclose.core.counters import PROCESS
from cleanclose.integrations.prometheus import PrometheusOutlet

outlet = PrometheusOutlet()
event = ClientDeparted(
    facts=Facts(framework="wsgi", server="gunicorn", method="GET"),
    age_ms=1.0,
    verdict=Verdict(side=Side.CLIENT, phase=Phase.HANDLER, mechanism=Mechanism.EOF),
)
for number in (1, 2, 3):
    if os.fork() == 0:
        for _ in range(number):
            outlet(event)
            PROCESS.count_quieted_record()
        os._exit(0)
    os.wait()
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_an_outlet_made_before_the_workers_are_forked(tmp_path: Path) -> None:
    printed = run_python(FORK, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout
    found = {
        sample.name + str(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(printed)
        for sample in family.samples
    }
    assert found["cleanclose_departures_total['client', 'eof', 'handler']"] == 6
    assert found["cleanclose_quieted_records_total[]"] == 6
    # What nobody has counted is there too.
    assert found["cleanclose_upstream_resets_total['true']"] == 0
