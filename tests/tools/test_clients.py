"""The clients against a server that does exactly what the test says, byte by byte."""

from __future__ import annotations

import hashlib
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from cleanclose.testing import Fault, Seen, Upload, curl, http_client, reader, strict
from cleanclose.testing.uploads import Abort, body_digest, body_pieces
from tests.harness.leavers import until_read
from tests.harness.waiting import LIMIT

KIB, MIB = 1024, 1024 * 1024
REFUSED = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig\n"
CLOSING = REFUSED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Client = Callable[[Upload], Seen]
Script = Callable[["Peer"], None]

RAW = [pytest.param(strict, id="strict"), pytest.param(reader, id="reader")]
CLIENTS = [*RAW, pytest.param(http_client, id="http_client")]


class Peer:
    """The server's end of one connection, and what came on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.ended: str | None = None

    def read(self, size: int) -> None:
        """Read until so many bytes have come in all, or the client has ended."""
        while len(self.received) < size and self.ended is None:
            try:
                data = self.connection.recv(256 * KIB)
            except ConnectionError:
                self.ended = "reset"
                return
            if not data:
                self.ended = "fin"
            self.received += data

    def read_head(self) -> bytes:
        """Read until the end of the request's head."""
        while b"\r\n\r\n" not in self.received and self.ended is None:
            self.read(len(self.received) + 1)
        return bytes(self.received).partition(b"\r\n\r\n")[0]

    def send(self, data: bytes) -> None:
        """Send, or be told that nobody is there."""
        with suppress(ConnectionError):
            self.connection.sendall(data)

    def reset(self) -> None:
        """End by RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    @property
    def body(self) -> bytes:
        return bytes(self.received).partition(b"\r\n\r\n")[2]


class Stage:
    """A listening port; each connection is handed to the script."""

    def __init__(self, script: Script) -> None:
        self.peers: list[Peer] = []
        self.met = threading.Event()
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(LIMIT)
            peer = Peer(connection)
            self.peers.append(peer)
            self.met.set()
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with peer.connection, suppress(OSError):
            self._script(peer)

    def close(self) -> None:
        # Closing alone does not wake a thread in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def staged(script: Script) -> Generator[Stage]:
    stage = Stage(script)
    try:
        yield stage
    finally:
        stage.close()


def whole_request(upload: Upload) -> Script:
    """Read everything, then answer and wait for the client to leave."""

    def script(peer: Peer) -> None:
        head = peer.read_head()
        peer.read(len(head) + 4 + upload.size_on_wire)
        peer.send(OK)
        peer.read(1 << 40)

    return script


@pytest.mark.parametrize("client", CLIENTS)
def test_an_upload_that_is_read_and_answered(client: Client) -> None:
    upload = Upload(port=0, path="/here", body_size=3 * MIB + 5, headers=(("X-Token", "abc"),))
    with staged(whole_request(upload)) as stage:
        outcome = client(replace(upload, port=stage.port))
    head = stage.peers[0].read_head()
    assert head.startswith(b"POST /here HTTP/1.1\r\n")
    assert b"X-Token: abc" in head
    assert b"Content-Length: %d" % (3 * MIB + 5) in head
    assert hashlib.sha256(stage.peers[0].body).hexdigest() == body_digest(3 * MIB + 5)
    assert (outcome.status, outcome.bytes_sent) == (200, 3 * MIB + 5)
    assert outcome.raw == OK
    assert outcome.transcript.clean
    assert outcome.closed_by is None
    assert outcome.send_error is None
    assert not outcome.reset_seen


@pytest.mark.parametrize("client", CLIENTS)
def test_a_chunked_upload(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        while not peer.body.endswith(b"0\r\n\r\n"):
            peer.read(len(peer.received) + 1)
        peer.send(OK)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=200, piece_size=128, chunked=True))
    body = b"".join(bytes(piece) for piece in body_pieces(200))
    assert b"Transfer-Encoding: chunked" in stage.peers[0].read_head()
    assert b"Content-Length" not in stage.peers[0].read_head()
    assert (
        stage.peers[0].body
        == b"80\r\n" + body[:128] + b"\r\n48\r\n" + body[128:] + b"\r\n0\r\n\r\n"
    )
    assert (outcome.status, outcome.bytes_sent) == (200, 200)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_reset_in_the_body_loses_an_answer_for_those_who_give_up(client: Client) -> None:
    """The answer is on the wire before the reset; what becomes of it is the client's doing."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(REFUSED)
        if client is reader:
            # A reset takes back what it has not read.
            until_read(peer.connection)
        peer.reset()

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=64 * MIB, timeout=20))
    if client is reader:
        assert outcome.status == 413
        assert outcome.bytes_sent < 64 * MIB
    else:
        assert outcome.status is None
        assert outcome.transcript.responses == ()
        assert outcome.send_error in ("ECONNRESET", "EPIPE")
        assert outcome.reset_seen


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_is_cut_short_is_no_answer(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(REFUSED[:-2])

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10))
    assert outcome.status is None
    assert outcome.closed_by == "fin"
    if client is not http_client:
        assert outcome.transcript.faults == (Fault.TRUNCATED_BODY,)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("late", "fault"),
    [
        pytest.param(CONTINUE, Fault.INFORMATIONAL_AFTER_FINAL, id="100"),
        pytest.param(OK, Fault.UNEXPECTED_RESPONSE, id="second"),
        pytest.param(b"junk", Fault.STRAY_BYTES, id="junk"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_comes_behind_the_answer_is_seen(
    client: Client, late: bytes, fault: Fault, apart: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(REFUSED)
        if apart:
            until_read(peer.connection)
        peer.send(late)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, listen=2.0))
    assert outcome.status == 413
    assert outcome.transcript.stray == late
    assert outcome.transcript.faults == (fault,)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_announced_end_is_waited_for(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(CLOSING)
        time.sleep(0.4)
        peer.send(CONTINUE)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, listen=0.05, connection_close=True))
    assert b"Connection: close" in stage.peers[0].read_head()
    assert outcome.closed_by == "fin"
    assert outcome.transcript.stray == CONTINUE


