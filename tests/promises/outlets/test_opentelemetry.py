"""What OpenTelemetry's SDK has of the requests of a real server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import metered
from tests.harness.asking import get_json
from tests.harness.leavers import How, connected, leave, leave_at, request
from tests.harness.stacks import Stack, stack
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.processes import ServerProcess
    from tests.harness.serving import Serve

UVICORN = stack("uvicorn-h11")
TRACED = Stack(
    name="uvicorn-traced",
    interface="asgi",
    command=(*UVICORN.command[:-1], "tests.harness.apps.traced_asgi:app"),
    loses="on_close",
)

Span = Mapping[str, Any]
Point = Mapping[str, Any]


def telemetry(server: ServerProcess) -> tuple[Sequence[Span], Sequence[Point]]:
    told = get_json(server.port, "/telemetry")
    return told["spans"], told["metrics"]


def new_span(server: ServerProcess, name: str, cause: Callable[[], object]) -> Span:
    """The span of the request that this causes."""

    def spans() -> Sequence[Span]:
        return [span for span in telemetry(server)[0] if span["name"] == name]

    before = len(spans())
    cause()
    until(lambda: len(spans()) > before, f"there is no new span {name}")
    found = spans()
    assert len(found) == before + 1
    return found[-1]


def points(server: ServerProcess, name: str, **attributes: str) -> Sequence[Point]:
    """The points of a metric with these attributes; ``__`` stands for a dot."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return [
        point
        for point in telemetry(server)[1]
        if point["name"] == name and wanted.items() <= point["attributes"].items()
    ]


def total(server: ServerProcess, name: str, **attributes: str) -> float:
    values: list[float] = [point["value"] for point in points(server, name, **attributes)]
    return sum(values)


def serve_traced(serve: Serve, where: str) -> ServerProcess:
    return serve(TRACED, env={"TEST_SPANS": where})


def cut_upload(server: ServerProcess, how: How) -> None:
    leave_at(server.port, request("POST", "/read", length=1000), how, body=b"12345")


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_departure_is_an_event_on_the_span(serve: Serve, where: str, how: How) -> None:
    server = serve_traced(serve, where)
    before = total(server, "cleanclose.departures")
    span = new_span(server, "POST /read", lambda: cut_upload(server, how))
    (event,) = [event for event in span["events"] if event["name"] == "client_departed"]
    told = {"cleanclose.side": "client", "cleanclose.phase": "request_body"}
    assert told.items() <= event["attributes"].items()
    assert told.items() <= span["attributes"].items()
    assert span["attributes"]["cleanclose.event"] == "client_departed"
    # Inside, Starlette's ClientDisconnect has passed the span before it comes to an end.
    assert span["status"] == ("UNSET" if where == "outside" else "ERROR")
    assert total(server, "cleanclose.departures") == before + 1


def test_an_order_carried_out_in_vain(serve: Serve) -> None:
    server = serve_traced(serve, "outside")
    before = total(server, "cleanclose.responses_undelivered")

    working = get_json(server.port, "/telemetry")["working"]

    def order() -> None:
        with connected(server.port) as sock:
            sock.sendall(request("POST", "/work", length=2) + b"{}")
            until(lambda: get_json(server.port, "/telemetry")["working"] > working, "no work")
            leave(sock, "fin")

    span = new_span(server, "POST /work", order)
    assert [event["name"] for event in span["events"]] == ["client_departed"]
    assert span["attributes"]["cleanclose.event"] == "response_undelivered"
    assert span["status"] == "UNSET"
    assert total(server, "cleanclose.responses_undelivered") == before + 1


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_an_upstreams_reset_stays_an_error(serve: Serve, where: str) -> None:
    serve.allow_tracebacks()
    server = serve_traced(serve, where)
    span = new_span(server, "GET /reset", lambda: metered.visit(server.port, "GET", "/reset"))
    assert span["status"] == "ERROR"
    assert "cleanclose.side" not in span["attributes"]
    events = {event["name"]: event["attributes"] for event in span["events"]}
    assert "exception" in events
    if where == "outside":
        assert events["upstream_reset"]["error.type"] == "builtins.ConnectionResetError"
    (point,) = points(server, "cleanclose.upstream_resets")
    assert point["attributes"]["error.type"] == "builtins.ConnectionResetError"
    assert point["attributes"]["http.request.method"] == "GET"


def test_an_ordinary_request_leaves_no_trace(serve: Serve) -> None:
    server = serve_traced(serve, "outside")
    span = new_span(server, "GET /", lambda: metered.visit(server.port, "GET", "/"))
    assert span["events"] == []
    assert span["attributes"] == {}


def test_an_early_response_is_an_event_on_the_span(serve: Serve) -> None:
    server = serve_traced(serve, "outside")
    # Drained before the response: one that lingers is over when its span has ended.
    size = 100_000

    def refused() -> None:
        with connected(server.port) as sock:
            sock.sendall(request("POST", "/refuse", length=size) + b"x")
            # Its answer comes behind the application's to the other, which finds one byte only.
            get_json(server.port, "/telemetry")
            sock.sendall(b"x" * (size - 1))
            assert b" 413 " in sock.recv(4096)

    span = new_span(server, "POST /refuse", refused)
    (event,) = span["events"]
    assert event["name"] == "upload_drained"
    assert event["attributes"]["cleanclose.outcome"] == "delivered"
    assert event["attributes"]["cleanclose.drained"] == size
    (point,) = points(server, "cleanclose.early_responses", cleanclose__outcome="delivered")
    assert point["unit"] == "{response}"
    (drained,) = points(server, "cleanclose.drained")
    assert (drained["unit"], drained["value"] >= size) == ("By", True)


def test_what_the_points_say(serve: Serve) -> None:
    server = serve_traced(serve, "outside")
    new_span(server, "POST /read", lambda: cut_upload(server, "rst"))
    (point,) = points(server, "cleanclose.departures", cleanclose__phase="request_body")
    assert point["unit"] == "{departure}"
    # Old versions of Starlette do not tell the route.
    assert {"http.route": "/read", **point["attributes"]} == {
        "cleanclose.side": "client",
        "cleanclose.phase": "request_body",
        "cleanclose.mechanism": "unknown",
        "http.request.method": "POST",
        "http.route": "/read",
        "error.type": "client_departed",
    }
    (age,) = points(server, "cleanclose.departure_age", cleanclose__phase="request_body")
    assert age["unit"] == "s"
    assert 31.0 in age["bounds"]
    assert not points(server, "cleanclose.outlet_errors")
