"""Attributes of tornado's that have another name one day: requests are served, one line says so.

The server is tornado's own; its classes hide one attribute from the shim, and from nobody else.
"""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
from tornado import http1connection, iostream, tcpserver, web

from cleanclose.core import Event
from cleanclose.core import private as said
from cleanclose.core.private import Private
from cleanclose.servers import tornado as room
from cleanclose.servers.tornado import CONNECTION, NEEDED, ROOM, STREAM
from cleanclose.tornado import install
from tests.harness.asking import status_of
from tests.harness.tornado_serving import MIB, serving, the_event
from tests.harness.waiting import until

CLASSES: dict[str, tuple[Any, str, type]] = {
    CONNECTION: (http1connection, "HTTP1Connection", http1connection.HTTP1Connection),
    STREAM: (tcpserver, "IOStream", iostream.IOStream),
}


def hiding(cls: type, name: str) -> type:
    """The class, with one attribute that only tornado itself finds."""

    def get(self: object, wanted: str) -> Any:
        if wanted == name:
            here = inspect.currentframe()
            assert here is not None
            assert here.f_back is not None
            caller: str = here.f_back.f_globals["__name__"]
            if caller.startswith("cleanclose."):
                raise AttributeError(wanted)
        return base.__getattribute__(self, wanted)

    base: Any = cls
    return type(cls.__name__, (cls,), {"__getattribute__": get})


@web.stream_request_body
class Refuses(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None: ...


class Echoes(web.RequestHandler):
    def get(self) -> None:
        self.finish("got")

    def post(self) -> None:
        self.finish(str(len(self.request.body)))


def say_nothing(handler: web.RequestHandler) -> None: ...


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[tuple[type, type], bool] = {}
    rows: set[Private] = set()
    monkeypatch.setattr(room, "_watchable", found)
    monkeypatch.setattr(said, "_SAID", rows)


ROWS = [row for row in ROOM.private if row.owner in CLASSES]


def is_needed(row: Private) -> bool:
    return row.attribute in NEEDED[row.owner]


def says(line: str, row: Private) -> bool:
    return (
        f"owner='{row.owner}'" in line
        and f"attribute='{row.attribute}'" in line
        and row.without in line
    )


def name_of(row: Private) -> str:
    return f"{row.owner}.{row.attribute}"


def serve_hiding(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    row: Private,
    events: list[Event],
) -> list[str]:
    """Requests with an attribute that is gone; the lines that say so."""
    module, attribute, cls = CLASSES[row.owner]
    monkeypatch.setattr(module, attribute, hiding(cls, row.attribute))
    app = web.Application([("/refuses", Refuses), ("/", Echoes)], log_function=say_nothing)
    with serving(install(app, outlets=[events.append])) as running:
        for _ in range(2):
            assert status_of(running.port, "/") == 200
            response = running.post("/", 1000).response
            assert response is not None
            assert (response.status, response.body) == (200, b"1000")
        # Whether this one gets its answer is another matter: nothing of it may raise.
        running.post("/refuses", 8 * MIB)
        until(lambda: running.pending() == 0, "a task is left")
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert {r.name for r in records} <= {"cleanclose"}, records
    return [r.getMessage() for r in records]


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("row", [row for row in ROWS if is_needed(row)], ids=name_of)
def test_without_what_is_needed_requests_go_as_bare(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, row: Private
) -> None:
    events: list[Event] = []
    (line,) = serve_hiding(monkeypatch, caplog, row, events)
    assert says(line, row)
    assert "as if nothing were installed" in line
    assert events == []


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("row", [row for row in ROWS if not is_needed(row)], ids=name_of)
def test_without_what_is_useful_answers_still_arrive(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, row: Private
) -> None:
    events: list[Event] = []
    (line,) = serve_hiding(monkeypatch, caplog, row, events)
    assert says(line, row)
    assert the_event(events).status == 413


@pytest.mark.usefixtures("forgotten")
def test_todays_tornado_has_all_of_it(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    app = web.Application([("/refuses", Refuses)], log_function=say_nothing)
    app = install(app, outlets=[events.append], stop_work=True)
    with serving(app) as running:
        assert running.post("/refuses", 8 * MIB).status == 413
    assert the_event(events).status == 413
    assert [r for r in caplog.records if r.name == "cleanclose"] == []


@pytest.mark.usefixtures("forgotten")
def test_handlers_that_cannot_be_stopped_are_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Tornado itself does without, as long as nothing fails.
    monkeypatch.delattr(web.RequestHandler, "send_error")
    app = install(web.Application([("/", Echoes)]), outlets=[], stop_work=True)
    with serving(app) as running:
        assert status_of(running.port, "/") == 200
    (line,) = [r.getMessage() for r in caplog.records if r.name == "cleanclose"]
    assert "stop_work has no effect" in line