@pytest.mark.parametrize("client", CLIENTS)
def test_an_announced_end_that_does_not_come(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(CLOSING)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, timeout=0.5))
    assert outcome.status == 413
    assert outcome.closed_by == "timeout"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_never_answers(client: Client) -> None:
    with staged(lambda peer: peer.read(1 << 40)) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, timeout=0.3))
    assert outcome.status is None
    assert outcome.closed_by == "timeout"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_never_reads(client: Client) -> None:
    def script(peer: Peer) -> None:
        time.sleep(1.5)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=64 * MIB, timeout=0.5))
    assert outcome.status is None
    assert outcome.closed_by in ("timeout", "reset")
    assert outcome.bytes_sent < 64 * MIB


@pytest.mark.parametrize("client", CLIENTS)
def test_a_second_request_on_the_same_connection(client: Client) -> None:
    def script(peer: Peer) -> None:
        size = len(peer.read_head()) + 4 + 10
        peer.read(size)
        peer.send(REFUSED)
        peer.read(size + 1)
        peer.send(OK)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(
            Upload(port=stage.port, body_size=10, follow_up="after", follow_up_path="/next")
        )
    assert len(stage.peers) == 1
    assert b"GET /next HTTP/1.1\r\n" in stage.peers[0].body
    assert outcome.followed_up
    assert outcome.status == 413
    assert outcome.second is not None
    assert outcome.second.status == 200
    assert outcome.transcript.clean
    assert outcome.transcript.complete


@pytest.mark.parametrize("client", CLIENTS)
def test_no_second_request_behind_an_announced_end(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(CLOSING)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, follow_up="after"))
    assert not outcome.followed_up
    assert outcome.status == 413
    assert outcome.second is None


@pytest.mark.parametrize("client", RAW)
def test_a_pipelined_request_is_sent_without_waiting(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10 + len(b"GET / HTTP/1.1\r\n"))
        peer.send(REFUSED + OK)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, follow_up="pipelined"))
    assert stage.peers[0].body[10:].startswith(b"GET / HTTP/1.1\r\n")
    assert (outcome.status, outcome.second and outcome.second.status) == (413, 200)
    assert outcome.transcript.clean


