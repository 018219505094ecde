"""Clients that leave real ASGI servers: one event each, and not a line at WARNING or above.

All clients of a test leave one server at the same time, told apart by their ``X-Request-ID``.
What a server logs is complete when it has stopped.
"""

from __future__ import annotations

import dataclasses
import http.client
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.apps.noise_asgi import CAME, HOLDS, WORKS
from tests.harness.asgi_noise import HOWS, Observed, asgi_stack, observed, said_by, together
from tests.harness.leavers import How, leave, leave_at, request
from tests.harness.quitter import quitter
from tests.harness.waiting import LIMIT

pytestmark = pytest.mark.stacks

MIB: Final = 1 << 20
JSON: Final = b'{"name": "' + b"x" * 60000


class Visit(NamedTuple):
    """How a client comes and leaves, and what is to be said about it."""

    method: str
    path: str
    event: str
    phase: str
    length: int | None = None
    body: bytes = b""
    read: int = 0

    def make(self, seen: Observed, request_id: str, how: How) -> None:
        """Come and leave: from the download, or when the handler reads or works."""
        headers = (("X-Request-ID", request_id), ("Content-Type", "application/json"))
        head = request(self.method, self.path, length=self.length, headers=headers)
        place = CAME if self.path == "/read" else WORKS
        once = None if self.read else partial(seen.noted, place, request_id)
        leave_at(seen.port, head, how, body=self.body, read=self.read, once=once)


BODY: Final = Visit("POST", "/read", "client_departed", "request_body", MIB, JSON)
CUT_SHORT: Final = Visit("POST", "/read", "truncated_upload", "request_body", MIB, JSON)
WORK: Final = Visit("GET", "/work", "client_departed", "handler")
POSTED: Final = Visit("POST", "/work", "response_undelivered", "handler", 2, b"{}")
STOPPED: Final = Visit("POST", "/work", "client_departed", "handler", 2, b"{}")
THREAD: Final = Visit("GET", "/work-thread", "client_departed", "handler")
STREAM: Final = Visit("GET", "/stream", "client_departed", "response_body", read=70000)
BIG: Final = Visit("GET", "/big", "client_departed", "response_start", read=70000)
LATE: Final = Visit("GET", "/late", "client_departed", "response_body", read=70000)
POLL: Final = Visit("GET", "/poll", "client_departed", "handler")
POLL_THREAD: Final = Visit("GET", "/poll-thread", "client_departed", "handler")
LISTEN: Final = Visit("GET", "/is-disconnected", "client_departed", "handler")

USUAL: Final = {"body": BODY, "work": WORK, "posted": POSTED, "stream": STREAM, "poll": POLL}
THREADS: Final = {"thread": THREAD, "poll-thread": POLL_THREAD}
# Quart and Django listen for a disconnect, and cancel the handler.
LISTENING: Final = {"body": BODY, "work": WORK, "posted": STOPPED, "stream": STREAM}

VISITS: Final[Mapping[tuple[str, str], Mapping[str, Visit]]] = {
    ("uvicorn-h11", "raw"): {**USUAL, **THREADS, "late": LATE},
    ("uvicorn-uvloop", "raw"): {**USUAL, "late": LATE},
    ("hypercorn", "raw"): {**USUAL, **THREADS, "big": BIG, "late": LATE},
    ("gunicorn", "raw"): {**USUAL, **THREADS, "big": BIG, "late": LATE},
    # It reads every body before the application runs, and takes all of a response at once.
    ("daphne", "raw"): {"work": WORK, "posted": POSTED, "stream": STREAM, **THREADS, "poll": POLL},
    # Nothing but its receive() can be asked.
    ("granian", "raw"): {"body": BODY},
    ("uvicorn-h11", "starlette"): {**USUAL, **THREADS, "listen": LISTEN},
    ("uvicorn-uvloop", "starlette-base-http"): {**USUAL, **THREADS},
    ("hypercorn", "starlette"): {**USUAL, **THREADS, "big": BIG, "listen": LISTEN},
    ("gunicorn", "starlette"): {**USUAL, **THREADS, "big": BIG, "listen": LISTEN},
    ("granian", "starlette"): {"body": BODY, "stream": STREAM, "listen": LISTEN},
    ("uvicorn-httptools", "fastapi"): {**USUAL, **THREADS},
    ("hypercorn", "quart"): {**LISTENING, "thread": THREAD},
    ("uvicorn-h11", "litestar"): {**USUAL, "thread": THREAD},
    # Its stream ends like any other when the client leaves.
    ("uvicorn-h11", "falcon"): {**USUAL, "body": CUT_SHORT},
    ("uvicorn-h11", "django"): {**LISTENING, "thread": THREAD},
    ("daphne", "django"): {"work": WORK, "posted": STOPPED, "stream": STREAM, "thread": THREAD},
}
"""By server and framework: what can be seen there. ``docs/asgi.md`` has what cannot."""

NAMES: Final = {"gunicorn": "gunicorn-asgi"}
"""By server: what events call it, where that is another name."""

