"""Websockets on real ASGI servers whose clients vanish, close in good order, or stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.apps.noise_asgi import HOLDS
from tests.harness.asgi_noise import (
    HOWS,
    Observed,
    asgi_stack,
    leave_websocket,
    observed,
    open_websocket,
    say_goodbye,
    together,
)
from tests.harness.leavers import leave
from tests.harness.quitter import quitter

pytestmark = pytest.mark.stacks

IDLE_AND_PUSHING: Final = {"idle": ("/echo", 0), "push": ("/push", 70000)}
ONLY_IDLE: Final = {"idle": ("/echo", 0)}

VANISHING: Final = {
    ("uvicorn-h11", "starlette"): IDLE_AND_PUSHING,
    ("uvicorn-httptools", "starlette"): IDLE_AND_PUSHING,
    ("uvicorn-uvloop", "raw"): IDLE_AND_PUSHING,
    ("gunicorn", "starlette"): IDLE_AND_PUSHING,
    # hypercorn, daphne and granian let an application push for nobody; this one asks.
    ("hypercorn", "raw"): IDLE_AND_PUSHING,
    ("daphne", "raw"): IDLE_AND_PUSHING,
    ("granian", "starlette"): ONLY_IDLE,
    ("uvicorn-h11", "fastapi"): IDLE_AND_PUSHING,
    ("hypercorn", "quart"): IDLE_AND_PUSHING,
    ("uvicorn-h11", "litestar"): IDLE_AND_PUSHING,
    ("uvicorn-h11", "falcon"): IDLE_AND_PUSHING,
}
"""By server and framework: paths, and how much is read before the client leaves."""

NOISE: Final = (
    ("uvicorn-h11", "uvicorn.error"),
    ("hypercorn", "hypercorn.error"),
    ("gunicorn", "gunicorn.error"),
    ("daphne", "daphne.server"),
)
"""By server: where Starlette's WebSocketDisconnect is logged without the middleware."""

SOME: Final = 60000
"""Bytes of the first piece that is pushed."""

GOODBYES: Final = (1000, 1001, 3001)


@pytest.mark.parametrize(("server", "framework"), list(VANISHING))
def test_a_client_that_vanishes_is_one_event_and_no_record(
    server: str, framework: str, tmp_path: Path
) -> None:
    cases = VANISHING[server, framework]
    names = {f"{name}-{how}" for name in cases for how in HOWS}
    with observed(asgi_stack(server, framework), tmp_path, wrapped=True) as seen:
        jobs: list[Callable[[], None]] = [
            partial(leave_websocket, seen.port, path, f"{name}-{how}", how, read=read)
            for name, (path, read) in cases.items()
            for how in HOWS
        ]
        together(jobs)
        seen.until(lambda: seen.events_now().keys() >= names, "not every departure was told")
        assert seen.departures() == len(names)
    assert seen.records == []
    told = seen.events_by_request()
    assert told.keys() == names
    assert {name: len(events) for name, events in told.items()} == dict.fromkeys(names, 1), told
    for (event,) in told.values():
        assert event["event"] == "client_departed"
        assert (event["phase"], event["side"]) == ("websocket", "client")
        assert event["method"] == "WEBSOCKET"


PUSHING: Final = (
    *(pair for pair, cases in VANISHING.items() if "push" in cases),
    ("uvicorn-uvloop", "starlette"),
)


def leave_held(seen: Observed, path: str, request_id: str, read: int = SOME) -> None:
    """Leave while the handler holds the loop, which sees nothing of it."""
    held = partial(seen.noted, HOLDS, request_id)
    leave_websocket(seen.port, path, request_id, "rst", read=read, once=held)


@pytest.mark.parametrize(("server", "framework"), PUSHING)
def test_a_send_that_is_the_first_to_find_out_is_one_event_and_no_record(
    server: str, framework: str, tmp_path: Path
) -> None:
    with observed(asgi_stack(server, framework), tmp_path, wrapped=True, busy=True) as seen:
        leave_held(seen, "/push", "push")
        seen.all_have_left()
        seen.until(lambda: "push" in seen.events_now(), "the departure was not told")
        assert seen.departures() == 1
    assert seen.records == []
    (event,) = seen.events
    assert (event["event"], event["phase"]) == ("client_departed", "websocket")


@pytest.mark.negative_control
@pytest.mark.parametrize("server", ["uvicorn-h11", "uvicorn-uvloop", "gunicorn"])
def test_bare_a_send_that_is_the_first_to_find_out_is_an_error(server: str, tmp_path: Path) -> None:
    stack = asgi_stack(server, "starlette")
    with observed(stack, tmp_path, wrapped=False, busy=True) as seen:
        leave_held(seen, "/push", "push")
        seen.all_have_left()
        seen.until(lambda: "WebSocketDisconnect" in seen.server.log_text(), "no noise")
    assert [record["level"] for record in seen.records] == [40]


@pytest.mark.parametrize("server", ["uvicorn-h11", "uvicorn-uvloop", "gunicorn"])
def test_an_error_of_its_own_about_a_departure_is_raised_on_and_blames_nobody(
    server: str, tmp_path: Path
) -> None:
    stack = asgi_stack(server, "starlette")
    with observed(stack, tmp_path, wrapped=True, busy=True) as seen:
        leave_held(seen, "/push-and-give-up", "push")
        seen.all_have_left()
        seen.until(lambda: "the news are not out" in seen.server.log_text(), "not logged")
    assert [record["error"] for record in seen.records] == ["RuntimeError"]
    assert [event["event"] for event in seen.events] == ["client_departed"]