@pytest.mark.parametrize("client", RAW)
def test_a_patient_client_waits_for_the_100(client: Client) -> None:
    order: list[int] = []

    def script(peer: Peer) -> None:
        head = peer.read_head()
        time.sleep(0.2)
        order.append(len(peer.body))
        peer.send(CONTINUE)
        peer.read(len(head) + 4 + 10)
        peer.send(OK)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, expect="patient", expect_seconds=10))
    assert b"Expect: 100-continue" in stage.peers[0].read_head()
    assert order == [0]
    assert outcome.status == 200
    assert outcome.transcript.clean
    assert [response.status for response in outcome.transcript.informational] == [100]


@pytest.mark.parametrize("client", RAW)
def test_a_patient_client_that_is_refused_sends_no_body(client: Client) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CLOSING)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = client(Upload(port=stage.port, body_size=10, expect="patient", expect_seconds=10))
    assert (outcome.status, outcome.bytes_sent) == (413, 0)
    assert stage.peers[0].body == b""


@pytest.mark.parametrize("client", RAW)
def test_patience_ends(client: Client) -> None:
    upload = Upload(port=0, body_size=10, expect="patient", expect_seconds=0.1)
    with staged(whole_request(upload)) as stage:
        outcome = client(replace(upload, port=stage.port))
    assert (outcome.status, outcome.bytes_sent) == (200, 10)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_impatient_client_does_not_wait(client: Client) -> None:
    upload = Upload(port=0, body_size=10, expect="impatient", expect_seconds=60)
    with staged(whole_request(upload)) as stage:
        outcome = client(replace(upload, port=stage.port))
    assert b"Expect: 100-continue" in stage.peers[0].read_head()
    assert (outcome.status, outcome.bytes_sent) == (200, 10)


@pytest.mark.parametrize(
    ("how", "seen"), [("reset", "reset"), ("close", "fin"), ("half_close", "fin")]
)
@pytest.mark.parametrize("client", RAW)
def test_clients_that_leave_in_the_body(client: Client, how: Abort, seen: str) -> None:
    def script(peer: Peer) -> None:
        peer.read(1 << 40)
        peer.send(REFUSED)

    upload = Upload(port=0, body_size=MIB, abort_after=100 * KIB + 1)
    with staged(script) as stage:
        outcome = client(replace(upload, port=stage.port, abort_how=how))
        # The client may have come and gone before the server has looked.
        assert stage.met.wait(LIMIT)
    peer = stage.peers[0]
    assert peer.ended == seen
    if how != "reset":
        assert len(peer.body) == 100 * KIB + 1
    assert outcome.bytes_sent == 100 * KIB + 1
    assert outcome.status == (413 if how == "half_close" else None)


def test_a_client_that_stalls_waits_for_the_end() -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 100 * KIB)
        peer.send(REFUSED)
        until_read(peer.connection)

    with staged(script) as stage:
        outcome = reader(
            Upload(port=stage.port, body_size=MIB, abort_after=100 * KIB, abort_how="stall")
        )
    assert outcome.status == 413
    assert outcome.closed_by == "fin"
    assert len(stage.peers[0].body) == 100 * KIB


def test_a_reader_stops_sending_when_it_has_its_answer() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(REFUSED)
        peer.read(1 << 40)

    with staged(script) as stage:
        stops = reader(Upload(port=stage.port, body_size=64 * MIB))
        goes_on = reader(Upload(port=stage.port, body_size=8 * MIB, keep_sending=True))
    assert (stops.status, goes_on.status) == (413, 413)
    assert stops.bytes_sent < 64 * MIB
    assert goes_on.bytes_sent == 8 * MIB


def test_a_reader_takes_a_response_that_does_not_fit_into_the_buffers() -> None:
    """Both sides send before they read; a client that does not read would wait for ever."""
    body = b"x" * (16 * MIB)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = reader(Upload(port=stage.port, body_size=16 * MIB, keep_sending=True))
    assert outcome.response is not None
    assert outcome.response.body == body
    assert outcome.bytes_sent == 16 * MIB


