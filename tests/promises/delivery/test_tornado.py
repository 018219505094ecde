"""What is tornado's own: its body limit, its handlers, its connection. On a real HTTPServer."""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import time
from collections.abc import Generator
from typing import Any, ClassVar

import pytest
from tornado import httputil, iostream, routing, web

from cleanclose.core import Cap, Event, Outcome
from cleanclose.doctor.clients import Upload, http_client, strict
from cleanclose.doctor.wire import read_transcript
from cleanclose.tornado import install, skip
from tests.harness.leavers import until_read
from tests.harness.tornado_serving import LIMIT, MIB, Running, serving, the_event
from tests.harness.waiting import until


@web.stream_request_body
class InPrepare(web.RequestHandler):
    def prepare(self) -> None:
        self.set_status(413)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None:
        raise AssertionError("the handler has answered")


@web.stream_request_body
class InDataReceived(web.RequestHandler):
    closed = 0

    def data_received(self, chunk: bytes) -> None:
        self.set_status(401)
        self.finish("no")

    def post(self) -> None:
        raise AssertionError("the handler has answered")

    def on_connection_close(self) -> None:
        type(self).closed += 1
        super().on_connection_close()


@web.stream_request_body
class FailsBehindItsAnswer(web.RequestHandler):
    """Tornado closes the connection for it, while the client is still uploading."""

    async def data_received(self, chunk: bytes) -> None:
        self.set_status(413)
        answered = self.finish("no")
        if self.request.path == "/fails-later":
            await answered
        raise LookupError("a fault of the handler's")


@web.stream_request_body
class Raises(web.RequestHandler):
    def prepare(self) -> None:
        raise web.HTTPError(409)

    def data_received(self, chunk: bytes) -> None: ...


@web.stream_request_body
class RaisesTheLimit(web.RequestHandler):
    size = 0

    def prepare(self) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(100 * MIB)

    def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def post(self) -> None:
        self.finish(str(self.size))


@web.stream_request_body
class Flushes(web.RequestHandler):
    """Streams its response while it reads: nothing of it may be held up."""

    size = 0

    async def prepare(self) -> None:
        self.write("begin ")
        await self.flush()

    async def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def post(self) -> None:
        self.finish(str(self.size))


@web.stream_request_body
class OptsOut(web.RequestHandler):
    def prepare(self) -> None:
        skip(self)
        self.set_status(413)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None: ...


@web.stream_request_body
class WrongLength(web.RequestHandler):
    raised: ClassVar[list[str]] = []

    def prepare(self) -> None:
        self.set_header("Content-Length", "10")
        try:
            self.finish("four")
        except httputil.HTTPOutputError as error:
            self.raised.append(type(error).__name__)

    def data_received(self, chunk: bytes) -> None: ...


class Buffered(web.RequestHandler):
    def get(self) -> None:
        self.finish("got")

    def post(self) -> None:
        self.finish(str(len(self.request.body)))


def say_nothing(handler: web.RequestHandler) -> None: ...


def application() -> web.Application:
    return web.Application(
        [
            ("/prepare", InPrepare),
            ("/data", InDataReceived),
            ("/fails-.*", FailsBehindItsAnswer),
            ("/raises", Raises),
            ("/raises-limit", RaisesTheLimit),
            ("/flushes", Flushes),
            ("/opts-out", OptsOut),
            ("/wrong-length", WrongLength),
            ("/", Buffered),
        ],
        log_function=say_nothing,
    )


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def server(events: list[Event]) -> Generator[Running]:
    with serving(install(application(), outlets=[events.append])) as running:
        yield running


