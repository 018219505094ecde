"""Prometheus scrapes four workers of gunicorn whose clients leave, and misses none of them."""

from __future__ import annotations

import math
import os
import random
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import prometheus_client.multiprocess
import pytest

from cleanclose.core import kernel_figures
from tests.harness import dashboard, metered
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess, process_tree
from tests.harness.prometheus import PROGRAM, Prometheus
from tests.harness.quitter import quitter
from tests.harness.waiting import until

RULES: Final = ROOT / "integrations" / "prometheus" / "rules.yml"
WORKERS: Final = 4

Task = Callable[[], object]

pytestmark = pytest.mark.slow


@dataclass
class Run:
    """A service under load, and the Prometheus that watches it."""

    service: ServerProcess
    prometheus: Prometheus
    folder: Path
    injected: dict[str, int] = field(default_factory=dict[str, int])
    """How many clients have left, by the phase."""
    upstream_resets: int = 0
    refused: int = 0


def workers_of(service: ServerProcess) -> set[int]:
    return set(process_tree(service.pid)) - {service.pid}


def departures_in(path: Path) -> float:
    """How many departures one worker has counted."""
    collector: Any = prometheus_client.multiprocess.MultiProcessCollector
    values: list[float] = [
        sample.value
        for metric in collector.merge([str(path)])
        if metric.name == "cleanclose_departures"
        for sample in metric.samples
    ]
    return sum(values)


def inject(run: Run) -> None:
    """Have clients leave in every way, others be refused, and the upstream reset."""
    port = run.service.port
    tasks: list[Task] = []
    for how in ("rst", "fin"):
        tasks += [partial(metered.cut_upload, port, how)] * 12
    tasks += [partial(metered.leave_report, port, "rst")] * 12
    orders: list[Task] = [partial(metered.leave_order, port, "rst")] * 6
    resets: list[Task] = [partial(metered.visit, port, "GET", "/prices")] * 4
    refused: list[Task] = [partial(metered.refused_upload, port)] * 4
    tasks += [*orders, *resets, *refused]
    random.Random(0).shuffle(tasks)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    for phase, number in (("request_body", 24), ("response_body", 12), ("handler", 6)):
        run.injected[phase] = run.injected.get(phase, 0) + number
    run.upstream_resets += len(resets)
    run.refused += len(refused)


def kill_a_worker(run: Run) -> None:
    """Kill the worker that has counted the most, and wait for the next one."""
    before = workers_of(run.service)
    counted = {pid: departures_in(run.folder / f"counter_{pid}.db") for pid in before}
    victim = max(counted, key=lambda pid: counted[pid])
    assert counted[victim] > 0
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        after = workers_of(run.service) - {victim}
        return len(after) == WORKERS and not after <= before

    until(replaced, run.service.log_text)


@pytest.fixture(scope="module")
def run(
    require_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    require_program(PROGRAM)
    folder = tmp_path_factory.mktemp("multiproc")
    with (
        quitter() as prices,
        metered.metered_service(folder, prices.url) as service,
        Prometheus(service.port, rules=RULES) as prometheus,
    ):
        run = Run(service, prometheus, folder)
        # Rates need a value from before.
        prometheus.wait_for("sum(cleanclose_departures_total)", 0)
        with metered.visitors(service.port):
            inject(run)
            # An order takes its time, also without its client.
            prometheus.wait_for("sum(cleanclose_departures_total)", sum(run.injected.values()))
            kill_a_worker(run)
            inject(run)
            yield run


def test_the_sum_over_all_workers_is_the_number_of_those_who_left(run: Run) -> None:
    prometheus = run.prometheus
    total = sum(run.injected.values())
    assert total == 84
    prometheus.wait_for("sum(cleanclose_departures_total)", total)
    prometheus.wait_for('sum(cleanclose_departures_total{side="client"})', total)
    for phase, number in run.injected.items():
        prometheus.wait_for(f'sum(cleanclose_departures_total{{phase="{phase}"}})', number)
    # A scrape may come between two counters of one event.
    prometheus.wait_for("sum(cleanclose_departure_age_seconds_count)", total)
    prometheus.wait_for("cleanclose_responses_undelivered_total", 12)
    prometheus.wait_for("sum(cleanclose_upstream_resets_total)", run.upstream_resets)
    prometheus.wait_for("sum(cleanclose_early_responses_total)", run.refused)
    assert prometheus.value("cleanclose_outlet_errors_total") == 0
    # A gone worker's figures are neither lost nor counted twice by the next scrapes.
    prometheus.wait_for_scrapes(3)
    assert prometheus.value("sum(cleanclose_departures_total)") == total


def test_every_query_of_the_dashboard_returns_data(run: Run) -> None:
    prometheus = run.prometheus
    for panel in dashboard.panels():
        for target in panel["targets"]:
            text = dashboard.expression(target)
            until(partial(has_data, prometheus, text), f"{panel['title']}: {text}")


def has_data(prometheus: Prometheus, expression: str) -> bool:
    """Whether there are series, and numbers in them."""
    return any(not math.isnan(value) for _, value in prometheus.query(expression))


def test_the_dashboard_chooses_between_jobs(run: Run) -> None:
    (variable,) = (each for each in dashboard.load()["templating"]["list"] if each["name"] == "job")
    metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
    assert run.prometheus.get(f"label/{label}/values", **{"match[]": metric}) == ["metered"]
    ratio = next(dashboard.panels())["targets"][0]
    assert not run.prometheus.query(dashboard.expression(ratio, job="another"))


def test_the_rules_work_on_what_is_scraped(run: Run) -> None:
    prometheus = run.prometheus

    def rules() -> Sequence[Mapping[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    def healths() -> set[str]:
        return {rule["health"] for rule in rules()}

    assert len(rules()) > 10
    until(lambda: "unknown" not in healths(), rules)
    assert healths() == {"ok"}
    # One upstream reset is enough for this one; it has no time to wait.
    wanted = ['ALERTS{alertname="CleancloseUpstreamResets"}']
    wanted += [rule["name"] for rule in rules() if rule["type"] == "recording"]
    for name in wanted:
        until(partial(has_data, prometheus, name), name)
    assert not prometheus.query('ALERTS{alertname="CleancloseOutletErrors"}')


def test_the_kernels_figures_are_those_of_the_machine(run: Run) -> None:
    prometheus = run.prometheus
    figures = kernel_figures()
    assert figures is not None
    events = {
        labels["event"]: value
        for labels, value in prometheus.query("cleanclose_kernel_events_total")
    }
    assert set(events) == set(figures.counters)
    assert 0 < events["OutRsts"] <= figures.counters["OutRsts"]
    listener = f"127.0.0.1:{run.service.port}"
    assert [labels["listener"] for labels, _ in prometheus.query("cleanclose_accept_queue")] == [
        listener
    ]
    # gunicorn's backlog, cut by net.core.somaxconn.
    assert (prometheus.value("cleanclose_accept_queue_limit") or 0) > 0