@pytest.mark.parametrize("client", CLIENTS)
def test_a_slow_uplink_takes_its_time(client: Client) -> None:
    upload = Upload(port=0, body_size=5 * KIB, piece_size=KIB, pause=0.05)
    with staged(whole_request(upload)) as stage:
        outcome = client(replace(upload, port=stage.port))
    assert outcome.status == 200
    assert outcome.seconds >= 0.2


def test_framing_can_be_wrong_on_purpose() -> None:
    upload = Upload(
        port=0,
        headers=(("Content-Length", "abc"), ("Content-Length", "5")),
        raw_body=b"0123456789",
    )
    with staged(whole_request(upload)) as stage:
        outcome = strict(replace(upload, port=stage.port, http_version="1.0"))
    head = stage.peers[0].read_head()
    assert head.startswith(b"POST / HTTP/1.0\r\n")
    assert head.count(b"Content-Length") == 2
    assert stage.peers[0].body == b"0123456789"
    assert outcome.bytes_sent == 10


def test_a_chunked_body_can_lack_its_end() -> None:
    def script(peer: Peer) -> None:
        peer.read(1 << 40)

    with staged(script) as stage:
        outcome = strict(
            Upload(
                port=stage.port,
                body_size=64,
                chunked=True,
                last_chunk=False,
                abort_after=64,
                abort_how="half_close",
            )
        )
    assert not stage.peers[0].body.endswith(b"0\r\n\r\n")
    assert outcome.status is None


def test_a_port_where_nobody_listens_is_the_callers_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for client in (strict, reader, http_client):
        with pytest.raises(ConnectionRefusedError):
            client(Upload(port=port, body_size=1))


def test_an_outcome_explains_itself() -> None:
    def script(peer: Peer) -> None:
        peer.read(len(peer.read_head()) + 4 + 10)
        peer.send(REFUSED + CONTINUE)
        peer.read(1 << 40)

    with staged(script) as stage:
        text = str(strict(Upload(port=stage.port, body_size=10)))
    assert "status 413" in text
    assert "10 bytes of body sent" in text
    assert "informational_after_final" in text
    assert "100 Continue" in text


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
class TestCurl:
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_it_uploads_and_reports(self, chunked: bool) -> None:
        def script(peer: Peer) -> None:
            head = peer.read_head()
            if chunked:
                while not peer.body.endswith(b"0\r\n\r\n"):
                    peer.read(len(peer.received) + 1)
            else:
                peer.read(len(head) + 4 + 2 * MIB)
            peer.send(OK)
            peer.read(1 << 40)

        with staged(script) as stage:
            outcome = curl(
                Upload(
                    port=stage.port,
                    path="/x",
                    body_size=2 * MIB,
                    chunked=chunked,
                    connection_close=True,
                    headers=(("X-Token", "abc"),),
                )
            )
        head = stage.peers[0].read_head()
        assert head.startswith(b"POST /x HTTP/1.1\r\n")
        assert b"X-Token: abc" in head
        assert b"Connection: close" in head
        assert b"Expect" not in head
        assert (outcome.status, outcome.send_error) == (200, None)
        assert outcome.bytes_sent >= 2 * MIB
        assert outcome.raw == OK

    def test_it_can_wait_for_the_100(self) -> None:
        def script(peer: Peer) -> None:
            head = peer.read_head()
            peer.send(CONTINUE)
            peer.read(len(head) + 4 + 10)
            peer.send(OK)
            peer.read(1 << 40)

        with staged(script) as stage:
            outcome = curl(Upload(port=stage.port, body_size=10, expect="patient"))
        assert b"Expect: 100-continue" in stage.peers[0].read_head()
        assert outcome.status == 200
        assert [response.status for response in outcome.transcript.informational] == [100]

    def test_a_reset_is_told_by_its_exit_code(self) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.reset()

        with staged(script) as stage:
            outcome = curl(Upload(port=stage.port, body_size=8 * MIB))
        assert outcome.status is None
        assert outcome.send_error is not None
        assert outcome.send_error.startswith("curl exit ")
        assert outcome.reset_seen

    def test_it_refuses_what_it_cannot_do(self) -> None:
        with pytest.raises(ValueError, match="curl sends"):
            curl(Upload(port=1, raw_body=b"x"))
        with pytest.raises(FileNotFoundError):
            curl(Upload(port=1), program="/nonexistent/curl")
