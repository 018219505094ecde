"""PEP 3333 to the letter, on the standard library's own server, with its own validator around.

Delivery on the servers that people run is proven in ``tests/promises/delivery``.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from cleanclose.core import (
    Cap,
    ClientDeparted,
    Event,
    Outcome,
    Phase,
    Side,
    UploadDrained,
    Verdict,
    Witness,
)
from cleanclose.wsgi import CleanCloseMiddleware, skip
from tests.harness.wsgi_apps import (
    HEADERS,
    MIB,
    environ_of,
    refuse,
    refuse_by_file,
    refuse_by_generator,
    start,
    wrap,
)


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


def test_an_answer_instead_has_no_length_where_a_piece_has_been_handed_over() -> None:
    """As eventlet gathers small pieces: they still go out, behind the head that replaces theirs."""
    heads: list[tuple[str, list[str]]] = []

    def replaceable(status: str, headers: Any, exc_info: Any = None) -> Any:
        heads.append((status, [name for name, _ in headers]))
        return start(status, headers)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        environ["wsgi.input"].read(10)

    body: Any = wrap(app)(environ_of(b"body", CONTENT_LENGTH="10"), replaceable)
    assert b"".join(body) == b"some"
    body.close()
    assert heads == [("200 OK", []), ("400 Bad Request", ["Content-Type"])]


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


def test_another_application_may_be_put_in_the_place_of_the_first() -> None:
    """Tools that instrument an application look for ``app`` in what stands around it."""

    def answer(text: bytes) -> Any:
        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Length", str(len(text)))])
            return [text]

        return app

    first, second = answer(b"first"), answer(b"second")
    middleware = CleanCloseMiddleware(first)
    middleware.app = second
    assert middleware.app is second
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    assert b"".join(middleware(environ, lambda *_: lambda _: None)) == b"second"
