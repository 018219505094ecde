"""Prometheus: the counters, and two distributions, as metrics of prometheus_client.

They are plain ``Counter`` and ``Histogram`` objects, so that they work in prometheus_client's
multiprocess mode. Names, labels and what is counted are the core's (`cleanclose.core.counters`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection
from typing import Any, Final

import prometheus_client.multiprocess
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from cleanclose.core import ClientDeparted, Event
from cleanclose.core.counters import (
    COUNTED,
    MEASURED,
    PREFIX,
    PROCESS,
    Counted,
    counts,
    measurements,
)

__all__ = ["PrometheusOutlet", "child_exit"]

_BY_ROUTE: Final = f"{PREFIX}_route_departures_total"
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_OTHER: Final = "other"
_UNKNOWN: Final = "unknown"

_multiprocess: Final[Any] = prometheus_client.multiprocess


class PrometheusOutlet:
    """An outlet that counts in metrics of prometheus_client.

    All outlets with the same registry share its metrics: an application may make as many as it
    has middleware objects. Every series whose labels are known is there from the start, at 0, so
    that ``rate()`` and ``increase()`` see the first event too.

    Args:
        registry: Where the metrics are registered. In multiprocess mode the default will do.
        routes: The patterns of routes, as the framework has them (``/files/{name}``), whose
            departures are also counted in ``cleanclose_route_departures_total`` by ``route`` and
            ``phase``. All others are ``other`` there, and those of which the framework says
            nothing ``unknown``. Default: none, and no such metric.

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
        """Have the metric by route, with all series of these routes."""
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


_LOCK: Final = threading.Lock()
_BY_REGISTRY: Final = weakref.WeakKeyDictionary[CollectorRegistry, _Metrics]()


def _metrics_in(registry: CollectorRegistry) -> _Metrics:
    with _LOCK:
        metrics = _BY_REGISTRY.get(registry)
        if metrics is None:
            metrics = _BY_REGISTRY[registry] = _Metrics(registry)
            if _count_in_all not in PROCESS.listeners:
                PROCESS.listeners.append(_count_in_all)
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


def child_exit(server: object, worker: Any) -> None:
    """The hook of this name for ``gunicorn.conf.py``, for multiprocess mode: import it there.

    It tells prometheus_client that a worker is gone
    (``prometheus_client.multiprocess.mark_process_dead``), however it went. What the worker had
    counted stays in the sums. Outside of multiprocess mode it does nothing.

    Args:
        server: gunicorn's arbiter.
        worker: The worker that is gone.
    """
    if _FOLDER in os.environ:
        _multiprocess.mark_process_dead(worker.pid)