@pytest.fixture(scope="module")
def bare() -> Generator[Running]:
    with serving(application()) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "status", "chunked"),
    [
        ("/prepare", 413, False),
        ("/prepare", 413, True),
        ("/raises", 409, False),
        ("/raises", 409, True),
        # Over the limit by its length: the handler is never asked. By its chunks: it is.
        ("/data", 413, False),
        ("/data", 401, True),
        ("/", 413, False),
        ("/", 413, True),
        ("/nowhere", 413, False),
        ("/nowhere", 413, True),
    ],
)
def test_early_answers_arrive(
    server: Running, bare: Running, events: list[Event], path: str, status: int, chunked: bool
) -> None:
    assert bare.post(path, chunked=chunked).status != status, "the control"
    seen = server.post(path, chunked=chunked)
    assert seen.response is not None, seen
    assert (seen.status, seen.response.complete, seen.transcript.stray) == (status, True, b"")
    event = the_event(events)
    assert (event.outcome, event.status) == (Outcome.DELIVERED, status)


@pytest.mark.parametrize("path", ["/fails-at-once", "/fails-later"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_arrives_whose_handler_fails_behind_it(
    events: list[Event], path: str, chunked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(application(), max_body_size=64 * MIB) as running:
        assert running.post(path, chunked=chunked).status is None, "the control"
    installed = install(application(), outlets=[events.append])
    caplog.clear()
    with serving(installed, max_body_size=64 * MIB) as running:
        seen = running.post(path, chunked=chunked)
        event = the_event(events)
    assert seen.response is not None, seen
    assert (seen.status, seen.response.body, seen.transcript.stray) == (413, b"no", b"")
    assert (event.outcome, event.status) == (Outcome.DELIVERED, 413)
    # The handler's fault is as loud as bare.
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "Uncaught exception" in record.getMessage()


def test_over_the_limit_is_a_real_413_even_for_a_form(server: Running) -> None:
    """A buffering error handler would try to parse the form, and answer 400."""
    headers = (("Content-Type", "multipart/form-data; boundary=x"),)
    response = server.post("/", headers=headers).response
    assert response is not None
    assert response.status == 413
    assert int(response.header("Content-Length") or 0) == len(response.body) > 0


def test_at_and_above_the_limit(server: Running) -> None:
    for chunked in (False, True):
        at = server.post("/", LIMIT, chunked=chunked).response
        assert at is not None
        assert at.body == str(LIMIT).encode()
        assert server.post("/", LIMIT + 1, chunked=chunked).status == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_a_handler_may_raise_the_limit(server: Running, chunked: bool) -> None:
    response = server.post("/raises-limit", chunked=chunked).response
    assert response is not None
    assert response.body == str(8 * MIB).encode()


def test_a_response_that_streams_while_it_reads(server: Running) -> None:
    response = server.post("/flushes", LIMIT, chunked=True).response
    assert response is not None
    assert response.body == f"begin {LIMIT}".encode()


def test_an_upload_over_the_limit_behind_a_begun_response_ends_as_without_us(
    server: Running,
) -> None:
    seen = server.post("/flushes", chunked=True)
    assert seen.response is None or not seen.response.complete
    assert server.post("/", 10).status == 200


@pytest.mark.parametrize("path", ["/prepare", "/data", "/"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_connection_is_used_again(server: Running, path: str, chunked: bool) -> None:
    # A little more than the limit. Of a direct client's chunks only what has arrived is read.
    headers = (("Via", "1.1 proxy"),) if chunked else ()
    seen = server.post(
        path,
        2 * LIMIT,
        chunked=chunked,
        headers=headers,
        follow_up="after",
        follow_up_path="/",
    )
    assert seen.second is not None, seen
    assert (seen.second.status, seen.second.body) == (200, b"got")


def test_a_handler_that_answered_in_data_received_does_not_stay(server: Running) -> None:
    """Its coroutine waits for the rest of the body: it must be told that none will come."""
    InDataReceived.closed = 0
    for chunked in (False, True):
        server.post("/data", chunked=chunked)
    until(lambda: not server.pending())
    assert server.pending() == 0
    assert InDataReceived.closed == 2


@pytest.mark.parametrize("path", ["/prepare", "/", "/raises"])
@pytest.mark.parametrize("expect", ["patient", "impatient"])
def test_expect_is_never_followed_by_a_stray_100(server: Running, path: str, expect: str) -> None:
    seen = server.post(path, expect=expect)
    assert seen.response is not None, seen
    assert seen.response.complete
    assert not seen.transcript.informational
    assert seen.transcript.stray == b""
    assert (seen.response.header("Connection") or "").lower() == "close"


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_chunk_without_sense_gets_no_second_answer(
    server: Running, events: list[Event], pause: float
) -> None:
    """While the response is kept back, and behind it: tornado's own way is a bare 400."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(30)
        client.sendall(
            b"POST /prepare HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
        )
        time.sleep(2 * pause)
        client.sendall(b"no chunk\r\n")
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                received += data
    transcript = read_transcript(received)
    assert [response.status for response in transcript.responses] == [413]
    assert transcript.stray == b""
    event = the_event(events)
    # Behind its answer a connection has no framing any more.
    assert (event.outcome, event.cap) == (Outcome.DELIVERED, None)


def test_a_client_that_half_closes_gets_its_answer(server: Running) -> None:
    """Tornado closes at the end of the stream, with the answer still kept back."""
    seen = server.post("/prepare", abort_after=MIB, abort_how="half_close")
    assert seen.status == 413


def test_closing_all_connections_does_not_wait_for_a_turn() -> None:
    app = install(application(), max_draining=1)
    with serving(app) as running:
        clients: list[socket.socket] = []
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", running.port))
            client.sendall(
                b"POST /prepare HTTP/1.1\r\nHost: x\r\nVia: 1.1 proxy\r\n"
                b"Content-Length: 999999\r\n\r\n"
            )
            client.sendall(b"x" * 900_000)
            until_read(client)
            clients.append(client)
        started = time.monotonic()
    # The limits are 5 seconds without a byte, and 30 of draining.
    assert time.monotonic() - started < 4
    for client in clients:
        client.settimeout(30)
        assert client.recv(12) == b"HTTP/1.1 413"
        client.close()


def test_a_handlers_wrong_length_is_its_own_error(server: Running) -> None:
    seen = server.post("/wrong-length", 1000)
    assert seen.response is None or not seen.response.complete
    # The connection is closed before the handler has its exception.
    until(lambda: WrongLength.raised)
    assert WrongLength.raised == ["HTTPOutputError"]


def test_a_handler_that_was_refused_cannot_answer_too(events: list[Event]) -> None:
    """It was told that the connection is closed, and that is what it finds."""
    late: list[BaseException | None] = []

    @web.stream_request_body
    class Late(web.RequestHandler):
        def data_received(self, chunk: bytes) -> None: ...

        def on_connection_close(self) -> None:
            super().on_connection_close()
            asyncio.get_running_loop().call_soon(self.answer)

        def answer(self) -> None:
            self.write("late answer")
            late.append(self.flush().exception())
            self.finish()

    app = install(
        web.Application([("/late", Late), ("/", Buffered)], log_function=say_nothing),
        outlets=[events.append],
    )
    with serving(app) as running:
        for chunked in (True, False):
            seen = running.post(
                "/late",
                2 * LIMIT,
                chunked=chunked,
                headers=(("Via", "1.1 proxy"),),
                follow_up="after",
                follow_up_path="/",
            )
            assert [response.status for response in seen.transcript.responses] == [413, 200]
            assert seen.transcript.stray == b""
    assert len(late) == 2
    assert all(isinstance(error, iostream.StreamClosedError) for error in late)


def test_expect_of_an_upload_that_is_wanted_is_answered(server: Running) -> None:
    seen = server.post("/", LIMIT, expect="patient")
    assert seen.status == 200
    assert [response.status for response in seen.transcript.informational] == [100]


def test_the_opt_out(server: Running, events: list[Event]) -> None:
    assert server.post("/opts-out").status is None
    assert events == []


def test_what_the_application_sees_of_a_normal_request_is_the_same(
    server: Running, bare: Running, events: list[Event]
) -> None:
    for upload in ({"size": 1000}, {"size": 1000, "chunked": True}, {"size": 0}):
        options: Any = upload
        one, other = server.post("/", **options), bare.post("/", **options)
        assert one.response is not None
        assert other.response is not None
        assert one.response.body == other.response.body
        assert {name for name, _ in one.response.headers} == {
            name for name, _ in other.response.headers
        }
    assert events == []


def test_before_listen_after_listen_and_again() -> None:
    events: list[Event] = []
    app = application()
    with serving(app) as running:
        assert running.post("/prepare").status is None
        assert install(app, outlets=[events.append], max_bytes=MIB) is app
        assert install(app, outlets=[events.append]) is app
        assert running.post("/prepare").status == 413
    # The last call's settings are in force, and there is one of us only.
    assert the_event(events).cap is None


def test_a_router_that_is_no_application(events: list[Event]) -> None:
    router = routing.RuleRouter([routing.Rule(routing.PathMatches("/.*"), application())])
    with serving(install(router, outlets=[events.append])) as running:
        assert running.post("/prepare").status == 413
        response = running.post("/").response
        assert response is not None
        # The phrase was Python's until 3.12, and is that of RFC 9110 from 3.13 on.
        assert response.body in (b"413: Request Entity Too Large\n", b"413: Content Too Large\n")


def test_behind_a_proxy(events: list[Event]) -> None:
    """``xheaders``: tornado's own delegate stands around ours."""
    app = install(application(), outlets=[events.append])
    with serving(app, xheaders=True) as running:
        assert running.post("/prepare", headers=(("X-Real-Ip", "192.0.2.7"),)).status == 413
    assert the_event(events).facts.client == "192.0.2.7"


def test_compressed_uploads(events: list[Event]) -> None:
    app = install(application(), outlets=[events.append])
    with serving(app, decompress_request=True) as running:
        assert running.post("/prepare").status == 413


def test_http_client(server: Running, bare: Running) -> None:
    upload: Any = {"path": "/prepare", "body_size": 8 * MIB}
    assert http_client(Upload(port=bare.port, **upload)).status is None
    assert http_client(Upload(port=server.port, **upload)).status == 413


def test_a_client_that_stalls_is_let_go() -> None:
    events: list[Event] = []
    app = install(application(), outlets=[events.append], idle_seconds=0.2, hold_seconds=0.1)
    with serving(app) as running:
        seen = running.post("/prepare", abort_after=MIB, abort_how="stall")
        assert seen.closed_by in ("fin", "reset"), seen
    event = the_event(events)
    if sys.platform == "linux":
        assert (event.outcome, event.cap, event.unacked) == (Outcome.DELIVERED, None, 0)
    else:
        assert (event.outcome, event.cap) == (Outcome.CUT, Cap.IDLE_SECONDS)


@pytest.mark.parametrize(
    "upload",
    [
        {"method": "GET"},
        {"path": "/prepare", "body_size": 1000},
        {"path": "/prepare", "body_size": 8 * MIB},
    ],
    ids=["get", "drained", "lingers"],
)
def test_a_request_leaves_nothing_to_the_cyclic_collector(
    server: Running, bare: Running, upload: Any
) -> None:
    def garbage(running: Running) -> int:
        for _ in range(3):
            strict(Upload(port=running.port, **upload))
        running.call(gc.collect)
        running.call(gc.disable)
        strict(Upload(port=running.port, **upload))
        found = int(running.call(gc.collect))
        running.call(gc.enable)
        return found

    assert garbage(server) <= garbage(bare)


def test_what_is_not_there_is_not_there() -> None:
    """The connection that a handler has is tornado's, attribute by attribute."""

    class Looks(web.RequestHandler):
        def post(self) -> None:
            connection: Any = self.request.connection
            assert isinstance(self.request.connection, httputil.HTTPConnection)
            assert connection.stream is not None
            assert connection.params.max_body_size == LIMIT
            assert not hasattr(connection, "nothing_of_the_kind")
            self.finish("ok")

    app = install(web.Application([("/", Looks)], log_function=say_nothing))
    with serving(app) as running:
        assert running.post("/", 10).status == 200
