"""Early answers of every size from a Tornado handler, whenever it gives them. Nobody waits."""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tornado import httputil, web, wsgi

from cleanclose.core import Event
from cleanclose.tornado import install
from tests.harness.leavers import leave_at, request
from tests.harness.tls import Certificate, certificate, tls_upload
from tests.harness.tornado_serving import MIB, Running, serving, the_event
from tests.harness.waiting import until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NO_LIMIT = 1 << 40
SIZES = (10, MIB, 8 * MIB)


class Answers(web.RequestHandler):
    def answer(self) -> asyncio.Future[None]:
        self.set_status(413)
        return self.finish(b"x" * int(self.get_argument("size", "10")))


@web.stream_request_body
class InPrepare(Answers):
    def prepare(self) -> None:
        self.answer()

    def data_received(self, chunk: bytes) -> None: ...


@web.stream_request_body
class InACoroutine(Answers):
    async def prepare(self) -> None:
        await asyncio.sleep(0)
        await self.answer()

    def data_received(self, chunk: bytes) -> None: ...


@web.stream_request_body
class InDataReceived(Answers):
    def data_received(self, chunk: bytes) -> None:
        self.answer()


@web.stream_request_body
class InATask(Answers):
    """Answers while Tornado is reading, which it cannot be kept from."""

    def data_received(self, chunk: bytes) -> None:
        if not hasattr(self, "task"):
            self.task = asyncio.ensure_future(self.later())

    async def later(self) -> None:
        await self.answer()


@web.stream_request_body
class BadHead(web.RequestHandler):
    def prepare(self) -> None:
        connection: Any = self.request.connection
        with pytest.raises(ValueError, match="CR or LF"):
            connection.write_headers(
                httputil.ResponseStartLine("HTTP/1.1", 200, "one\r\ntwo"), httputil.HTTPHeaders()
            )
        connection.finish()

    def data_received(self, chunk: bytes) -> None: ...


def say_nothing(handler: web.RequestHandler) -> None: ...


def application() -> web.Application:
    return web.Application(
        [
            ("/prepare", InPrepare),
            ("/coroutine", InACoroutine),
            ("/data", InDataReceived),
            ("/task", InATask),
            ("/bad-head", BadHead),
        ],
        log_function=say_nothing,
    )


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def server(events: list[Event]) -> Generator[Running]:
    app = install(application(), outlets=[events.append])
    with serving(app, max_body_size=NO_LIMIT) as running:
        yield running


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/prepare", "/coroutine", "/data", "/task"])
def test_a_client_that_writes_first_gets_all_of_it(
    server: Running, path: str, size: int, chunked: bool
) -> None:
    seen = server.post(f"{path}?size={size}", 64 * MIB, chunked=chunked)
    assert seen.response is not None, seen
    assert (seen.status, len(seen.response.body)) == (413, size)
    assert seen.transcript.clean, seen


def test_who_leaves_in_an_early_answer_is_one_event(events: list[Event]) -> None:
    app = install(application(), outlets=[events.append])
    with serving(app, max_body_size=NO_LIMIT) as running:
        head = request("POST", f"/prepare?size={8 * MIB}", length=64 * MIB)
        # More than tornado can have written by then.
        leave_at(running.port, head, "rst", body=bytes(100_000), read=1)
        until(lambda: events, "no event")
        until(lambda: running.pending() == 0, "the connection is still open")
    assert [each.name for each in events] == ["upload_drained"]


@pytest.mark.negative_control
@pytest.mark.parametrize("size", [10, MIB])
def test_without_the_middleware_it_is_lost(size: int) -> None:
    with serving(application(), max_body_size=NO_LIMIT) as bare:
        assert bare.post(f"/prepare?size={size}", 64 * MIB).status is None


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("certificate")
    return certificate(folder)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/prepare", "/task"])
def test_the_same_through_tls(signed: Certificate, path: str, size: int) -> None:
    """What the lingerer takes out of the connection must not be missing from a TLS record."""
    options = {"certfile": str(signed.chain), "keyfile": str(signed.key)}
    app = install(application(), outlets=[])
    with serving(app, max_body_size=NO_LIMIT, ssl_options=options) as running:
        seen = tls_upload(running.port, signed, f"{path}?size={size}", 64 * MIB, close=False)
    assert seen.body is not None
    assert (seen.status, len(seen.body)) == (413, size)


def upload(port: int, path: str, *headers: str) -> socket.socket:
    """The beginning of an upload that goes no further."""
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(30)
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {NO_LIMIT}", *headers)
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(100_000))
    return client