@pytest.mark.parametrize("server", ["uvicorn-h11", "uvicorn-uvloop", "gunicorn"])
def test_a_send_does_not_hide_what_it_was_to_tell_of(server: str, tmp_path: Path) -> None:
    stack = asgi_stack(server, "starlette")
    with quitter() as upstream:
        for wrapped in (False, True):
            with observed(
                stack, tmp_path, wrapped=wrapped, upstream_port=upstream.port, busy=True
            ) as seen:
                leave_held(seen, "/fail-and-tell?kind=recv", "tell", read=2)
                seen.all_have_left()
                seen.until(lambda: seen.ask("/seen")["failed"] == 1, "it has not failed")
                # What the client's error hides is the application's, and is raised in its place.
                logged = "ConnectionResetError" if wrapped else "WebSocketDisconnect"
                seen.until(partial(_is_logged, seen, logged), "not logged")
            assert [record["level"] for record in seen.records] == [40]
    told = {event["event"]: event for event in seen.events}
    assert told.keys() == {"client_departed", "upstream_reset"}
    assert (told["upstream_reset"]["mechanism"], told["upstream_reset"].get("library")) == (
        "reset",
        None,
    )


def _is_logged(seen: Any, text: str) -> bool:
    return text in seen.server.log_text()


@pytest.mark.negative_control
@pytest.mark.parametrize(("server", "logger"), NOISE)
def test_bare_a_client_that_vanishes_is_an_error(server: str, logger: str, tmp_path: Path) -> None:
    with observed(asgi_stack(server, "starlette"), tmp_path, wrapped=False) as seen:
        together([partial(leave_websocket, seen.port, "/echo", how, how) for how in HOWS])
        seen.until(lambda: "WebSocketDisconnect" in seen.server.log_text(), "no noise")
    assert {(record["logger"], record["level"]) for record in seen.records} == {(logger, 40)}


@pytest.mark.parametrize("server", ["uvicorn-h11", "uvicorn-uvloop", "gunicorn"])
def test_a_goodbye_is_no_departure_unless_nobody_expected_it(server: str, tmp_path: Path) -> None:
    with observed(asgi_stack(server, "starlette"), tmp_path, wrapped=True) as seen:
        together(
            [
                partial(say_goodbye, seen.port, path, f"{path[1:]}-{code}", code)
                for path in ("/note", "/echo")
                for code in GOODBYES
            ]
        )
        names = {f"echo-{code}" for code in GOODBYES}
        seen.until(lambda: seen.events_now().keys() >= names, "not every goodbye was told")
    assert seen.records == []
    told = seen.events_by_request()
    assert told.keys() == names
    for (event,) in told.values():
        assert (event["event"], event["mechanism"]) == ("client_departed", "eof")


def visit_notes(server: str, folder: Path, *, wrapped: bool) -> object:
    """What a handler notes about clients that vanish, and about others that say goodbye."""
    with observed(asgi_stack(server, "starlette"), folder, wrapped=wrapped) as seen:
        jobs: list[Callable[[], None]] = [
            *(partial(leave_websocket, seen.port, "/note", how, how) for how in HOWS),
            *(partial(say_goodbye, seen.port, "/note", str(code), code) for code in GOODBYES),
        ]
        together(jobs)
        # And the number of failures.
        seen.until(lambda: len(seen.ask("/seen")) == len(jobs) + 1, "not all noted")
        noted = seen.ask("/seen")
    assert seen.records == []
    return noted


@pytest.mark.parametrize("server", ["uvicorn-h11", "hypercorn", "gunicorn"])
def test_a_handler_sees_what_it_saw_without_the_middleware(server: str, tmp_path: Path) -> None:
    assert visit_notes(server, tmp_path, wrapped=True) == visit_notes(
        server, tmp_path, wrapped=False
    )


KINDS: Final = ("recv", "streams", "httpx", "websockets", "pipe", "anyio", "timeout")


def fail_on_websockets(server: str, folder: Path, upstream_port: int, *, wrapped: bool) -> Observed:
    """Let every kind of failure happen, with the client there and gone."""

    def visit(port: int, kind: str, *, stays: bool) -> None:
        name = f"{kind}-{'stays' if stays else 'leaves'}"
        sock = open_websocket(port, f"/fail?kind={kind}{'' if stays else '&wait'}", name)
        if stays:
            # The server's close frame, or the end of the connection.
            sock.recv(65536)
        leave(sock, "fin" if stays else "rst")

    stack = asgi_stack(server, "starlette")
    with observed(stack, folder, wrapped=wrapped, upstream_port=upstream_port) as seen:
        together(
            [
                partial(visit, seen.port, kind, stays=stays)
                for kind in KINDS
                for stays in (False, True)
            ]
        )
        seen.all_have_left()
        seen.until(lambda: seen.ask("/seen")["failed"] == 2 * len(KINDS), "not all have failed")
    return seen


@pytest.mark.parametrize("server", ["uvicorn-h11", "gunicorn"])
def test_an_upstreams_failure_stays_what_it_was(server: str, tmp_path: Path) -> None:
    with quitter() as upstream:
        bare, wrapped = (
            fail_on_websockets(server, tmp_path, upstream.port, wrapped=wrapped)
            for wrapped in (False, True)
        )
    assert wrapped.errors() == bare.errors()
    told = {
        name: sorted(event["event"] for event in events)
        for name, events in wrapped.events_by_request().items()
    }
    for kind in KINDS:
        lost = [] if kind in ("anyio", "timeout") else ["upstream_reset"]
        assert told.get(f"{kind}-stays", []) == lost
        assert told.get(f"{kind}-leaves", []) == ["client_departed", *lost]
