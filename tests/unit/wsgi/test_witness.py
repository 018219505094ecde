"""Whose fault: what is the client's on a WSGI server, and above all what is not."""

from __future__ import annotations

import contextlib
import gc
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from cleanclose.core import (
    ClientDeparted,
    Event,
    Mechanism,
    Phase,
    Side,
    TruncatedBodyError,
    TruncatedUpload,
    Witness,
    client_gone,
)
from cleanclose.core.blame.judge import marked
from cleanclose.core.blame.watch import CURRENT
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.wsgi_apps import GET, HEADERS, environ_of, ok, start, wrap


@pytest.fixture(autouse=True)
def works_for_nobody() -> None:
    """Tests that never close their response leave this thread in its exchange."""
    CURRENT.set(None)


def test_errors_that_are_no_operating_systems_are_the_servers_to_log() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        wrap(app, events)(environ_of(**GET), start)
    assert events == []


def test_a_websockets_errors_pass() -> None:
    """Its libraries raise an empty ConnectionError to keep Werkzeug from answering."""
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        assert start_response is start
        raise ConnectionError

    with pytest.raises(ConnectionError):
        wrap(app, events)(environ_of(**GET, HTTP_UPGRADE="websocket"), start)
    assert events == []


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", "200 OK", HEADERS),
        ("GET", "204 No Content", []),
        ("GET", "304 Not Modified", []),
    ],
)
def test_a_body_that_nobody_wants_need_not_be_asked_for(
    method: str, status: str, headers: Any
) -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(status, headers)
        return iter([b"ok"])

    result: Any = wrap(app, events)(environ_of(REQUEST_METHOD=method, CONTENT_LENGTH=""), start)
    result.close()
    assert events == []


@pytest.mark.parametrize("make", [list, iter])
def test_a_server_may_stop_at_the_declared_length(make: Callable[[Any], Any]) -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        result: Iterable[bytes] = make([b"ok", b""])
        return result

    result: Any = wrap(app, events)(environ_of(**GET), start)
    assert next(iter(result)) == b"ok"
    result.close()
    assert events == []


# What is.


@pytest.mark.parametrize("make", [list, iter])
def test_a_response_that_is_closed_too_early(make: Callable[[Any], Any]) -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS[:1])
        result: Iterable[bytes] = make([b"one", b"two"])
        return result

    result: Any = wrap(app, events)(environ_of(**GET), start)
    assert next(iter(result)) == b"one"
    result.close()
    result.close()
    [event] = events
    assert isinstance(event, ClientDeparted)
    assert event.verdict.witnesses == (Witness.CLOSE,)
    assert (event.verdict.phase, event.bytes_out) == (Phase.RESPONSE_BODY, 3)


def test_a_server_that_is_told_to_stop_is_no_client() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS[:1])
        return iter([b"one", b"two"])

    result: Any = wrap(app, events)(environ_of(**GET), start)

    def serve() -> None:
        try:
            next(result)
            raise SystemExit
        finally:
            result.close()

    with pytest.raises(SystemExit):
        serve()
    [event] = events
    assert isinstance(event, ClientDeparted)
    assert event.verdict.side is Side.SERVER


def test_a_departure_has_what_is_known_of_its_request() -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return [b"ok"]

    environ = environ_of(
        REMOTE_ADDR="192.0.2.1",
        HTTP_X_REQUEST_ID="r1",
        HTTP_TRACEPARENT=f"00-{'a' * 32}-{'b' * 16}-01",
        HTTP_IDEMPOTENCY_KEY="k1",
    )
    result: Any = wrap(app, events)(environ, start)
    result.close()
    facts = events[0].facts
    assert (facts.framework, facts.server, facts.method) == ("wsgi", "unknown", "POST")
    assert (facts.client, facts.request_id, facts.trace_id, facts.idempotency_key) == (
        "192.0.2.1",
        "r1",
        "a" * 32,
        "k1",
    )


# A body that ends too early.


def by_read(stream: Any) -> object:
    return stream.read()


def by_read_of_the_length(stream: Any) -> object:
    return stream.read(10)


