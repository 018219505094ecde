"""Prometheus: the counters, and two distributions, as metrics of prometheus_client.

They are plain ``Counter`` and ``Histogram`` objects, so that they work in prometheus_client's
multiprocess mode. Names, labels and meanings are the core's (`cleanclose.core.counters`).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterable
from typing import Any, Final

import prometheus_client.multiprocess
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cleanclose.core import (
    COUNTED,
    MEASURED,
    PREFIX,
    ClientDeparted,
    Counted,
    Event,
    KernelFigures,
    Listener,
    Lock,
    counts,
    kernel_figures,
    measurements,
    on_count,
)

__all__ = ["KernelCollector", "PrometheusOutlet", "child_exit"]

_BY_ROUTE: Final = f"{PREFIX}_route_departures_total"
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_OTHER: Final = "other"
_UNKNOWN: Final = "unknown"

_multiprocess: Final[Any] = prometheus_client.multiprocess


class PrometheusOutlet:
    """An outlet that counts in metrics of prometheus_client.

    All outlets with the same registry share its metrics, so an application may have one for each
    middleware object. Every series with known labels exists from the start, at 0, so that
    ``rate()`` and ``increase()`` see the first event too.

    Args:
        registry: Where the metrics are registered. The default also works in multiprocess mode.
        routes: The patterns of routes, as the framework has them (``/files/{name}``), whose
            departures are also counted in ``cleanclose_route_departures_total`` by ``route`` and
            ``phase``. All other routes count as ``other``, and requests whose route the framework
            does not name as ``unknown``. Default: none, and no such metric.

    Raises:
        TypeError: ``routes`` is not a collection of strings.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, routes: Collection[str] = ()
    ) -> None:
        self._routes = _checked_routes(routes)
        self._metrics = _metrics_in(registry)
        if self._routes:
            self._metrics.add_routes(registry, self._routes)

    def __call__(self, event: Event, /) -> None:
        """Count one event."""
        metrics = self._metrics
        metrics.count(event)
        if self._routes and isinstance(event, ClientDeparted):
            route = event.facts.route
            if route is None:
                route = _UNKNOWN
            elif route not in self._routes:
                route = _OTHER
            metrics.count_route(route, event.verdict.phase.value)