NOISE: Final = (
    ("uvicorn-h11", "starlette", "uvicorn.error"),
    ("uvicorn-uvloop", "starlette-base-http", "uvicorn.error"),
    ("hypercorn", "starlette", "hypercorn.error"),
    ("gunicorn", "starlette", "gunicorn.error"),
    ("granian", "starlette", "_granian.utils"),
)
"""By server and framework: the logger in which a bare one shows an upload that is cut off."""


def stay_idle(port: int, how: How) -> None:
    """Be answered, and leave the connection that was kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    connection.request("GET", "/", headers={"X-Request-ID": f"idle-{how}"})
    assert b"ok" in connection.getresponse().read()
    leave(connection.sock, how)


def say_half(port: int, how: How) -> None:
    """Leave in the middle of the request's head."""
    leave_at(port, request("GET", "/")[:-10], how)


# gunicorn's worker waits out its grace period.
@pytest.mark.slow
@pytest.mark.parametrize(("server", "framework"), list(VISITS))
def test_each_departure_is_one_event_and_no_record(
    server: str, framework: str, tmp_path: Path
) -> None:
    visits = VISITS[server, framework]
    expected = {f"{name}-{how}": visit for name, visit in visits.items() for how in HOWS}
    with observed(asgi_stack(server, framework), tmp_path, wrapped=True) as seen:
        jobs: list[Callable[[], None]] = [
            partial(visit.make, seen, f"{name}-{how}", how)
            for name, visit in visits.items()
            for how in HOWS
        ]
        for how in HOWS:
            jobs += [partial(stay_idle, seen.port, how), partial(say_half, seen.port, how)]
        together(jobs)
        seen.all_have_left()
        seen.until(
            lambda: seen.events_now().keys() >= expected.keys(),
            "not every departure was told",
        )
        assert seen.departures() == len(expected)
        noticed = seen.ask("/seen")
    assert seen.records == []
    told = seen.events_by_request()
    assert {name: [event["event"] for event in events] for name, events in told.items()} == {
        name: [visit.event] for name, visit in expected.items()
    }
    phases = {name: events[0]["phase"] for name, events in told.items()}
    assert phases == {name: visit.phase for name, visit in expected.items()}
    for events in told.values():
        assert events[0]["side"] == "client"
        assert events[0]["server"] == NAMES.get(server, server.partition("-")[0])
    asked = {name for name in expected if name.startswith(("poll", "listen"))}
    assert {name: noticed.get(name) for name in asked} == dict.fromkeys(asked, True)


@pytest.mark.parametrize(
    ("server", "framework"), [pair for pair, visits in VISITS.items() if "stream" in visits]
)
def test_a_send_that_is_the_first_to_find_out_is_one_event_and_no_record(
    server: str, framework: str, tmp_path: Path
) -> None:
    with observed(asgi_stack(server, framework), tmp_path, wrapped=True, busy=True) as seen:
        head = request("GET", "/stream", headers=(("X-Request-ID", "stream"),))
        leave_at(seen.port, head, "rst", read=60000, once=partial(seen.noted, HOLDS, "stream"))
        seen.all_have_left()
        seen.until(lambda: "stream" in seen.events_now(), "the departure was not told")
        assert seen.departures() == 1
    assert seen.records == []
    (event,) = seen.events
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")


@pytest.mark.negative_control
@pytest.mark.parametrize(("server", "framework", "logger"), NOISE)
def test_bare_an_upload_that_is_cut_off_is_an_error(
    server: str, framework: str, logger: str, tmp_path: Path
) -> None:
    with observed(asgi_stack(server, framework), tmp_path, wrapped=False) as seen:
        together([partial(BODY.make, seen, f"body-{how}", how) for how in HOWS])
        # The application has to be told; whatever it says then is said at once.
        seen.until(lambda: "ClientDisconnect" in seen.server.log_text(), "no noise")
    assert {record["logger"] for record in seen.records} == {logger}
    assert {record["level"] for record in seen.records} == {40}


LOST: Final = ("recv", "streams", "httpx", "websockets", "pipe", "wrapped", "group")
"""Kinds of failures which say that an upstream broke a connection."""
OTHERS: Final = ("anyio", "fed", "timeout")
"""Kinds which say nothing about whose fault it was."""
KINDS: Final = (*LOST, *OTHERS)

UPSTREAMS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("uvicorn-h11", "starlette"): ("fail", "fail-stream"),
    ("uvicorn-uvloop", "starlette-base-http"): ("fail", "fail-stream"),
    ("hypercorn", "starlette"): ("fail", "fail-stream"),
    ("gunicorn", "starlette"): ("fail", "fail-stream", "fail-behind"),
    ("gunicorn", "raw"): ("fail", "fail-stream", "fail-behind"),
}
"""By server and framework: where something of the application's own breaks."""

HIDDEN: Final = {
    # What Starlette raises behind its 500, and what a task in the background raises.
    ("gunicorn", "starlette"): frozenset({"fail", "fail-behind"}),
    ("gunicorn", "raw"): frozenset({"fail-behind"}),
}
"""Where a bare server says nothing about an exception of the application's own."""


@dataclasses.dataclass
class Failures:
    """What came of all failures on one server: of those whose client stays, and the others."""

    seen: Observed
    answers: dict[str, bytes]