def by_read_of_more(stream: Any) -> object:
    return stream.read(1000)


def by_pieces(stream: Any) -> object:
    return [stream.read(3) for _ in range(4)]


def by_readline(stream: Any) -> object:
    return [stream.readline() for _ in range(3)]


def by_limited_readline(stream: Any) -> object:
    return [stream.readline(100) for _ in range(3)]


def by_readlines(stream: Any) -> object:
    return stream.readlines()


def by_hinted_readlines(stream: Any) -> object:
    return stream.readlines(100)


def by_iteration(stream: Any) -> object:
    return list(stream)


def by_read1(stream: Any) -> object:
    return [stream.read1(100) for _ in range(2)]


def by_readinto(stream: Any) -> object:
    return [stream.readinto(bytearray(100)) for _ in range(2)]


COUNTERS = [by_read_of_the_length, by_pieces]
"""Ask for no more than is left."""
TRUSTING = [
    by_read,
    by_read_of_more,
    by_readline,
    by_limited_readline,
    by_readlines,
    by_hinted_readlines,
    by_iteration,
    by_read1,
    by_readinto,
]
"""Leave it to the server to know where the end is."""


@pytest.mark.parametrize("reader", TRUSTING)
def test_a_body_that_is_cut_short_is_never_the_whole(reader: Callable[[Any], object]) -> None:
    events: list[Event] = []
    raised: list[TruncatedBodyError] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        for _ in range(2):
            # Reading on does not make it whole.
            with pytest.raises(TruncatedBodyError) as caught:
                reader(environ["wsgi.input"])
            raised.append(caught.value)
        start_response("400 Bad Request", HEADERS)
        return [b"no"]

    result: Any = wrap(app, events)(environ_of(b"ab\ncd", length=10), start)
    assert list(result) == [b"no"]
    result.close()
    [event] = events
    assert isinstance(event, TruncatedUpload)
    assert (event.bytes_in, event.expected_in, event.accepted) == (5, 10, False)
    assert (event.verdict.phase, event.verdict.mechanism) == (Phase.REQUEST_BODY, Mechanism.EOF)
    assert marked(raised[0]) is not None


def end_as_a_list(start_response: Any, closed: list[bool]) -> Any:
    start_response("201 Created", HEADERS)
    return [b"ok"]


def end_as_an_iterator(start_response: Any, closed: list[bool]) -> Any:
    start_response("201 Created", HEADERS)
    return iter([b"o", b"k"])


def end_by_write(start_response: Any, closed: list[bool]) -> Any:
    start_response("201 Created", HEADERS)(b"ok")
    return []


def end_with_a_close(start_response: Any, closed: list[bool]) -> Any:
    class Result:
        def __iter__(self) -> Iterator[bytes]:
            start_response("201 Created", HEADERS)
            yield b"ok"

        def close(self) -> None:
            closed.append(True)

    return Result()


@pytest.mark.parametrize("reader", COUNTERS)
@pytest.mark.parametrize("end", [end_as_a_list, end_as_an_iterator, end_by_write, end_with_a_close])
@pytest.mark.parametrize("notices", [True, False], ids=["notices", "does not"])
def test_who_counts_gets_the_end_as_it_comes(
    reader: Callable[[Any], object], end: Callable[[Any, list[bool]], Any], notices: bool
) -> None:
    """And if it has not noticed, its answer does not go out."""
    events: list[Event] = []
    closed: list[bool] = []
    sent: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        expected = reader(io.BytesIO(b"ab\ncd"))
        assert reader(environ["wsgi.input"]) == expected
        if notices:
            start_response("422 Unprocessable Content", HEADERS)
            return [b"no"]
        result: Iterable[bytes] = end(start_response, closed)
        return result

    def begin(status: str, headers: Any, exc_info: Any = None) -> Any:
        sent.append(status)
        return sent.append

    result: Any = wrap(app, events)(environ_of(b"ab\ncd", length=10), begin)
    sent += result
    result.close()
    assert sent == (["422 Unprocessable Content", b"no"] if notices else ["400 Bad Request"])
    [event] = events
    assert isinstance(event, TruncatedUpload)
    assert (event.accepted, event.status) == (False, 422 if notices else 400)
    assert closed == ([True] if end is end_with_a_close and not notices else [])


