"""An event's fields by the names that Elastic and Google Cloud use.

Pure functions, which turn an event's name and fields into other fields.
`cleanclose.integrations.stdlib.StdlibOutlet` takes them as ``mapping``; for structlog there are
processors in `cleanclose.integrations.structlog`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["ECS_VERSION", "ecs_fields", "ecs_level", "google_fields", "google_severity"]

ECS_VERSION: Final = "8.11.0"
"""The version of the Elastic Common Schema that the names are from."""

_DEPARTED: Final = 499

_ECS: Final[Mapping[str, str]] = {
    "bytes_in": "http.request.body.bytes",
    "bytes_out": "http.response.body.bytes",
    "client": "client.address",
    "error": "error.type",
    "likely_cause": "error.message",
    "method": "http.request.method",
    "request_id": "http.request.id",
    "span_id": "span.id",
    "trace_id": "trace.id",
}
"""The fields that ECS has a name for. All others are under ``cleanclose``, where ECS wants custom
fields."""

_NS_PER_MS: Final = 1_000_000


def ecs_fields(name: str, fields: Mapping[str, object]) -> dict[str, object]:
    """An event's fields by the Elastic Common Schema, with dots in their names.

    ``http.response.status_code`` is the status that was sent; for a client that left, 499.

    Args:
        name: The event's name: ``event.action``.
        fields: Its fields.
    """
    mapped: dict[str, object] = {
        "event.action": name,
        "event.category": ["web"],
        "event.kind": "event",
    }
    status = _status(fields)
    if status is not None:
        mapped["http.response.status_code"] = status
    for key, value in fields.items():
        if key == "age_ms" and isinstance(value, int | float):
            mapped["event.duration"] = round(value * _NS_PER_MS)
        elif key in _ECS:
            mapped[_ECS[key]] = value
        elif key != "status" or status != value:
            mapped[f"cleanclose.{key}"] = value
    return mapped


def ecs_level(level: str) -> str:
    """``log.level``: the level's name as ECS shows it, in lower case."""
    return level.lower()


_SEVERITIES: Final[Mapping[str, str]] = {
    "critical": "CRITICAL",
    "debug": "DEBUG",
    "error": "ERROR",
    "exception": "ERROR",
    "fatal": "CRITICAL",
    "info": "INFO",
    "notset": "DEFAULT",
    "warn": "WARNING",
    "warning": "WARNING",
}


def google_severity(level: str) -> str:
    """``severity``: Cloud Logging's name for a level (its enum ``LogSeverity``).

    Args:
        level: The level's name here, in lower or upper case. Any other name becomes ``DEFAULT``.
    """
    return _SEVERITIES.get(level.lower(), "DEFAULT")


_GOOGLE_REQUEST: Final = frozenset({"bytes_in", "bytes_out", "client", "method", "status"})


def google_fields(
    project: str | None = None,
) -> Callable[[str, Mapping[str, object]], dict[str, object]]:
    """An event's fields for Cloud Logging.

    The request stands in ``httpRequest`` (its type ``HttpRequest``), with the status that was
    sent; for a client that left, 499. The trace stands where Cloud Logging looks for it, in
    ``logging.googleapis.com/trace``.

    Args:
        project: The project's id, without which Cloud Logging does not link to the trace.
    """

    def mapping(name: str, fields: Mapping[str, object]) -> dict[str, object]:
        mapped: dict[str, object] = {
            key: value
            for key, value in fields.items()
            if key not in _GOOGLE_REQUEST and key not in ("span_id", "trace_id")
        }
        mapped["event_name"] = name
        mapped["httpRequest"] = _google_request(fields)
        trace = fields.get("trace_id")
        if trace is not None:
            path = f"projects/{project}/traces/{trace}" if project else trace
            mapped["logging.googleapis.com/trace"] = path
        if "span_id" in fields:
            mapped["logging.googleapis.com/spanId"] = fields["span_id"]
        return mapped

    return mapping


def _google_request(fields: Mapping[str, object]) -> dict[str, object]:
    request: dict[str, object] = {}
    if "method" in fields:
        request["requestMethod"] = fields["method"]
    status = _status(fields)
    if status is not None:
        request["status"] = status
    # 64-bit numbers are strings in the JSON of protocol buffers.
    if "bytes_in" in fields:
        request["requestSize"] = str(fields["bytes_in"])
    if "bytes_out" in fields:
        request["responseSize"] = str(fields["bytes_out"])
    if "client" in fields:
        request["remoteIp"] = fields["client"]
    age = fields.get("age_ms")
    if isinstance(age, int | float):
        request["latency"] = f"{age / 1000:.6f}s"
    return request


def _status(fields: Mapping[str, object]) -> object:
    # Only departures have these words, which proxies use.
    if "nginx" in fields and fields.get("side") == "client":
        return _DEPARTED
    return fields.get("status")