def let_all_fail(
    server: str, framework: str, folder: Path, upstream_port: int, *, wrapped: bool
) -> Failures:
    """Let every kind of failure happen in every place, with the client there and gone."""
    places = UPSTREAMS[server, framework]
    answers: dict[str, bytes] = {}
    jobs: list[Callable[[], None]] = []
    gone: set[str] = set()
    lost: set[str] = set()

    def stay(port: int, name: str, path: str) -> None:
        answers[name] = without_date(said_by(port, path, (("X-Request-ID", name),)))

    stack = asgi_stack(server, framework)
    with observed(stack, folder, wrapped=wrapped, upstream_port=upstream_port) as seen:
        for place in places:
            for kind in KINDS:
                path = f"/{place.removesuffix('-behind')}?kind={kind}"
                path += "&behind" if place.endswith("-behind") else ""
                jobs.append(partial(stay, seen.port, f"{place}-{kind}", path))
                if kind in LOST:
                    lost.add(f"{place}-{kind}")
                if place.endswith("-behind"):
                    # Who leaves behind a complete response does not leave early.
                    continue
                for how in HOWS:
                    name = f"{place}-{kind}-{how}"
                    gone.add(name)
                    head = request("GET", f"{path}&wait", headers=(("X-Request-ID", name),))
                    read = 60000 if place == "fail-stream" else 0
                    once = partial(seen.noted, WORKS, name)
                    jobs.append(partial(leave_at, seen.port, head, how, read=read, once=once))
        together(jobs)
        seen.all_have_left()
        seen.until(lambda: seen.ask("/seen")["failed"] == len(jobs), "not all have failed")
        if wrapped:
            seen.until(lambda: seen.events_now().keys() >= gone | lost, "not all was told")
            assert seen.departures() == len(gone)
    return Failures(seen, answers)


def without_date(response: bytes) -> bytes:
    lines = response.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:"))


@pytest.mark.parametrize(("server", "framework"), list(UPSTREAMS))
def test_an_upstreams_failure_stays_what_it_was(
    server: str, framework: str, tmp_path: Path
) -> None:
    with quitter() as upstream:
        bare, wrapped = (
            let_all_fail(server, framework, tmp_path, upstream.port, wrapped=wrapped)
            for wrapped in (False, True)
        )
    assert wrapped.answers == bare.answers
    # Not one record fewer, and none of another kind, whether the client was there or not.
    assert wrapped.seen.errors() == bare.seen.errors()
    hidden = HIDDEN.get((server, framework), frozenset())
    for name, events in wrapped.seen.events_by_request().items():
        told = {event["event"]: event for event in events}
        assert len(told) == len(events)
        left = name.endswith(HOWS)
        assert ("client_departed" in told) is left, name
        place, _, kind = (name.rpartition("-")[0] if left else name).rpartition("-")
        restored = place in hidden and not left
        if kind in LOST:
            assert told["upstream_reset"]["side"] == "upstream"
            assert told["upstream_reset"]["restored"] is restored, name
        else:
            # A time-out is an OSError: hidden, it is told, but nobody is blamed.
            assert ("upstream_reset" in told) is (restored and kind == "timeout"), name


@pytest.mark.negative_control
def test_bare_gunicorn_says_nothing_about_an_error_behind_a_response(tmp_path: Path) -> None:
    with (
        quitter() as upstream,
        observed(
            asgi_stack("gunicorn", "starlette"),
            tmp_path,
            wrapped=False,
            upstream_port=upstream.port,
        ) as seen,
    ):
        assert b" 500 " in said_by(seen.port, "/fail?kind=recv")
        assert b" 200 " in said_by(seen.port, "/fail?kind=recv&behind")
        seen.until(lambda: seen.ask("/seen")["failed"] == 2, "not all have failed")
    assert seen.records == []


def test_who_claims_that_its_client_has_left_is_not_believed(tmp_path: Path) -> None:
    with observed(asgi_stack("uvicorn-h11", "starlette"), tmp_path, wrapped=True) as seen:
        assert b" 500 " in said_by(seen.port, "/claim")
    assert seen.events == []
    assert seen.errors() == [("uvicorn.error", "ClientDisconnect")]


# gunicorn's arbiter kills the worker before its tasks have been cancelled.
@pytest.mark.parametrize("server", ["uvicorn-h11", "hypercorn"])
def test_what_a_stopping_server_cuts_off_is_its_own_doing(server: str, tmp_path: Path) -> None:
    with observed(asgi_stack(server), tmp_path, wrapped=True) as seen:
        sock = socket.create_connection(("127.0.0.1", seen.port), timeout=LIMIT)
        # Nobody leaves: the handler polls until it is cancelled.
        sock.sendall(request("GET", "/poll", headers=(("X-Request-ID", "poll"),)))
        seen.until(partial(seen.noted, WORKS, "poll"), "it does not poll")
        seen.server.stop()
        sock.close()
    (event,) = seen.events
    assert (event["event"], event["side"]) == ("client_departed", "server")
    assert event["mechanism"] == "cancelled"