def test_a_response_that_has_begun_with_a_success_breaks_off() -> None:
    events: list[Event] = []

    def echo(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS[:1])
        for _ in range(4):
            yield environ["wsgi.input"].read(3)

    def begin(status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info is not None:
            # As a server whose head is out.
            raise exc_info[1]

    result: Any = wrap(echo, events)(environ_of(b"ab\ncd", length=10), begin)
    assert next(result) == b"ab\n"
    with pytest.raises(ConnectionError):
        next(result)
    result.close()
    [event] = events
    assert isinstance(event, TruncatedUpload)
    assert not event.accepted


@pytest.mark.parametrize("reader", [by_read, by_iteration])
def test_an_end_that_comes_in_a_finally_hides_nothing(reader: Callable[[Any], object]) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            raise LookupError("the bug")
        finally:
            reader(environ["wsgi.input"])

    events: list[Event] = []
    with pytest.raises(LookupError, match="the bug"):
        wrap(app, events)(environ_of(b"ab\ncd", length=10), start)
    assert [type(event) for event in events] == [TruncatedUpload]


READERS = [*COUNTERS, *TRUSTING]


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_body_stays_one(reader: Callable[[Any], object]) -> None:
    events: list[Event] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        expected = reader(io.BytesIO(b"ab\ncd\nefgh"))
        assert reader(environ["wsgi.input"]) == expected
        return ok(environ, start_response)

    result: Any = wrap(app, events)(environ_of(b"ab\ncd\nefgh"), start)
    assert list(result) == [b"ok"]
    result.close()
    assert events == []


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_a_length_that_is_a_number(protocol: str) -> None:
    """PEP 3333 has strings; Django's tests have this."""
    environ = environ_of(b"body")
    environ |= {"CONTENT_LENGTH": 4, "SERVER_PROTOCOL": protocol}

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        assert environ["wsgi.input"].read(environ["CONTENT_LENGTH"]) == b"body"
        return ok(environ, start_response)

    assert list(wrap(app, [])(environ, start)) == [b"ok"]


def test_a_stream_that_gives_less_than_it_was_asked_for_is_asked_again() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 2))

        def readline(self, size: int | None = -1, /) -> bytes:
            return super().readline(2)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        assert stream.readline() == b"abcde\n"
        assert stream.read(4) == b"fghi"
        return ok(environ, start_response)

    events: list[Event] = []
    environ = environ_of(length=10)
    environ["wsgi.input"] = Slow(b"abcde\nfghi")
    assert list(wrap(app, events)(environ, start)) == [b"ok"]
    assert events == []


def test_the_error_of_a_cut_body_can_be_pickled() -> None:
    error = TruncatedBodyError(5, 10)
    assert isinstance(error, ConnectionResetError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.received, again.expected, str(again)) == (5, 10, str(error))


def test_the_application_sees_what_the_stream_raised() -> None:
    raised = ConnectionResetError("the peer")

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise raised

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        with pytest.raises(ConnectionResetError) as caught:
            environ["wsgi.input"].read(4)
        assert caught.value is raised
        return ok(environ, start_response)

    environ = environ_of(b"body")
    environ["wsgi.input"] = Broken(b"body")
    list(wrap(app, [])(environ, start))


# What surrounds it.


