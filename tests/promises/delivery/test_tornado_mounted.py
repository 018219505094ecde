"""Where the line may stand on Tornado: applications in routers, in each other, in a server."""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tornado import httpserver, httputil, routing, web

from cleanclose.core import Event, current
from cleanclose.tornado import install, leave_alone
from tests.harness.asking import get, status_of
from tests.harness.tornado_serving import MIB, Running, serving, the_event


@web.stream_request_body
class Refuses(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None: ...


class Says(web.RequestHandler):
    """What it says shows whether it is watched, and what its body was."""

    def get(self) -> None:
        self.finish("watched" if current() is not None else "bare")

    def post(self) -> None:
        self.finish(str(len(self.request.body)))


def say_nothing(handler: web.RequestHandler) -> None: ...


def application() -> web.Application:
    return web.Application([(".*/refuses", Refuses), (".*/says", Says)], log_function=say_nothing)


Make = Callable[[list[Event]], Any]


def in_a_router(events: list[Event]) -> Any:
    app = install(application(), outlets=[events.append])
    return routing.RuleRouter([("/in/.*", app), ("/other/.*", application())])


def in_an_application(events: list[Event]) -> Any:
    app = install(application(), outlets=[events.append])
    return web.Application([("/in/.*", app), (".*/says", Says)])


def as_a_callable(events: list[Event]) -> Any:
    """What HTTPServer takes besides: each request comes whole."""
    app = install(application(), outlets=[events.append])

    def call(request: httputil.HTTPServerRequest) -> None:
        app(request)

    return call


def the_router(events: list[Event]) -> Any:
    return install(routing.RuleRouter([("/in/.*", application())]), outlets=[events.append])


def router_and_application(events: list[Event]) -> Any:
    app = install(application(), outlets=[events.append])
    return install(routing.RuleRouter([("/in/.*", app)]), outlets=[events.append])


def both_applications(events: list[Event]) -> Any:
    return install(in_an_application(events), outlets=[events.append])


def twice(events: list[Event]) -> Any:
    app = install(application(), outlets=[lambda event: events.extend((event, event))])
    return install(app, outlets=[events.append])


def the_server(events: list[Event]) -> Any:
    """Installed on an HTTPServer that serves as another's application."""
    return install(httpserver.HTTPServer(application()), outlets=[events.append])


def server_and_application(events: list[Event]) -> Any:
    app = install(application(), outlets=[events.append])
    return install(httpserver.HTTPServer(app), outlets=[events.append])


WATCHED: list[Make] = [
    in_a_router,
    in_an_application,
    the_router,
    router_and_application,
    both_applications,
    twice,
    the_server,
    server_and_application,
]


def body(running: Running, path: str) -> bytes:
    response = running.post(path, 1000).response
    assert response is not None
    assert response.status == 200
    return response.body


@pytest.mark.parametrize("make", WATCHED)
def test_an_early_answer_arrives_and_is_one_event(make: Make) -> None:
    events: list[Event] = []
    with serving(make(events), max_body_size=64 * MIB) as running:
        assert body(running, "/in/says") == b"1000"
        assert running.post("/in/refuses", 16 * MIB).status == 413
        the_event(events)


@pytest.mark.parametrize("make", WATCHED)
def test_over_the_limit_is_a_413(make: Make) -> None:
    events: list[Event] = []
    with serving(make(events)) as running:
        assert running.post("/in/says", 8 * MIB).status == 413
        the_event(events)


@pytest.mark.parametrize("make", WATCHED)
def test_a_handler_finds_its_exchange(make: Make) -> None:
    with serving(make([])) as running:
        assert get(running.port, "/in/says")[1] == b"watched"


@pytest.mark.parametrize("make", [in_a_router, in_an_application])
def test_what_is_beside_it_goes_as_bare(make: Make) -> None:
    with serving(make([])) as running:
        assert get(running.port, "/other/says")[1] == b"bare"
        assert body(running, "/other/says") == b"1000"


def test_an_application_that_is_called_with_whole_requests_works_as_bare() -> None:
    events: list[Event] = []
    with serving(as_a_callable(events), max_body_size=64 * MIB) as running:
        assert body(running, "/says") == b"1000"
        assert status_of(running.port, "/nowhere") == 404
    assert events == []


@pytest.mark.parametrize("make", WATCHED)
def test_the_opt_out_works_wherever_the_line_stands(make: Make) -> None:
    found: list[str] = []

    @web.stream_request_body
    class OptsOut(web.RequestHandler):
        def prepare(self) -> None:
            leave_alone(self)
            connection: Any = self.request.connection
            found.append(type(connection.watch).__name__)
            self.finish("no")

        def data_received(self, chunk: bytes) -> None: ...

    events: list[Event] = []
    served = make(events)
    application_of(served).add_handlers(".*", [(".*/opts-out", OptsOut)])
    with serving(served, max_body_size=64 * MIB) as running:
        running.post("/in/opts-out", 16 * MIB)
    assert found == ["UploadWatch"]
    assert [event.name for event in events if event.name == "upload_drained"] == []


def application_of(served: Any) -> web.Application:
    """The application that answers below ``/in/``."""
    if isinstance(served, httpserver.HTTPServer):
        return application_of(served.request_callback)
    if type(served) is routing.RuleRouter:
        return application_of(served.rules[0].target)
    if isinstance(served, web.Application):
        for rule in served.wildcard_router.rules:
            if isinstance(rule.target, web.Application):
                return rule.target
    assert isinstance(served, web.Application)
    return served


@pytest.mark.parametrize("wrong", [web.Application, Says, 5, None, "application"])
def test_what_is_no_application_is_refused_in_words(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"install\(\) takes"):
        install(wrong)
