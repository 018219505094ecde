"""OpenTelemetry: the counters as metrics, and events on the current span.

It needs only the API, and does nothing without an SDK. The core decides what is counted
(`cleanclose.core.counters`). Names and units follow OpenTelemetry's naming rules; attributes follow
its semantic conventions for HTTP and for errors.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider

from cleanclose.core import (
    COUNTED,
    MEASURED,
    PREFIX,
    ClientDeparted,
    Counted,
    Event,
    Lock,
    Measured,
    UploadDrained,
    UpstreamReset,
    Verdict,
    count_outlet_error,
    counts,
    current,
    measurements,
    on_count,
    on_departure,
)

__all__ = ["OpenTelemetryOutlet"]

_Attributes = dict[str, str | int | float | bool]

_UNITS: Final = {"bytes": "By", "seconds": "s"}
"""UCUM's codes (semantic conventions, "Instrument units"). The others are annotations of 1."""

_METHODS: Final = frozenset(
    "CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split()  # noqa: SIM905
)
"""The values of ``http.request.method``. Any other method, which a client has made up, is
``_OTHER``."""


class OpenTelemetryOutlet:
    """An outlet that counts in metrics of OpenTelemetry and writes on the current span.

    Metrics: ``cleanclose.departures`` and so on, one for each counter, and two histograms. Their
    attributes are those of the counter's labels (``cleanclose.phase``), ``http.request.method``,
    ``http.route`` where the framework names it, and ``error.type``: the event's name for a
    departure, the exception's class for an upstream's reset.

    Spans: a departure is an event ``client_departed`` and attributes (``cleanclose.event``,
    ``cleanclose.side``, ``cleanclose.phase``, ``cleanclose.mechanism``) on the span that is
    current when it is seen, or else when its event comes. The outlet never sets a status: a
    departure is no error of the service, and an upstream's reset is for the application's
    instrumentation to judge. An upstream's reset and an early response are events on the span.

    Args:
        meter_provider: Where the metrics go. Default: the global one, also if it is set later.
        spans: Whether to write on spans. Default True.

    An outlet leaves nothing behind once nothing refers to it any more; `close` does that at once.

    Raises:
        TypeError: ``spans`` is not True or False.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None, spans: bool = True) -> None:
        if not isinstance(spans, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"spans must be True or False, not {spans!r}")
        self._instruments = _instruments_of(meter_provider or metrics.get_meter_provider())
        self._spans = spans
        # Not the outlet itself, which could never be collected then.
        self._user = object()
        _use(self._user, self._instruments, spans=spans)
        weakref.finalize(self, _leave, self._user).atexit = False

    def close(self) -> None:
        """Stop listening to departures and to counts that have no event.

        The outlet still counts the events that it receives. A second call does nothing.
        """
        _leave(self._user)

    def __call__(self, event: Event, /) -> None:
        """Count one event, and write it on the current span if there is one."""
        self._instruments.count(event)
        if self._spans:
            _tell_span(event)


class _Instruments:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = metrics.get_meter(PREFIX, meter_provider=provider)
        self._counters = {
            counted: meter.create_counter(_name(counted), _unit(counted), counted.meaning)
            for counted in COUNTED
        }
        self._histograms = {
            measured: meter.create_histogram(
                _name(measured),
                _unit(measured),
                measured.meaning,
                explicit_bucket_boundaries_advisory=measured.bounds,
            )
            for measured in MEASURED
        }

    def count(self, event: Event) -> None:
        """Count an event."""
        common = _http_attributes(event)
        for counted, values, amount in counts(event):
            if amount:
                self._counters[counted].add(amount, common | _labels(counted, values))
        for measured, values, value in measurements(event):
            self._histograms[measured].record(value, common | _labels(measured, values))

    def count_one(self, counted: Counted) -> None:
        """Count what has no event."""
        self._counters[counted].add(1)


def _name(what: Counted | Measured) -> str:
    # The name has neither the unit nor _total: exporters for Prometheus add both.
    return f"{PREFIX}.{what.name}"


def _unit(what: Counted | Measured) -> str:
    return _UNITS.get(what.unit, f"{{{what.unit}}}")


def _labels(what: Counted | Measured, values: Iterable[str]) -> _Attributes:
    return {f"{PREFIX}.{label}": value for label, value in zip(what.labels, values, strict=True)}


_LOCK: Final = Lock()
_BY_PROVIDER: Final = weakref.WeakKeyDictionary[MeterProvider, _Instruments]()


def _instruments_of(provider: MeterProvider) -> _Instruments:
    # A second instrument of the same name would be a second stream of the same points.
    with _LOCK:
        instruments = _BY_PROVIDER.get(provider)
        if instruments is None:
            instruments = _BY_PROVIDER[provider] = _Instruments(provider)
        return instruments


_USERS: Final[dict[object, tuple[_Instruments, bool]]] = {}
"""For each outlet that is there: its instruments, and whether it writes on spans. There is no lock,
because the garbage collector may remove an outlet at any point of the program."""


def _use(user: object, instruments: _Instruments, *, spans: bool) -> None:
    _USERS[user] = instruments, spans
    _listen()


def _leave(user: object) -> None:
    _USERS.pop(user, None)
    _listen()


def _listen() -> None:
    """Listen once, for as long as there are outlets to listen for."""
    users = tuple(_USERS.values())
    stop_counting, stop_watching = on_count(_count_in_all), on_departure(_departure_seen)
    if not users:
        stop_counting()
    if not any(spans for _, spans in users):
        stop_watching()
    if len(users) != len(_USERS):
        # Another thread has added or removed one meanwhile.
        _listen()


def _count_in_all(counted: Counted) -> None:
    for instruments in {instruments for instruments, _ in tuple(_USERS.values())}:
        instruments.count_one(counted)


def _http_attributes(event: Event) -> _Attributes:
    """The attributes by the semantic conventions for HTTP, and ``error.type``."""
    facts = event.facts
    # A websocket begins as a GET (RFC 6455, section 4.1).
    method = "GET" if facts.method == "WEBSOCKET" else facts.method
    attributes: _Attributes = {"http.request.method": method if method in _METHODS else "_OTHER"}
    if facts.route is not None:
        attributes["http.route"] = facts.route
    match event:
        case ClientDeparted():
            attributes["error.type"] = event.name
        case UpstreamReset():
            attributes["error.type"] = event.error
        case _:
            pass
    return attributes


_TOLD: Final = weakref.WeakSet[trace.Span]()
"""The spans that have the event of a departure."""


def _departure_seen() -> None:
    """A witness has just seen the client leave, and its own span is current now.

    When the middleware reports the departure, the spans inside have already ended.
    """
    watch = current()
    if watch is None or watch.departure is None:
        return
    try:
        span = trace.get_current_span()
        if span.is_recording():
            _write_departure(span, ClientDeparted.name, _verdict_attributes(watch.departure))
    except Exception:  # noqa: BLE001 - the request must not notice
        count_outlet_error()


def _tell_span(event: Event) -> None:
    span = trace.get_current_span()
    if not span.is_recording():
        return
    match event:
        case ClientDeparted():
            attributes = _verdict_attributes(event.verdict)
            _write_departure(span, event.name, attributes | _figures(event))
        case UpstreamReset():
            span.add_event(event.name, {"error.type": event.error, **_figures(event)})
        case UploadDrained():
            span.add_event(event.name, _figures(event))
        case _:
            pass


def _write_departure(span: trace.Span, name: str, attributes: _Attributes) -> None:
    verdict = {f"{PREFIX}.{part}" for part in ("side", "phase", "mechanism")}
    span.set_attributes({key: attributes[key] for key in verdict})
    # The event comes later, and knows the kind of departure.
    span.set_attribute(f"{PREFIX}.event", name)
    if span not in _TOLD:
        span.add_event(ClientDeparted.name, attributes)
        # A span without weak references may get the event twice.
        with contextlib.suppress(TypeError):
            _TOLD.add(span)


def _verdict_attributes(verdict: Verdict) -> _Attributes:
    return {
        f"{PREFIX}.side": verdict.side.value,
        f"{PREFIX}.phase": verdict.phase.value,
        f"{PREFIX}.mechanism": verdict.mechanism.value,
    }


_NOT_ON_SPANS: Final = frozenset(
    {
        # A span of an HTTP request has these already, or its instrumentation leaves them out on
        # purpose.
        *("framework", "server", "method", "client", "route"),
        *("request_id", "trace_id", "idempotency_key"),
        # For joining logs.
        *("nginx", "haproxy", "envoy"),
    }
)


def _figures(event: Event) -> _Attributes:
    """The event's own fields, as attributes of an event on a span."""
    attributes: _Attributes = {}
    for key, value in event.fields().items():
        if key not in _NOT_ON_SPANS:
            attributes[f"{PREFIX}.{key}"] = (
                value if isinstance(value, str | int | float) else str(value)
            )
    return attributes
