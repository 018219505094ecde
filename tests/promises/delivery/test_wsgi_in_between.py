"""What stands around the middleware, or in it once more, costs no answer and no second event."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from cheroot.wsgi import Server as CherootServer
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cleanclose.core import Event, UploadDrained
from cleanclose.doctor.clients import Upload, strict
from tests.harness.leavers import connected, leave, leave_at, request
from tests.harness.stacks import Stack, gunicorn
from tests.harness.waiting import until
from tests.harness.wsgi_apps import ok, refuse, wrap

if TYPE_CHECKING:
    from tests.harness.serving import Serve

pytestmark = pytest.mark.stacks

MIB: Final = 1024 * 1024


@contextlib.contextmanager
def cheroot(app: Any) -> Generator[int]:
    server: Any = CherootServer(("127.0.0.1", 0), app, numthreads=2)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.bind_addr[1]
    finally:
        server.stop()
        thread.join()


def by_a_function(app: Any) -> Any:
    """A middleware that wraps ``start_response``, as OpenTelemetry's does."""

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        def begin(status: str, headers: Any, *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Trace", "1")], *more)

        result: Iterable[bytes] = app(environ, begin)
        return result

    return outer


def read(environ: Any, start_response: Any) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    return ok(environ, start_response)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_an_aborted_upload_is_the_clients_behind_a_wrapped_start_response(how: Any) -> None:
    events: list[Event] = []
    with cheroot(by_a_function(wrap(read, events))) as port:
        for tried in range(1, 11):
            leave_at(port, request("POST", "/", length=1000), how, body=b"abcd")
            until(lambda count=tried: len(events) == count, lambda: str(events))  # type: ignore[misc]
    expected = {"rst": "client_departed", "fin": "truncated_upload"}[how]
    assert [event.name for event in events] == [expected] * 10


MOUNTS: Final[dict[str, Callable[[Any], Any]]] = {
    "dispatcher": lambda app: DispatcherMiddleware(refuse, {"/mounted": app}),
    "wrapped": by_a_function,
    "twice": lambda app: app,
}


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_mounted_app_that_is_wrapped_too_is_one_exchange(mount: str) -> None:
    events: list[Event] = []
    app = wrap(MOUNTS[mount](wrap(refuse, events)), events)
    with cheroot(app) as port:
        started = time.monotonic()
        outcome = strict(Upload(port=port, path="/mounted/x", body_size=8 * MIB))
        took = time.monotonic() - started
        until(lambda: bool(events), "no event")
        with connected(port) as sock:
            sock.sendall(request("POST", "/mounted/x", length=1000) + b"abcd")
            # Who leaves before the answer has departed: that would be another event.
            assert b" 413 " in sock.recv(4096)
            leave(sock, "rst")
        until(lambda: len(events) > 1, "no event of the one that left")
    assert outcome.status == 413, outcome
    # It waited for the lingerer, and that one for it: 10 s and its time-out.
    assert took < 8
    assert [type(event) for event in events] == [UploadDrained] * 2


GTHREAD: Final[Stack] = gunicorn(
    "traced-flask",
    "traced_flask",
    "--worker-class=gthread",
    "--threads=16",
    "--keep-alive=30",
    threads=True,
)


@pytest.mark.full
@pytest.mark.parametrize("tracer", ["sentry", "opentelemetry"])
def test_refused_at_once_behind_what_traces_an_application(serve: Serve, tracer: str) -> None:
    server = serve(GTHREAD, wrapped=True, env={"TEST_TRACER": tracer})
    upload = Upload(port=server.port, method="PUT", path="/refuse", body_size=8 * MIB)

    def three() -> list[int | None]:
        return [strict(upload).status for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(three) for _ in range(4)]
        statuses = [status for future in futures for status in future.result()]
    assert statuses == [413] * 12
