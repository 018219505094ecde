"""The ids by which other systems know a request."""

from __future__ import annotations

from cleanclose.core.tracing import ids_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_ids_come_from_three_headers() -> None:
    headers = {
        "x-request-id": "r-1",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "idempotency-key": "k-1",
    }
    assert ids_of(headers.get) == {
        "request_id": "r-1",
        "trace_id": TRACE,
        "idempotency_key": "k-1",
    }


def test_without_them_there_are_none() -> None:
    assert set(ids_of(lambda _: None).values()) == {None}