@pytest.mark.parametrize("path", ["/prepare", "/coroutine", "/data", "/task"])
def test_no_task_stays_with_a_client_that_stalls(
    server: Running, events: list[Event], path: str
) -> None:
    with upload(server.port, path) as client:
        while client.recv(65536):
            pass
        until(lambda: server.pending() == 0, "a task is left")
        assert events == [], "the connection lingers, and nobody in the loop knows of it"
    the_event(events)


def taken_of(port: int, path: str) -> int:
    """How much of an upload a server takes whose answer nobody reads."""
    sent = 0
    with upload(port, f"{path}?size={16 * MIB}") as client, contextlib.suppress(TimeoutError):
        client.settimeout(1)
        while sent < 128 * MIB:
            sent += client.send(bytes(MIB))
    return sent


@pytest.mark.parametrize("path", ["/prepare", "/data"])
def test_an_answer_that_nobody_reads_does_not_make_tornado_read_for_ever(path: str) -> None:
    app = install(application(), outlets=[], max_bytes=4 * MIB)
    with serving(app, max_body_size=NO_LIMIT) as running:
        assert taken_of(running.port, path) < 64 * MIB


@pytest.mark.negative_control
def test_without_the_middleware_it_does() -> None:
    with serving(application(), max_body_size=NO_LIMIT) as bare:
        assert taken_of(bare.port, "/prepare") >= 128 * MIB


def test_a_wall_clock_that_is_set_back_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    app = install(application(), outlets=[events.append], respond_after=0.2)
    wall = time.time
    with serving(app, max_body_size=NO_LIMIT) as running, upload(running.port, "/data") as client:
        until(lambda: running.pending() > 0, "no request")
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)
        assert client.recv(12) == b"HTTP/1.1 413"


def test_what_a_bad_head_raises_is_raised_where_it_was_sent(server: Running) -> None:
    assert server.post("/bad-head", 1000).response is None


def test_the_phrase_does_not_depend_on_pythons_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 has "Content Too Large"."""
    monkeypatch.setitem(http.client.responses, 413, "Something Else")
    with serving(install(application(), outlets=[])) as running:
        response = running.post("/nowhere", MIB).response
    assert response is not None
    assert (response.status, response.reason) == (413, "Request Entity Too Large")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_wsgi_container(events: list[Event]) -> None:
    """HTTPServer takes any callable, which has nothing to install into."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % len(environ["wsgi.input"].read())]

    with serving(install(wsgi.WSGIContainer(app), outlets=[events.append])) as running:
        response = running.post("/", 1000).response
        assert response is not None
        assert (response.status, response.body) == (200, b"1000")
        assert running.post("/").status == 413
        the_event(events)


PIPELINED: Final = {
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000,
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n",
    # It is drained, and the connection ends all the same.
    "drained": b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.7\r\n"
    b"Content-Length: 5000\r\n\r\n" + b"x" * 5000,
}
"""Uploads that Tornado reads in one piece with the request behind them."""


def pipelined(framing: str, *, streams: bool, wrapped: bool) -> tuple[bytes, list[str]]:
    """What a client gets that sends another request behind a refused upload, and what is run."""
    run: list[str] = []

    @web.stream_request_body
    class Handler(web.RequestHandler):
        async def prepare(self) -> None:
            run.append(str(self.request.method))
            if self.request.method == "POST":
                self.set_status(413)
                if streams:
                    self.write("first")
                    await self.flush()
                self.finish()

        def data_received(self, chunk: bytes) -> None: ...

        def get(self) -> None:
            self.finish("second")

    app = web.Application([("/", Handler)])
    if wrapped:
        install(app, outlets=[], respond_after=None if framing == "drained" else 0.0)
    with (
        serving(app) as running,
        socket.create_connection(("127.0.0.1", running.port), 30) as client,
    ):
        client.sendall(PIPELINED[framing] + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                got += data
        client.close()
        until(lambda: running.pending() == 0, "the connection's task goes on")
    return got, run


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("framing", PIPELINED)
def test_no_request_is_run_behind_an_answer_that_ends_the_connection(
    framing: str, streams: bool
) -> None:
    """Tornado goes on in what it has read before it closed the stream."""
    got, run = pipelined(framing, streams=streams, wrapped=True)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"second" not in got
    assert run == ["POST"]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("framing", PIPELINED)
@pytest.mark.negative_control
def test_without_the_middleware_it_is_run_and_answered_to_nobody(
    framing: str, streams: bool
) -> None:
    got, run = pipelined(framing, streams=streams, wrapped=False)
    assert b"second" not in got
    assert run == ["POST", "GET"]