class _Metrics:
    """The metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {
            counted: Counter(counted.full_name, counted.meaning, counted.labels, registry=registry)
            for counted in COUNTED
        }
        self._histograms = {
            measured: Histogram(
                measured.full_name,
                measured.meaning,
                measured.labels,
                registry=registry,
                buckets=measured.bounds,
            )
            for measured in MEASURED
        }
        self._by_route: Counter | None = None
        for counted, counter in self._counters.items():
            for values in counted.series if counted.labels else ():
                counter.labels(*values)
        for measured, histogram in self._histograms.items():
            for values in measured.series:
                histogram.labels(*values)

    def add_routes(self, registry: CollectorRegistry, routes: Collection[str]) -> None:
        """Create the metric by route, with the series of these routes."""
        if self._by_route is None:
            self._by_route = Counter(
                _BY_ROUTE,
                "Exchanges whose peer left before they were complete, by route.",
                ("route", "phase"),
                registry=registry,
            )
        (departure_age,) = (each for each in MEASURED if each.labels == ("phase",))
        for route in (*routes, _OTHER, _UNKNOWN):
            for (phase,) in departure_age.series:
                self._by_route.labels(route, phase)

    def count(self, event: Event) -> None:
        """Count an event."""
        for counted, values, amount in counts(event):
            self._add(counted, values, amount)
        for measured, values, value in measurements(event):
            self._histograms[measured].labels(*values).observe(value)

    def count_route(self, route: str, phase: str) -> None:
        """Count a departure by its route."""
        if self._by_route is not None:
            self._by_route.labels(route, phase).inc()

    def count_one(self, counted: Counted) -> None:
        """Count what has no event."""
        self._add(counted, (), 1)

    def _add(self, counted: Counted, values: tuple[str, ...], amount: float) -> None:
        counter = self._counters[counted]
        (counter.labels(*values) if values else counter).inc(amount)


_LOCK: Final = Lock()
_BY_REGISTRY: Final = weakref.WeakKeyDictionary[CollectorRegistry, _Metrics]()


def _metrics_in(registry: CollectorRegistry) -> _Metrics:
    with _LOCK:
        metrics = _BY_REGISTRY.get(registry)
        if metrics is None:
            metrics = _BY_REGISTRY[registry] = _Metrics(registry)
            on_count(_count_in_all)
        return metrics


def _count_in_all(counted: Counted) -> None:
    for metrics in tuple(_BY_REGISTRY.values()):
        metrics.count_one(counted)


def _checked_routes(routes: object) -> frozenset[str]:
    wanted = "routes must be a collection of route patterns"
    if isinstance(routes, str) or not isinstance(routes, Collection):
        raise TypeError(f"{wanted}, not {routes!r}")
    checked: set[str] = set()
    for route in routes:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(route, str):
            raise TypeError(f"{wanted}; it has {route!r}")
        checked.add(route)
    return frozenset(checked)


class KernelCollector:
    """The kernel's own figures (Linux), read at each scrape. It registers itself.

    ``cleanclose_kernel_events_total`` has the counters of `cleanclose.core.KERNEL_COUNTERS` by
    ``event``: the connections that the kernel has reset or turned away, for every process in this
    container or on this machine. ``cleanclose_accept_queue`` and ``cleanclose_accept_queue_limit``
    have the accept queues of listening sockets by ``listener``, which is an address of this
    machine. Where several sockets listen at one address, they show the fullest queue.

    In multiprocess mode it belongs in the registry that is scraped, beside the
    ``MultiProcessCollector``. On systems other than Linux it has no figures.

    Args:
        registry: Where it registers.
        ports: The ports whose accept queues are shown. Default: none, because a machine may have
            any number of listening sockets.

    Raises:
        TypeError: ``ports`` is not a collection of whole numbers.
        ValueError: A port is not from 1 to 65535.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, ports: Collection[int] = ()
    ) -> None:
        self._ports = _checked_ports(ports)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The metrics without figures: registering does not ask the kernel."""
        return _kernel_metrics(None, frozenset())

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        return _kernel_metrics(kernel_figures(), self._ports)


def _kernel_metrics(figures: KernelFigures | None, ports: Collection[int]) -> list[Metric]:
    events = CounterMetricFamily(
        f"{PREFIX}_kernel_events",
        "Connections that the kernel reset or turned away, in this network namespace.",
        labels=("event",),
    )
    queues = GaugeMetricFamily(
        f"{PREFIX}_accept_queue",
        "Connections that wait to be accepted at a listening socket.",
        labels=("listener",),
    )
    limits = GaugeMetricFamily(
        f"{PREFIX}_accept_queue_limit", "How many connections may wait there.", labels=("listener",)
    )
    if figures is not None:
        for name, value in figures.counters.items():
            events.add_metric((name,), value)
        for name, listener in _fullest(figures.listeners, ports).items():
            queues.add_metric((name,), listener.queue)
            if listener.limit is not None:
                limits.add_metric((name,), listener.limit)
    return [events, queues, limits]


def _fullest(listeners: Iterable[Listener], ports: Collection[int]) -> dict[str, Listener]:
    found: dict[str, Listener] = {}
    for listener in listeners:
        if listener.port in ports:
            host = f"[{listener.address}]" if ":" in listener.address else listener.address
            name = f"{host}:{listener.port}"
            if name not in found or _fullness(listener) > _fullness(found[name]):
                found[name] = listener
    return found


def _fullness(listener: Listener) -> float:
    return listener.queue / (listener.limit or 1)


def _checked_ports(ports: object) -> frozenset[int]:
    wanted = "ports must be a collection of port numbers from 1 to 65535"
    if isinstance(ports, str | bytes) or not isinstance(ports, Collection):
        raise TypeError(f"{wanted}, not {ports!r}")
    checked: set[int] = set()
    for port in ports:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"{wanted}; it has {port!r}")
        if not 1 <= port <= 65535:
            raise ValueError(f"{wanted}; it has {port}")
        checked.add(port)
    return frozenset(checked)


def child_exit(server: object, worker: Any) -> None:
    """The hook of this name for ``gunicorn.conf.py``, for multiprocess mode: import it there.

    It tells prometheus_client that a worker is gone
    (``prometheus_client.multiprocess.mark_process_dead``), whatever ended it. The worker's counts
    stay in the sums. Outside multiprocess mode it does nothing.

    Args:
        server: gunicorn's arbiter.
        worker: The worker that is gone.
    """
    if _FOLDER in os.environ:
        _multiprocess.mark_process_dead(worker.pid)
