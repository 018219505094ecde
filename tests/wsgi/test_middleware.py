"""PEP 3333 to the letter, on the standard library's own server, with its own validator around.

Delivery on the servers that people run is proven in ``tests/delivery``.
"""

from __future__ import annotations

import contextlib
import gc
import io
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.serving import make_server as make_werkzeug_server

from cleanclose.core import (
    Cap,
    ClientDeparted,
    Event,
    Mechanism,
    Outcome,
    Phase,
    Side,
    UploadDrained,
    Verdict,
    Witness,
)
from cleanclose.doctor.clients import Upload, strict
from cleanclose.wsgi import CleanCloseMiddleware, skip

App = Callable[[Any, Any], Iterable[bytes]]
MIB = 1024 * 1024
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "2")]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Threads(ThreadingMixIn, WSGIServer):
    pass


def told_of_threads(app: Any) -> App:
    """What wsgiref says of itself, right for `Threads`."""

    def outer(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.multithread"] = True
        result: Iterable[bytes] = app(environ, start_response)
        return result

    return outer


@contextlib.contextmanager
def serving(app: Any, kind: type[WSGIServer] = WSGIServer) -> Generator[int]:
    """The app on a real server, one request at a time; gives the port."""
    with make_server("127.0.0.1", 0, app, kind, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def wrap(app: App, events: list[Event] | None = None, **settings: Any) -> CleanCloseMiddleware:
    outlet = (events if events is not None else []).append
    return CleanCloseMiddleware(app, outlets=[outlet], **settings)


def between_validators(app: App, **settings: Any) -> Any:
    return validator(wrap(validator(app), **settings))


def refuse(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("413 Too Large", HEADERS)
    return [b"no"]


def refuse_by_generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", HEADERS)
    yield b"n"
    yield b"o"


def refuse_without_length(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", HEADERS[:1])
    yield b"n"
    yield b""
    yield b"o"


def refuse_by_write(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("413 Too Large", HEADERS)
    write(b"no")
    return []


def refuse_by_file(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("413 Too Large", HEADERS)
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"no"))
    return result


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
    assert order == ["closed", "upload_drained"]


def test_a_request_without_a_body_is_not_drained() -> None:
    seen: list[Any] = []
    result = [b"ok"]

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(environ["wsgi.input"])
        start_response("200 OK", HEADERS)
        return result

    stream = io.BytesIO()
    for length in ("", "0"):
        environ = environ_of(b"", REQUEST_METHOD="GET", CONTENT_LENGTH=length)
        environ["wsgi.input"] = stream
        response: Any = wrap(app)(environ, start)
        assert seen[-1] is stream
        assert len(response) == 1
        assert list(response) == result
        response.close()


def environ_of(body: bytes, **more: Any) -> Any:
    return {
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.file_wrapper": FileWrapper,
        **more,
    }


def start(status: str, headers: Any, exc_info: Any = None) -> Any:
    return len


def test_when_the_body_is_read_the_server_gets_what_the_application_made() -> None:
    """A file wrapper stays one: servers send it with sendfile()."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        return refuse_by_file(environ, start_response)

    assert isinstance(wrap(app)(environ_of(b"body"), start), FileWrapper)


def test_a_list_keeps_its_length() -> None:
    """Some servers make a Content-Length of a list with a single piece."""
    result: Any = wrap(refuse)(environ_of(b"body"), start)
    assert len(result) == 1
    assert not hasattr(wrap(refuse_by_generator)(environ_of(b"body"), start), "__len__")


def test_close_before_the_first_piece() -> None:
    """What a server does when the peer was gone before it could write anything."""
    closed: list[bool] = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"no"])

        def close(self) -> None:
            closed.append(True)

    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        refuse(environ, start_response)
        return Result()

    result: Any = wrap(app, events)(environ_of(b"body"), start)
    result.close()
    result.close()
    assert closed == [True]
    [event] = events
    assert isinstance(event, ClientDeparted)
    assert event.verdict == Verdict(
        side=Side.CLIENT, phase=Phase.RESPONSE_START, witnesses=(Witness.CLOSE,)
    )


def test_errors_of_the_application_pass_untouched() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        wrap(app)(environ_of(b"body"), start)

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS[:1])
        yield b"o"
        raise LookupError("the application's own")

    result: Any = wrap(late)(environ_of(b"body"), start)
    assert next(result) == b"o"
    with pytest.raises(LookupError, match="the application's own"):
        next(result)
    result.close()


def test_an_error_of_the_applications_reading_passes_and_nothing_more_is_read() -> None:
    class Broken(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            raise ConnectionResetError("the peer")

    stream = Broken(b"body")
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        with pytest.raises(ConnectionResetError):
            environ["wsgi.input"].read(4)
        return refuse(environ, start_response)

    result: Any = wrap(app, events)(environ_of(b"body", **{"wsgi.input": stream}), start)
    assert list(result) == [b"no"]
    result.close()
    assert stream.reads == 1
    assert events == []


def test_the_opt_out() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        skip(environ)
        return refuse(environ, start_response)

    events: list[Event] = []
    environ = environ_of(b"body")
    stream = environ["wsgi.input"]
    result: Any = wrap(app, events)(environ, start)
    assert list(result) == [b"no"]
    result.close()
    assert events == []
    assert stream.tell() == 0
    skip({})


def test_a_chunked_body_whose_end_nobody_tells_is_left_alone() -> None:
    environ = environ_of(b"", HTTP_TRANSFER_ENCODING="chunked")
    events: list[Event] = []
    stream = environ["wsgi.input"]
    result: Any = wrap(refuse, events)(environ, start)
    assert environ["wsgi.input"] is stream
    assert list(result) == [b"no"]
    result.close()
    assert events == []


def test_the_other_streams_methods_are_counted_too() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        target = bytearray(2)
        assert stream.readinto(target) == 2
        assert stream.read1(2) == b"cd"
        assert next(stream) == b"ef\n"
        assert list(stream) == [b"gh"]
        assert not hasattr(stream, "no_such_method")
        return refuse(environ, start_response)

    result: Any = wrap(app, events)(environ_of(b"abcdef\ngh"), start)
    assert list(result) == [b"no"]
    assert events == []


def test_an_upload_cut_short_is_told() -> None:
    events: list[Event] = []
    with serving(wrap(refuse, events)) as port:
        outcome = strict(
            Upload(port=port, body_size=8 * MIB, abort_after=MIB, abort_how="half_close")
        )
    assert outcome.status == 413
    event = events[0]
    assert isinstance(event, UploadDrained)
    assert (event.mechanism, event.drained) == (Mechanism.EOF, MIB)


def test_a_request_leaves_nothing_to_the_cyclic_collector() -> None:
    def read(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(4)
        return refuse(environ, start_response)

    for inner in (refuse, refuse_by_generator, read):
        app = wrap(inner)

        def one(app: Any = app) -> None:
            result = app(environ_of(b"body"), start)
            list(result)
            if hasattr(result, "close"):
                result.close()

        one()
        gc.collect()
        # What other tests left may have been brought back by its __del__.
        gc.collect()
        gc.disable()
        try:
            one()
            assert gc.collect() == 0
        finally:
            gc.enable()


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
    event = events[0]
    assert isinstance(event, UploadDrained)
    if sys.platform == "linux":
        assert (event.outcome, event.cap, event.unacked) == (Outcome.DELIVERED, None, 0)
    else:
        assert (event.outcome, event.cap) == (Outcome.CUT, Cap.IDLE_SECONDS)
    assert event.drained == len("stalled")


def test_a_response_that_the_server_drops_keeps_no_place() -> None:
    """A server whose own work fails need not call close()."""

    def start(*arguments: Any) -> Callable[[bytes], object]:
        return lambda data: None

    class Never:
        """A body that never ends."""

        def read(self, size: int = -1) -> bytes:
            return b"x" * size

    events: list[Event] = []
    app = wrap(refuse, events, max_bytes=MIB)
    response: Any = None
    for _ in range(3):
        environ = {**environ_of(b""), "CONTENT_LENGTH": str(8 * MIB), "wsgi.input": Never()}
        environ["wsgi.multithread"] = True
        response = app(environ, start)
        assert list(response) == [b"no"]
    response.close()
    found = [(event.outcome, event.cap) for event in events if isinstance(event, UploadDrained)]
    # Not Cap.MAX_LINGERING, which is what all but the first would meet.
    assert found == [(Outcome.CUT, Cap.MAX_BYTES)]


def test_attributes_of_the_application_stay_in_reach() -> None:
    class App:
        name = "mine"

        def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
            return refuse(environ, start_response)

    assert wrap(App()).name == "mine"
    with pytest.raises(AttributeError):
        wrap(App()).other  # noqa: B018


def test_bad_settings_are_refused_where_they_are_given() -> None:
    with pytest.raises(ValueError, match="idle_seconds"):
        CleanCloseMiddleware(refuse, idle_seconds=-1)
