"""The Prometheus outlet: the same counters under the same names, and no label without a bound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cleanclose.core import (
    Cap,
    ClientDeparted,
    Event,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
)
from cleanclose.core.counters import PROCESS, Counters
from cleanclose.core.kernel import COUNTERS, KernelFigures, Listener
from cleanclose.core.tell.reporter import Reporter
from cleanclose.integrations import prometheus
from cleanclose.integrations.prometheus import KernelCollector, PrometheusOutlet, child_exit
from tests.harness.made import departed, facts, verdict

EVENTS: list[Event] = [
    departed(),
    departed(stopped=True),
    departed(stopped=True, overdue=True),
    ClientDeparted(
        facts=facts(), age_ms=1.0, verdict=verdict(side=Side.SERVER), wasted_seconds=2.5
    ),
    ResponseUndelivered(facts=facts(), age_ms=1.0, verdict=verdict(mechanism=Mechanism.EOF)),
    TruncatedUpload(
        facts=facts(), age_ms=1.0, verdict=verdict(phase=Phase.REQUEST_BODY), accepted=True
    ),
    TruncatedUpload(facts=facts(), age_ms=1.0, verdict=verdict(phase=Phase.REQUEST_BODY)),
    UploadDrained(facts=facts(), age_ms=700.0, outcome=Outcome.DELIVERED, drained=5_000),
    UploadDrained(
        facts=facts(), age_ms=1.0, outcome=Outcome.CUT, cap=Cap.MAX_BYTES, drained=70_000
    ),
    UpstreamReset(facts=facts(), age_ms=1.0, verdict=verdict(side=Side.UPSTREAM), error="E"),
]


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """What is scraped, in the notation of a snapshot."""
    found: dict[str, float] = {}
    scraped = prometheus_client.generate_latest(registry).decode()
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def sorted_labels(key: str) -> str:
    name, _, labels = key.partition("{")
    return name + ",".join(sorted(labels.rstrip("}").split(",")))


def counted(registry: CollectorRegistry) -> dict[str, float]:
    """The counters alone; in a scrape, the order of labels means nothing."""
    return {
        sorted_labels(name): value
        for name, value in samples(registry).items()
        if "_seconds_" not in name or name == "cleanclose_wasted_seconds_total"
    }


def test_all_series_are_there_from_the_start_at_0() -> None:
    registry = CollectorRegistry()
    PrometheusOutlet(registry)
    found = counted(registry)
    assert found.keys() == {sorted_labels(name) for name in Counters().snapshot()}
    assert not any(found.values())
    assert samples(registry)['cleanclose_departure_age_seconds_count{phase="handler"}'] == 0


@pytest.mark.parametrize("events", [[event] for event in EVENTS] + [EVENTS * 3])
def test_it_counts_what_the_core_counts(events: list[Event]) -> None:
    registry = CollectorRegistry()
    counters = Counters()
    reporter = Reporter([PrometheusOutlet(registry)], counters=counters)
    for event in events:
        reporter.report(event)
    wanted = {sorted_labels(name): value for name, value in counters.snapshot().items()}
    assert any(wanted.values())
    assert counted(registry) == wanted


def test_ages_are_seconds_and_a_proxys_time_out_has_a_bucket_of_its_own() -> None:
    registry = CollectorRegistry()
    PrometheusOutlet(registry)(departed(age_ms=30_200.0))
    found = samples(registry)
    labels = 'phase="handler"'
    assert found[f"cleanclose_departure_age_seconds_sum{{{labels}}}"] == pytest.approx(30.2)
    buckets = {
        name.partition('le="')[2].partition('"')[0]: value
        for name, value in found.items()
        if name.startswith("cleanclose_departure_age_seconds_bucket") and labels in name
    }
    assert (buckets["29.0"], buckets["31.0"]) == (0, 1)


def test_nothing_that_a_client_chooses_becomes_a_series() -> None:
    registry = CollectorRegistry()
    outlet = PrometheusOutlet(registry, routes=["/known"])
    before = len(samples(registry))
    for number in range(100):
        for phase in (Phase.REQUEST_BODY, Phase.HANDLER):
            outlet(
                ClientDeparted(
                    facts=facts(route=f"/{number}", client=f"192.0.2.{number}"),
                    age_ms=number,
                    verdict=verdict(phase=phase),
                )
            )
    assert len(samples(registry)) == before


def test_departures_by_route_if_asked_for() -> None:
    registry = CollectorRegistry()
    plain, by_route = PrometheusOutlet(registry), PrometheusOutlet(registry, routes=["/known"])
    for route in ("/known", "/known", "/elsewhere", None):
        by_route(departed(route=route))
    plain(departed(route="/known"))
    found = samples(registry)
    name = "cleanclose_route_departures_total"
    assert {
        route: found[f'{name}{{phase="handler",route="{route}"}}']
        if f'{name}{{phase="handler",route="{route}"}}' in found
        else found[f'{name}{{route="{route}",phase="handler"}}']
        for route in ("/known", "other", "unknown")
    } == {"/known": 2, "other": 1, "unknown": 1}
    total = counted(registry)[
        'cleanclose_departures_totalmechanism="reset",phase="handler",side="client"'
    ]
    assert total == 5


@pytest.mark.parametrize("routes", ["/known", 3, [b"/known"], None])
def test_routes_that_are_none(routes: Any) -> None:
    with pytest.raises(TypeError, match="routes must be a collection of route patterns"):
        PrometheusOutlet(CollectorRegistry(), routes=routes)


def test_outlets_with_one_registry_share_its_metrics() -> None:
    registry = CollectorRegistry()
    for _ in range(3):
        PrometheusOutlet(registry)(EVENTS[0])
    assert sum(counted(registry).values()) == 3


def test_the_default_registry_can_be_used_by_any_number_of_outlets() -> None:
    PrometheusOutlet()
    PrometheusOutlet()
    assert "cleanclose_departures_total" in prometheus_client.generate_latest().decode()


def test_what_has_no_event_is_counted_too() -> None:
    registry, other = CollectorRegistry(), CollectorRegistry()
    PrometheusOutlet(registry)
    PrometheusOutlet(other)
    PROCESS.count_quieted_record()
    PROCESS.count_outlet_error()
    for each in (registry, other):
        found = counted(each)
        assert found["cleanclose_quieted_records_total"] == 1
        assert found["cleanclose_outlet_errors_total"] == 1


def test_a_registry_that_nobody_uses_any_more_is_let_go() -> None:
    before = len(PROCESS.listeners)
    for _ in range(3):
        PrometheusOutlet(CollectorRegistry())
    assert len(PROCESS.listeners) <= before + 1


def test_a_listener_that_raises_is_none_of_the_counters_business() -> None:
    def broken(counted: object) -> None:
        raise RuntimeError("listener")

    counters = Counters()
    counters.listeners.append(broken)
    counters.count_quieted_record()
    assert counters.snapshot()["cleanclose_quieted_records_total"] == 1


def figures(*listeners: Listener) -> KernelFigures:
    return KernelFigures(counters={"OutRsts": 7, "ListenDrops": 2}, listeners=listeners)


def listener(queue: int, limit: int | None, port: int = 8000, address: str = "::") -> Listener:
    return Listener(address=address, port=port, queue=queue, limit=limit)


def test_the_kernels_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    told = figures(
        listener(3, 128),
        # With SO_REUSEPORT there are several: the fullest is the one that turns clients away.
        listener(90, 128),
        listener(5, 128),
        listener(1, None, address="127.0.0.1"),
        listener(2, 128, port=9000),
    )
    monkeypatch.setattr(prometheus, "kernel_figures", lambda: told)
    registry = CollectorRegistry()
    KernelCollector(registry, ports=[8000])
    assert samples(registry) == {
        'cleanclose_kernel_events_total{event="OutRsts"}': 7,
        'cleanclose_kernel_events_total{event="ListenDrops"}': 2,
        'cleanclose_accept_queue{listener="[::]:8000"}': 90,
        'cleanclose_accept_queue_limit{listener="[::]:8000"}': 128,
        'cleanclose_accept_queue{listener="127.0.0.1:8000"}': 1,
    }


def test_without_ports_no_listening_socket_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "kernel_figures", lambda: figures(listener(3, 128)))
    registry = CollectorRegistry()
    KernelCollector(registry)
    assert not [name for name in samples(registry) if "accept_queue" in name]


def test_elsewhere_than_on_linux_the_kernel_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "kernel_figures", lambda: None)
    registry = CollectorRegistry()
    KernelCollector(registry, ports=[8000])
    assert not samples(registry)


@pytest.mark.skipif(sys.platform != "linux", reason="the figures are Linux's")
def test_the_real_kernel() -> None:
    registry = CollectorRegistry()
    KernelCollector(registry)
    found = samples(registry)
    assert found
    assert {name.partition('"')[2].partition('"')[0] for name in found} <= set(COUNTERS)


@pytest.mark.parametrize(
    ("ports", "error"),
    [("80", TypeError), (80, TypeError), (["80"], TypeError), ([True], TypeError)]
    + [([port], ValueError) for port in (0, -1, 65536)],
)
def test_ports_that_are_none(ports: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="ports must be a collection of port numbers from 1 to 65535"):
        KernelCollector(CollectorRegistry(), ports=ports)


class Worker:
    pid = 4242


def test_child_exit_outside_of_multiprocess_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    child_exit(object(), Worker())


def test_child_exit_removes_what_only_a_living_worker_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in ("gauge_liveall_4242.db", "counter_4242.db", "gauge_liveall_4243.db"):
        (tmp_path / name).touch()
    child_exit(object(), Worker())
    assert {path.name for path in tmp_path.iterdir()} == {
        "counter_4242.db",
        "gauge_liveall_4243.db",
    }
