"""What a copy of a wrapped application, and of an outlet, is made of."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import cleanclose.asgi
import cleanclose.wsgi
from cleanclose.core import StructlogOutlet, on_event, snapshot
from cleanclose.core.counters import PROCESS
from cleanclose.integrations.queue import QueuedOutlet
from cleanclose.integrations.stdlib import StdlibOutlet
from tests.harness.made import departed


class Bare:
    """An application of either kind, which says who it is."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls.append(environ["REQUEST_METHOD"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


class BareAsgi(Bare):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override]
        await self.asgi(scope, receive, send)


class CopiesItself(Bare):
    """An application that says itself what its copy is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        return CopiesItself()


def pickled(what: Any) -> Any:
    return pickle.loads(pickle.dumps(what))


COPIES = pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, pickled])


@COPIES
def test_a_copy_of_a_wrapped_wsgi_application_works_as_a_copy_of_the_bare_one(
    made: Callable[[Any], Any],
) -> None:
    wrapped = cleanclose.wsgi.CleanCloseMiddleware(Bare())
    copied = made(wrapped)
    assert type(copied) is cleanclose.wsgi.CleanCloseMiddleware
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}
    assert b"".join(copied(environ, lambda *_: print)) == b"ok"
    assert copied.calls == ["GET"]
    assert wrapped.calls == (["GET"] if made is copy.copy else [])


@COPIES
@pytest.mark.parametrize("stop_work", [False, True])
def test_a_copy_of_a_wrapped_asgi_application_works_as_a_copy_of_the_bare_one(
    made: Callable[[Any], Any], stop_work: bool
) -> None:
    wrapped = cleanclose.asgi.CleanCloseMiddleware(BareAsgi(), stop_work=stop_work)
    copied = made(wrapped)
    assert type(copied) is cleanclose.asgi.CleanCloseMiddleware
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "http_version": "1.1",
    }
    asyncio.run(copied(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert copied.calls == ["GET"]
    assert wrapped.calls == (["GET"] if made is copy.copy else [])


@pytest.mark.parametrize("kind", [cleanclose.asgi, cleanclose.wsgi], ids=["asgi", "wsgi"])
def test_an_application_that_copies_itself_stays_wrapped(kind: Any) -> None:
    copied = copy.deepcopy(kind.CleanCloseMiddleware(CopiesItself()))
    assert type(copied) is kind.CleanCloseMiddleware
    assert type(copied.app) is CopiesItself


def test_a_copy_reports_to_the_same_outlets_and_the_same_counters() -> None:
    class Outlet:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.seen: list[object] = []

        def __call__(self, event: object) -> None:
            self.seen.append(event)

    outlet = Outlet()
    copied = copy.deepcopy(cleanclose.wsgi.CleanCloseMiddleware(Bare(), outlets=[outlet]))
    before = sum(snapshot().values())
    copied.reporter.report(departed())
    assert len(outlet.seen) == 1
    assert sum(snapshot().values()) > before
    assert copy.deepcopy(PROCESS) is PROCESS
    assert pickled(PROCESS) is PROCESS


@COPIES
def test_outlets_are_copied_with_nothing_of_what_they_were_told(
    made: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for outlet in (StructlogOutlet(), StdlibOutlet(), QueuedOutlet(print)):
        outlet(departed())
        copied = made(outlet)
        assert type(copied) is type(outlet)
        copied(departed())
        if isinstance(copied, QueuedOutlet) and isinstance(outlet, QueuedOutlet):
            assert copied.close()
            assert outlet.close()
    assert capsys.readouterr().out.count("ClientDeparted") == 2


def test_the_hook_for_events_hears_of_copies_too() -> None:
    seen: list[object] = []
    stop = on_event(seen.append)
    try:
        pickled(cleanclose.wsgi.CleanCloseMiddleware(Bare())).reporter.report(departed())
    finally:
        stop()
    assert len(seen) == 1
