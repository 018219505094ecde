"""What Tornado and the shim say when a client leaves, and when an upstream does. Real servers."""

from __future__ import annotations

import json
import socket
import sys
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest
import tornado

from tests.harness.hiding import ASYNC_HIDES
from tests.harness.leavers import How, connected, leave, request, until_read
from tests.harness.processes import ServerProcess, stopped
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.tap import PATH_VARIABLE, noted, read_tap
from tests.harness.waiting import until

NOISE: Final = Stack(
    name="tornado-noise",
    interface="tornado",
    command=(sys.executable, "-m", "tests.harness.apps.noise_tornado", "{port}"),
    loses="always",
)
PATIENCE: Final = 10.0
WARNING: Final = 30
MIB: Final = 1 << 20
LOGS_CALLBACKS: Final = tornado.version_info >= (6, 6)
"""Whether Tornado logs what an asynchronous callback of a websocket raises as the handler's error.

Earlier it is the loop's, and a StreamClosedError among them is taken for the client's.
"""

UPGRADE: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)

Said = tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]


class Observed:
    """A server, and what it has said since the test began."""

    def __init__(self, server: ServerProcess, path: Path) -> None:
        self.port = server.port
        self._pid = server.pid
        self._path = path
        self._before = tuple(map(len, read_tap(path)))

    def said(self) -> Said:
        """Records at WARNING and above, and events."""
        records, events = read_tap(self._path)
        new: list[Mapping[str, Any]] = [
            {**record, "message": record["message"].partition(" (127.0.0.1)")[0]}
            for record in records[self._before[0] :]
            # A status of 500 is a line in the access log at ERROR.
            if record["level"] >= WARNING and record["logger"] != "tornado.access"
        ]
        # All departures of a file may make a surge of their own, which is another promise.
        one_exchange = [
            event for event in events[self._before[1] :] if event["event"] != "departure_surge"
        ]
        return new, one_exchange

    def settled(self) -> Said:
        """The same, when everything has been said."""
        assert self.get("/settle").endswith(b"settled")
        return self.said()

    def event(self) -> Mapping[str, Any]:
        """The one event; and there is no record at all."""
        self.until(lambda: bool(self.said()[1]))
        records, events = self.settled()
        assert records == []
        (event,) = events
        return event

    def get(self, path: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The whole response to a GET on a connection of its own."""
        with connected(self.port) as sock:
            sock.sendall(request("GET", path, headers=(*headers, ("Connection", "close"))))
            return read_all(sock)

    def seen(self) -> dict[str, Any]:
        """What the app has taken note of."""
        found: dict[str, Any] = json.loads(self.get("/seen").partition(b"\r\n\r\n")[2])
        return found

    def stopped(self) -> AbstractContextManager[None]:
        """The server's process runs on when what is inside has happened."""
        return stopped(self._pid)

    def until_waiting(self, path: str) -> None:
        """Until a handler waits for its client to leave."""
        self.until(lambda: self.seen().get("waiting") == path)

    def noted(self, what: str, who: str) -> bool:
        """Whether a handler has noted this."""
        return noted(self._path, what, who)

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        until(condition)


def read_all(sock: socket.socket) -> bytes:
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.fixture(scope="session")
def taps(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """One file for each of the two servers, which live as long as the session."""
    folder = tmp_path_factory.mktemp("tornado")
    return {wrapped: folder / f"{wrapped}.jsonl" for wrapped in (False, True)}


@pytest.fixture
def app(serve: Serve, taps: dict[bool, Path]) -> Observed:
    server = serve(NOISE, env={PATH_VARIABLE: str(taps[True])})
    return Observed(server, taps[True])


@pytest.fixture
def bare(serve: Serve, taps: dict[bool, Path]) -> Observed:
    server = serve(NOISE, wrapped=False, env={PATH_VARIABLE: str(taps[False])})
    return Observed(server, taps[False])


# Clients.


def cut_upload(at: Observed, path: str, how: How, *, sent: int = 5) -> None:
    with connected(at.port) as sock:
        sock.sendall(request("POST", path, length=1000) + b"x" * sent)
        until_read(sock)
        leave(sock, how)


def leave_the_handler(at: Observed, path: str, how: How, method: str = "GET") -> None:
    with connected(at.port) as sock:
        length = 4 if method == "POST" else None
        body = b"body" if method == "POST" else b""
        headers = (("Idempotency-Key", "k1"), ("X-Request-ID", "r1"))
        sock.sendall(request(method, path, length=length, headers=headers) + body)
        at.until_waiting(path.partition("?")[0])
        leave(sock, how)


def leave_the_response(at: Observed, path: str, how: How, *, read: int = 200) -> None:
    with connected(at.port) as sock:
        sock.sendall(request("GET", path))
        while read > 0:
            read -= len(sock.recv(min(read, 65536)))
        leave(sock, how)


class WebSocketClient:
    """A websocket by hand: it may leave without a word."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.sendall(request("GET", path, headers=UPGRADE))

    def shake_hands(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")

    def send(self, opcode: int, payload: bytes) -> None:
        # Masked, as a client's frames are, with zeroes (RFC 6455, section 5.3).
        self.sock.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload)

    def receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            data = self.sock.recv(size - len(received))
            assert data
            received += data
        return received


@pytest.fixture
def websocket() -> Generator[Callable[[Observed, str], WebSocketClient]]:
    clients: list[WebSocketClient] = []

    def connect(at: Observed, path: str) -> WebSocketClient:
        client = WebSocketClient(at.port, path)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.sock.close()


HOW: Final = ("rst", "fin")
MECHANISM: Final = {"rst": "reset", "fin": "eof"}


# Departures.


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/buffered", "/reads"])
def test_a_cut_upload(app: Observed, path: str, how: How) -> None:
    cut_upload(app, path, how)
    event = app.event()
    assert event["event"] == "client_departed"
    assert (event["phase"], event["side"]) == ("request_body", "client")
    assert event["mechanism"] == MECHANISM[how]
    assert event["witnesses"] == "iostream"
    assert (event["method"], event["bytes_in"], event["expected_in"]) == ("POST", 5, 1000)
    assert "status" not in event


@pytest.mark.parametrize("how", HOW)
def test_an_upload_cut_while_its_handler_writes(app: Observed, how: How) -> None:
    with connected(app.port) as sock:
        sock.sendall(request("POST", "/echoes", length=1000) + b"some")
        assert sock.recv(10)
        leave(sock, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")
    assert (event["bytes_in"], event["expected_in"]) == (4, 1000)


@pytest.mark.parametrize("how", HOW)
def test_an_upload_cut_behind_an_early_response(app: Observed, how: How) -> None:
    """One departure, one event: that of the delivery."""
    with connected(app.port) as sock:
        sock.sendall(request("POST", "/refuses", length=MIB) + b"x" * 1000)
        assert sock.recv(12) == b"HTTP/1.1 413"
        leave(sock, how)
    event = app.event()
    assert (event["event"], event["status"]) == ("upload_drained", 413)


@pytest.mark.parametrize("how", HOW)
def test_half_a_head_is_no_exchange(app: Observed, how: How) -> None:
    with connected(app.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: te")
        until_read(sock)
        leave(sock, how)
    assert app.settled() == ([], [])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/waits", "/returns"])
def test_leaving_while_the_handler_works(app: Observed, path: str, how: How) -> None:
    leave_the_handler(app, path, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "handler")
    assert event["mechanism"] == MECHANISM[how]
    assert event["bytes_out"] == 0
    # To the millisecond.
    assert event["wasted_seconds"] >= 0
    assert event["request_id"] == "r1"
    assert "status" not in event


def leave_behind_the_head(at: Observed, path: str, how: How, *, again: bool) -> None:
    """Head and departure reach the server in one turn of its loop: its process is stopped."""
    with connected(at.port) as sock:
        if again:
            sock.sendall(request("GET", "/settle"))
            received = b""
            while not received.endswith(b"settled"):
                received += sock.recv(4096)
        with at.stopped():
            sock.sendall(request("GET", path, headers=(("X-Request-ID", "r1"),)))
            leave(sock, how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/waits", "/returns"])
@pytest.mark.parametrize("again", [False, True], ids=["first request", "second request"])
def test_leaving_right_behind_the_head(app: Observed, path: str, how: How, again: bool) -> None:
    """Tornado has read the end, and closed the stream, before it serves the head."""
    leave_behind_the_head(app, path, how, again=again)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "handler")
    assert (event["mechanism"], event["request_id"]) == (MECHANISM[how], "r1")


@pytest.mark.parametrize("how", HOW)
def test_leaving_before_an_unsafe_request_is_answered(app: Observed, how: How) -> None:
    leave_the_handler(app, "/waits", how, "POST")
    event = app.event()
    assert (event["event"], event["phase"]) == ("response_undelivered", "handler")
    assert (event["status"], event["idempotency_key"]) == (200, "k1")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/streams", "/streams-big", "/catches"])
def test_leaving_while_the_response_streams(app: Observed, path: str, how: How) -> None:
    leave_the_response(app, path, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")
    assert event["status"] == 200
    assert event["bytes_out"] > 0
    if path == "/catches":
        assert app.seen()["caught"] == "StreamClosedError"


@pytest.mark.parametrize("how", HOW)
def test_leaving_while_a_finished_response_is_sent(app: Observed, how: How) -> None:
    leave_the_response(app, "/whole", how, read=MIB)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")
    assert event["bytes_out"] == 64 * MIB


def leave_behind_the_length(at: Observed, method: str, query: str, how: How, body: bytes) -> None:
    """Read all that the head has promised, and leave while the handler still works."""
    with connected(at.port) as sock:
        sock.sendall(request(method, f"/lingers{query}"))
        received = b""
        while not received.endswith(b"\r\n\r\n" + body):
            received += sock.recv(1000)
        at.until_waiting("/lingers")
        leave(sock, how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("GET", "", b"hello"), ("HEAD", "", b""), ("GET", "?status=204", b"")],
    ids=["length", "head", "204"],
)
def test_a_response_that_has_reached_its_length_is_complete(
    app: Observed, method: str, query: str, body: bytes, how: How
) -> None:
    leave_behind_the_length(app, method, query, how, body)
    app.until(lambda: app.seen().get("waiting") is None)
    assert app.settled() == ([], [])


@pytest.mark.parametrize("how", HOW)
def test_a_response_that_has_not_reached_its_length_is_not(
    app: Observed, serve: Serve, how: How
) -> None:
    serve.allow_tracebacks()
    leave_behind_the_length(app, "GET", "?size=4", how, b"hell")
    app.until(lambda: bool(app.said()[1]))
    (event,) = app.settled()[1]
    assert (event["event"], event["phase"]) == ("client_departed", "response_body")


@pytest.mark.parametrize("how", HOW)
def test_a_connection_that_is_idle(app: Observed, how: How) -> None:
    with connected(app.port) as sock:
        for method in ("GET", "POST"):
            length = 2 if method == "POST" else None
            sock.sendall(request(method, "/", length=length) + b"xx"[: length or 0])
            received = b""
            while not received.endswith(b"\r\n\r\nok"):
                received += sock.recv(1000)
        leave(sock, how)
    assert app.settled() == ([], [])


@pytest.mark.parametrize("path", ["/stays", "/"])
def test_a_client_that_stays(app: Observed, path: str) -> None:
    assert app.get(path).startswith(b"HTTP/1.1 200")
    assert app.settled() == ([], [])


def test_each_request_of_a_connection_for_itself(app: Observed) -> None:
    """The second one's departure is the second one's, and its handler is told of that."""
    with connected(app.port) as sock:
        sock.sendall(request("POST", "/", length=2) + b"xx")
        received = b""
        while not received.endswith(b"\r\n\r\nok"):
            received += sock.recv(1000)
        sock.sendall(request("GET", "/waits", headers=(("X-Request-ID", "second"),)))
        app.until_waiting("/waits")
        leave(sock, "rst")
    event = app.event()
    assert (event["method"], event["phase"]) == ("GET", "handler")
    assert event["request_id"] == "second"
    assert app.seen()["heard"] == [True, "second"]


@pytest.mark.parametrize("path", ["/gone-async", "/gone-sync"])
@pytest.mark.parametrize("how", HOW)
def test_a_handler_may_ask(app: Observed, path: str, how: How) -> None:
    with connected(app.port) as sock:
        who = uuid.uuid4().hex
        sock.sendall(request("GET", path, headers=(("X-Request-ID", who),)))
        app.until(lambda: app.noted("asked", who))
        leave(sock, how)
    app.until(lambda: bool(app.said()[1]))
    assert app.seen()["gone"] == [False, True]
    event = app.event()
    assert (event["phase"], event["mechanism"]) == ("handler", MECHANISM[how])


def test_a_handler_may_ask_while_the_client_is_there(app: Observed) -> None:
    assert app.get("/stays").endswith(b"False")


def test_logs_may_stay_as_they_are(serve: Serve, tmp_path: Path) -> None:
    serve.allow_tracebacks()
    path = tmp_path / "tap"
    server = serve(NOISE, env={PATH_VARIABLE: str(path)}, settings={"quiet_logs": False})
    at = Observed(server, path)
    leave_the_handler(at, "/waits", "rst")
    at.until(lambda: bool(at.said()[0]))
    records, events = at.settled()
    assert [record["error"] for record in records] == ["StreamClosedError"]
    assert [event["event"] for event in events] == ["client_departed"]


# The process itself.


def test_an_upload_that_the_server_cuts_off(serve: Serve, tmp_path: Path) -> None:
    """HTTPServer's body_timeout."""
    path = tmp_path / "tap"
    server = serve(NOISE, env={PATH_VARIABLE: str(path), "TEST_BODY_TIMEOUT": "0.1"})
    at = Observed(server, path)
    with connected(at.port) as sock:
        sock.sendall(request("POST", "/buffered", length=1000) + b"x")
        assert read_all(sock) == b""
    event = at.event()
    assert (event["side"], event["phase"], event["mechanism"]) == (
        "server",
        "request_body",
        "timeout",
    )
    assert [record for record in read_tap(path)[0] if record["level"] >= WARNING] == []


def test_a_server_that_stops(tmp_path: Path) -> None:
    path = tmp_path / "tap"
    server = NOISE.process(wrapped=True, env={PATH_VARIABLE: str(path)})
    with server:
        at = Observed(server, path)
        with connected(at.port) as sock:
            sock.sendall(request("GET", "/waits"))
            at.until_waiting("/waits")
            server.stop()
            assert read_all(sock) == b""
        records, events = at.said()
    assert records == []
    assert [(event["side"], event["phase"]) for event in events] == [("server", "handler")]


# Websockets.


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/ws/idle", "/ws/echo"])
def test_a_websocket_that_is_idle(
    app: Observed, websocket: Callable[[Observed, str], WebSocketClient], path: str, how: How
) -> None:
    client = websocket(app, path)
    client.shake_hands()
    if path == "/ws/echo":
        client.send(1, b"hello")
        assert client.receive(7)[2:] == b"hello"
    leave(client.sock, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "websocket")
    assert (event["method"], event["mechanism"]) == ("WEBSOCKET", MECHANISM[how])
    assert app.seen()["closed"] == path


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("path", ["/ws/callback", "/ws/task", "/ws/without-waiting", "/ws/open"])
def test_a_websocket_that_is_written_to(
    app: Observed, websocket: Callable[[Observed, str], WebSocketClient], path: str, how: How
) -> None:
    client = websocket(app, path)
    client.shake_hands()
    client.receive(18)
    leave(client.sock, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "websocket")


@pytest.mark.parametrize("how", HOW)
def test_a_websockets_handler_may_ask(
    app: Observed, websocket: Callable[[Observed, str], WebSocketClient], how: How
) -> None:
    client = websocket(app, "/ws/until-gone")
    client.shake_hands()
    client.receive(18)
    leave(client.sock, how)
    assert app.event()["phase"] == "websocket"
    assert app.seen()["asked"] is True


@pytest.mark.parametrize("how", HOW)
def test_a_websocket_during_the_handshake(
    app: Observed, websocket: Callable[[Observed, str], WebSocketClient], how: How
) -> None:
    client = websocket(app, "/ws/slow")
    app.until_waiting("/ws/slow")
    leave(client.sock, how)
    event = app.event()
    assert (event["event"], event["phase"]) == ("client_departed", "websocket")


@pytest.mark.parametrize("code", [b"", b"\x03\xe9"])
def test_a_websocket_that_is_closed(
    app: Observed, websocket: Callable[[Observed, str], WebSocketClient], code: bytes
) -> None:
    client = websocket(app, "/ws/echo")
    client.shake_hands()
    client.send(8, code)
    assert client.receive(2 + len(code)) == bytes((0x88, len(code))) + code
    client.sock.close()
    assert app.settled() == ([], [])


def test_another_clients_websocket(
    app: Observed, serve: Serve, websocket: Callable[[Observed, str], WebSocketClient]
) -> None:
    """Its departure is its own. That the handler which wrote to it stopped there is an error."""
    serve.allow_tracebacks()
    gone, stays = websocket(app, "/ws/broadcast"), websocket(app, "/ws/broadcast")
    gone.shake_hands()
    stays.shake_hands()
    leave(gone.sock, "rst")
    app.until(lambda: bool(app.said()[1]))
    stays.send(1, b"hello")
    app.until(lambda: bool(app.settled()[0]))
    records, events = app.settled()
    # Before 6.6 Tornado logs it twice.
    assert {record["error"] for record in records} == {"WebSocketClosedError"}
    departures = [event for event in events if event["event"] == "client_departed"]
    assert len(departures) == 1


# Not the client's.

UPSTREAMS: Final = {
    "http": "ConnectionResetError",
    "tcp": "StreamClosedError",
    "tcp-writing": "StreamClosedError",
    "websocket": "WebSocketClosedError",
    "socket": "ConnectionResetError",
}


@pytest.mark.parametrize("started", ["", "&started=1"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_an_upstream_while_the_client_is_there(
    app: Observed, bare: Observed, serve: Serve, upstream: str, started: str
) -> None:
    serve.allow_tracebacks()
    path = f"/upstream/{upstream}?x=1{started}"
    responses = [without_date(at.get(path)) for at in (app, bare)]
    assert responses[0] == responses[1]
    assert responses[0].startswith(b"HTTP/1.1 200" if started else b"HTTP/1.1 500")
    (records, events), (bare_records, _) = app.settled(), bare.settled()
    assert records == bare_records
    assert {record["level"] for record in records} == {40}
    assert records[0]["error"] == UPSTREAMS[upstream]
    (event,) = events
    assert (event["event"], event["side"]) == ("upstream_reset", "upstream")
    assert event["phase"] == ("response_body" if started else "handler")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_an_upstream_when_the_client_has_left_too(
    app: Observed, bare: Observed, serve: Serve, upstream: str, how: How
) -> None:
    serve.allow_tracebacks()
    for at in (app, bare):
        leave_the_handler(at, f"/upstream/{upstream}?gone=1", how)
        at.until(lambda at=at: bool(at.settled()[0]))  # type: ignore[misc]
    app.until(lambda: bool(app.said()[1]))
    (records, events), (bare_records, _) = app.settled(), bare.settled()
    assert records == bare_records
    assert {record["level"] for record in records} == {40}
    assert sorted(event["event"] for event in events) == ["client_departed", "upstream_reset"]


def test_an_upstream_behind_a_complete_response(
    app: Observed, bare: Observed, serve: Serve
) -> None:
    """Tornado logs the error and tells its connection nothing: there is no event."""
    serve.allow_tracebacks()
    for at in (app, bare):
        assert at.get("/upstream/tcp?finished=1").endswith(b"before")
        at.until(lambda at=at: bool(at.settled()[0]))  # type: ignore[misc]
    (records, events), (bare_records, _) = app.settled(), bare.settled()
    assert records == bare_records
    assert events == []


def test_an_upstream_while_the_body_is_read(app: Observed, serve: Serve) -> None:
    """Raised in ``data_received``: tornado closes the connection."""
    serve.allow_tracebacks()
    with connected(app.port) as sock:
        sock.sendall(request("POST", "/upstream/reading", length=1000) + b"some")
        assert read_all(sock) == b""
    records, events = app.settled()
    assert [record["message"] for record in records] == ["Uncaught exception"]
    assert [event["event"] for event in events] == ["upstream_reset"]


def test_an_upstream_during_a_websocket(
    app: Observed, serve: Serve, websocket: Callable[[Observed, str], WebSocketClient]
) -> None:
    serve.allow_tracebacks()
    client = websocket(app, "/ws/upstream")
    client.shake_hands()
    client.send(1, b"hello")
    assert read_all(client.sock) == b""
    records, events = app.settled()
    assert [record["error"] for record in records] == ["StreamClosedError"]
    told = [(event["event"], event["phase"]) for event in events]
    assert told == ([("upstream_reset", "websocket")] if LOGS_CALLBACKS else [])


@pytest.mark.parametrize("how", HOW)
def test_an_upstream_behind_a_websocket(
    app: Observed,
    serve: Serve,
    websocket: Callable[[Observed, str], WebSocketClient],
    how: How,
) -> None:
    """Whether Tornado has noticed the departure by then or not."""
    serve.allow_tracebacks()
    client = websocket(app, "/ws/upstream")
    client.shake_hands()
    client.send(1, b"wait")
    app.until_waiting("/ws/upstream")
    leave(client.sock, how)
    app.until(lambda: bool(app.settled()[0]))
    records, events = app.settled()
    assert {record["error"] for record in records} == {"StreamClosedError"}
    told = sorted(event["event"] for event in events)
    assert told == ["client_departed", *(["upstream_reset"] if LOGS_CALLBACKS else [])]


@pytest.mark.parametrize("how", HOW)
def test_what_an_application_makes_up_is_its_own(app: Observed, serve: Serve, how: How) -> None:
    serve.allow_tracebacks()
    leave_the_handler(app, "/bug", how)
    app.until(lambda: bool(app.settled()[0]))
    records, events = app.settled()
    assert [record["error"] for record in records] == ["StreamClosedError"]
    assert "client_departed" in [event["event"] for event in events]


# A client must not be able to hide an error.


def told_errors(records: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The errors that have been told with their tracebacks, and who raised them."""
    return [(each["error"], each["raised_in"]) for each in records if each["error"] is not None]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("construct", ASYNC_HIDES)
def test_a_client_cannot_hide_an_error_of_a_handler(
    app: Observed, serve: Serve, construct: str, how: How
) -> None:
    serve.allow_tracebacks()
    leave_the_handler(app, f"/hides?how={construct}", how)
    app.until(lambda: bool(app.said()[0]))
    records, events = app.settled()
    assert told_errors(records) == [("KeyError", "bug")]
    assert [event["event"] for event in events] == ["client_departed"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("construct", ASYNC_HIDES)
def test_a_client_cannot_hide_an_error_while_its_body_is_read(
    app: Observed, serve: Serve, construct: str, how: How
) -> None:
    serve.allow_tracebacks()
    cut_upload(app, f"/hides-reading?how={construct}", how)
    app.until(lambda: bool(app.said()[0]))
    records, events = app.settled()
    assert told_errors(records) == [("KeyError", "bug")]
    assert [event["event"] for event in events] == ["client_departed"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("construct", ASYNC_HIDES)
@pytest.mark.parametrize("path", ["/ws/hides", "/ws/hides-in-a-task"])
def test_a_websockets_client_cannot_hide_an_error(
    app: Observed,
    serve: Serve,
    websocket: Callable[[Observed, str], WebSocketClient],
    path: str,
    construct: str,
    how: How,
) -> None:
    serve.allow_tracebacks()
    client = websocket(app, f"{path}?how={construct}")
    client.shake_hands()
    if path == "/ws/hides":
        client.send(1, b"hello")
    app.until_waiting(path)
    leave(client.sock, how)
    app.until(lambda: bool(app.settled()[0]))
    records, events = app.settled()
    # Tornado 6.4 says of a callback's error twice what it is, be the client there or not:
    # WebSocketProtocol._run_callback has the loop raise it as well.
    twice = path == "/ws/hides" and tornado.version_info < (6, 5)
    assert told_errors(records) == [("KeyError", "bug")] * (1 + twice)
    assert [event["event"] for event in events] == ["client_departed"]


# Requests behind a departed client: they were there before it left, and Tornado serves them all the
# same. (A FIN it finds only when it reads again: then it has served them.)


@pytest.mark.parametrize("second", ["/stays", "/returns", "/waits", "/catches"])
def test_a_request_behind_a_departed_client(app: Observed, second: str) -> None:
    reset_with_another_request(app, second)
    app.until(lambda: len(app.said()[1]) == 2)
    records, events = app.settled()
    assert records == []
    told = [(each["event"], each["phase"], each["mechanism"]) for each in events]
    assert told == [("client_departed", "handler", "reset")] * 2
    assert [event["request_id"] for event in events] == ["first", "second"]


def test_an_upload_behind_a_departed_client_reaches_its_handler(app: Observed) -> None:
    reset_with_another_request(app, "/buffered", body=b"hello")
    app.until(lambda: len(app.said()[1]) == 2)
    records, events = app.settled()
    assert records == []
    assert [event["request_id"] for event in events] == ["first", "second"]
    # It has answered.
    assert events[1]["event"] == "response_undelivered"


def test_an_error_behind_a_departed_client(app: Observed, serve: Serve) -> None:
    serve.allow_tracebacks()
    reset_with_another_request(app, "/hides?how=finally")
    app.until(lambda: bool(app.settled()[0]))
    records, _ = app.settled()
    assert told_errors(records) == [("KeyError", "bug")]


def reset_with_another_request(at: Observed, second: str, body: bytes | None = None) -> None:
    """Two requests at once, with a body for the second or none; the client leaves meanwhile.

    The loop is held for that long.
    """
    headers = (("X-Request-ID", "second"),)
    method, length = ("GET", None) if body is None else ("POST", len(body))
    behind = request(method, second, length=length, headers=headers)
    with connected(at.port) as sock:
        ahead = request("GET", "/holds", headers=(("X-Request-ID", "first"),))
        sock.sendall(ahead + behind + (body or b""))
        at.until(lambda: at.noted("asked", "first"))
        leave(sock, "rst")


# The negative controls.


def test_bare_tornado_logs_a_request_behind_a_departed_client(bare: Observed) -> None:
    reset_with_another_request(bare, "/catches")
    bare.until(lambda: len(bare.said()[0]) == 2)
    messages = [record["message"].partition(" GET")[0] for record in bare.settled()[0]]
    assert messages == ["Uncaught exception", "Cannot send error response after headers written"]


def test_bare_tornado_says_nothing_of_a_cut_upload(bare: Observed) -> None:
    cut_upload(bare, "/buffered", "rst")
    assert bare.settled() == ([], [])


@pytest.mark.parametrize("how", HOW)
def test_bare_tornado_logs_a_client_which_leaves_the_handler(bare: Observed, how: How) -> None:
    leave_the_handler(bare, "/waits", how)
    bare.until(lambda: bool(bare.said()[0]))
    assert [record["error"] for record in bare.settled()[0]] == ["StreamClosedError"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("again", [False, True], ids=["first request", "second request"])
def test_bare_tornado_logs_a_client_which_leaves_behind_its_head(
    bare: Observed, how: How, again: bool
) -> None:
    leave_behind_the_head(bare, "/waits", how, again=again)
    bare.until(lambda: bool(bare.said()[0]))
    assert [record["error"] for record in bare.settled()[0]] == ["StreamClosedError"]


@pytest.mark.parametrize("how", HOW)
def test_bare_tornado_logs_a_client_which_leaves_a_response(bare: Observed, how: How) -> None:
    leave_the_response(bare, "/streams", how)
    bare.until(lambda: bool(bare.said()[0]))
    messages = [record["message"].partition(" GET")[0] for record in bare.settled()[0]]
    assert messages == [
        "Uncaught exception",
        "Cannot send error response after headers written",
    ]


@pytest.mark.parametrize("path", ["/ws/callback", "/ws/task", "/ws/without-waiting", "/ws/open"])
def test_bare_tornado_logs_a_websocket_that_vanishes(
    bare: Observed, websocket: Callable[[Observed, str], WebSocketClient], path: str
) -> None:
    client = websocket(bare, path)
    client.shake_hands()
    client.receive(18)
    if path == "/ws/without-waiting":
        # What the kernel has taken fails for nobody.
        bare.until(lambda: bool(bare.seen().get("unsent")))
    leave(client.sock, "rst")
    bare.until(lambda: bool(bare.settled()[0]))
    assert bare.settled()[0][0]["error"] == "WebSocketClosedError"


def without_date(response: bytes) -> bytes:
    lines = response.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Date: "))
