"""Every way of answering, on the standard library's and on Werkzeug's own server."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.serving import make_server as make_werkzeug_server

from cleanclose.core import (
    Cap,
    Event,
    Mechanism,
    Outcome,
    UploadDrained,
)
from cleanclose.doctor.clients import Upload, strict
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.waiting import until
from tests.harness.wsgi_apps import (
    HEADERS,
    MIB,
    App,
    Threads,
    refuse,
    refuse_by_file,
    refuse_by_generator,
    serving,
    told_of_threads,
    wrap,
)


def between_validators(app: App, **settings: Any) -> Any:
    return validator(wrap(validator(app), **settings))


def refuse_without_length(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", HEADERS[:1])
    yield b"n"
    yield b""
    yield b"o"


def refuse_by_write(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("413 Too Large", HEADERS)
    write(b"no")
    return []


def refuse_second_thoughts(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", HEADERS[:1])
    try:
        raise LookupError
    except LookupError as error:
        start_response("413 Too Large", HEADERS, (type(error), error, error.__traceback__))
    return [b"no"]


def refuse_after_a_look(environ: Any, start_response: Any) -> Iterable[bytes]:
    stream = environ["wsgi.input"]
    assert len(stream.read(1000)) == 1000
    assert stream.readline(10)
    return refuse(environ, start_response)


@pytest.mark.parametrize(
    "app",
    [
        refuse,
        refuse_by_generator,
        refuse_without_length,
        refuse_by_write,
        refuse_by_file,
        refuse_second_thoughts,
        refuse_after_a_look,
    ],
)
def test_every_way_of_answering_is_delivered(app: App) -> None:
    with serving(app) as port:
        bare = strict(Upload(port=port, body_size=8 * MIB))
    with serving(told_of_threads(between_validators(app)), Threads) as port:
        wrapped = strict(Upload(port=port, body_size=8 * MIB))
    assert bare.status is None, "the control: without the middleware the answer is lost"
    assert wrapped.response is not None, wrapped
    assert (wrapped.status, wrapped.response.body) == (413, b"no")
    assert not wrapped.transcript.stray


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_a_client_that_stalls_never_has_the_only_thread_of_an_unknown_server(
    wrapped: bool,
) -> None:
    """What another middleware has wrapped is read without any limit of time."""
    with serving(between_validators(refuse) if wrapped else refuse) as port:
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            head = f"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {8 * MIB}\r\n\r\n"
            client.sendall(head.encode() + bytes(100 * 1024))
            assert client.recv(1000)
            bystander = strict(Upload(port=port, method="GET", timeout=20.0))
        assert bystander.status == 413, bystander


def test_a_body_that_is_read_is_all_there() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        size = len(stream.read(10)) + len(stream.readline(50)) + sum(map(len, stream.readlines(5)))
        left = int(environ["CONTENT_LENGTH"]) - size
        while left:
            left -= len(stream.read(min(left, 10_000)))
        start_response("200 OK", HEADERS)
        return [b"ok"]

    events: list[Event] = []
    with serving(wrap(app, events)) as port:
        assert strict(Upload(port=port, body_size=100_000)).status == 200
    assert events == []


def test_a_response_that_is_followed_by_reading_keeps_its_body() -> None:
    """The whole Content-Length is out, yet the application goes on reading."""
    got: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield b"ok"
        got.append(len(environ["wsgi.input"].read(100_000)))

    with serving(wrap(app)) as port:
        outcome = strict(Upload(port=port, body_size=100_000))
    assert outcome.status == 200
    assert got == [100_000]


def test_the_applications_close_comes_before_the_lingering() -> None:
    order: list[str] = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"no"])

        def close(self) -> None:
            order.append("closed")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        refuse(environ, start_response)
        return Result()

    def outlet(event: Event) -> None:
        order.append(event.name)

    with serving(CleanCloseMiddleware(app, outlets=[outlet])) as port:
        # Slow enough that the response is out long before the body is in.
        assert strict(Upload(port=port, body_size=256 * 1024, pause=0.3)).status == 413
    until(lambda: len(order) > 1, "the lingerer has reported it")
    assert order == ["closed", "upload_drained"]


def test_an_upload_cut_short_is_told() -> None:
    events: list[Event] = []
    with serving(wrap(refuse, events)) as port:
        outcome = strict(
            Upload(port=port, body_size=8 * MIB, abort_after=MIB, abort_how="half_close")
        )
    assert outcome.status == 413
    until(lambda: events, "the lingerer has reported it")
    event = events[0]
    assert isinstance(event, UploadDrained)
    assert (event.mechanism, event.drained) == (Mechanism.EOF, MIB)


def test_a_stalled_client_on_werkzeugs_server_is_let_go() -> None:
    """A socket in reach: the worker is free when the limits say so, not when the client likes."""
    events: list[Event] = []
    app = wrap(refuse, events, idle_seconds=0.2, hold_seconds=0.1)
    server = make_werkzeug_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.settimeout(30)
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nstalled")
            answer = b""
            while b"no" not in answer:
                answer += client.recv(1000)
            assert answer.startswith(b"HTTP/1.0 413")
            while client.recv(1000):
                pass
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    until(lambda: events, "the lingerer has reported it")
    event = events[0]
    assert isinstance(event, UploadDrained)
    if sys.platform == "linux":
        assert (event.outcome, event.cap, event.unacked) == (Outcome.DELIVERED, None, 0)
    else:
        assert (event.outcome, event.cap) == (Outcome.CUT, Cap.IDLE_SECONDS)
    assert event.drained == len("stalled")