def test_a_thread_works_for_one_request_at_a_time() -> None:
    seen: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(CURRENT.get() is not None)
        assert not client_gone()
        return ok(environ, start_response)

    for environ in (environ_of(**GET), environ_of(b"body")):
        result: Any = wrap(app, [])(environ, start)
        list(result)
        result.close()
        assert CURRENT.get() is None
    assert seen == [True, True]

    def failing(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError

    for environ in (environ_of(**GET), environ_of(b"body")):
        with pytest.raises(LookupError):
            wrap(failing, [])(environ, start)
        assert CURRENT.get() is None


@pytest.mark.parametrize("copied", [False, True])
def test_mounted_in_one_that_is_wrapped_it_is_one_exchange(copied: bool) -> None:
    events: list[Event] = []
    seen: list[Any] = []

    def cut(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(CURRENT.get())
        return [environ["wsgi.input"].read(100)]

    inner = wrap(cut, events)

    def dispatch(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(CURRENT.get())
        result: Iterable[bytes] = inner(dict(environ) if copied else environ, start_response)
        return result

    result: Any = wrap(dispatch, events)(environ_of(b"body", length=10), start)
    list(result)
    result.close()
    assert [type(event) for event in events] == [TruncatedUpload]
    assert seen[0] is seen[1]
    assert CURRENT.get() is None


@pytest.mark.parametrize("closes", [True, False])
def test_a_call_in_process_does_not_take_the_exchange_away(closes: bool) -> None:
    inner = wrap(ok, [])

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        before = CURRENT.get()
        assert before is not None
        called: Any = inner(environ_of(b"body"), start)
        assert CURRENT.get() is before
        assert list(called) == [b"ok"]
        if closes:
            called.close()
        assert CURRENT.get() is before
        return ok(environ, start_response)

    result: Any = wrap(app, [])(environ_of(**GET), start)
    list(result)
    result.close()
    assert CURRENT.get() is None


@pytest.mark.parametrize("body", [b"", b"body"])
def test_a_list_can_be_gone_through_twice(body: bytes) -> None:
    """What gevent does: it counts the bytes of a list while it sends the first piece."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("413 Too Large", HEADERS[:1])
        return [b"n", b"o"]

    events: list[Event] = []
    environ = environ_of(body, REQUEST_METHOD="POST" if body else "GET")
    result: Any = wrap(app, events)(environ, start)
    pieces = iter(result)
    sent = [next(pieces)]
    assert sum(map(len, result)) == 2
    sent += pieces
    assert sent == [b"n", b"o"]
    result.close()
    assert not [event for event in events if isinstance(event, ClientDeparted)]


def test_a_file_of_the_servers_own_stays_one() -> None:
    closed: list[bool] = []

    class File(io.BytesIO):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        result: Iterable[bytes] = environ["wsgi.file_wrapper"](File(b"ok"))
        return result

    events: list[Event] = []
    result: Any = wrap(app, events)(environ_of(**GET), start)
    assert type(result) is FileWrapper
    assert list(result) == [b"ok"]
    result.close()
    assert closed == [True]
    assert events == []


@pytest.mark.parametrize("result", [None, "text", b"bytes"])
def test_what_is_no_response_is_the_servers_to_refuse(result: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        given: Iterable[bytes] = result
        return given

    assert wrap(app, [])(environ_of(**GET), start) is result
    assert CURRENT.get() is None


def test_an_error_leaves_nothing_to_the_cyclic_collector() -> None:
    def truncated(environ: Any, start_response: Any) -> Iterable[bytes]:
        return [environ["wsgi.input"].read(100)]

    def refused(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS[:1])
        yield b"one"
        raise ConnectionResetError("an upstream")

    def closed_early(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS[:1])
        return [b"one", b"two"]

    def file(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        result: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"ok"))
        return result

    for inner in (truncated, refused, late, closed_early, file):
        app = CleanCloseMiddleware(inner, outlets=[])
        for environ in (environ_of(**GET), environ_of(b"body", length=100)):

            def one(app: Any = app, environ: Any = environ) -> None:
                with contextlib.suppress(LookupError, ConnectionResetError):
                    result = app(dict(environ, **{"wsgi.input": io.BytesIO(b"body")}), start)
                    try:
                        for _ in result:
                            pass
                    finally:
                        if hasattr(result, "close"):
                            result.close()

            one()
            gc.collect()
            # What other tests left may have been brought back by its __del__.
            gc.collect()
            gc.disable()
            try:
                one()
                assert gc.collect() == 0, inner.__name__
            finally:
                gc.enable()
