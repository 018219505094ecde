"""HTTP/2: nothing is read in the application's place, and no stream ends as it would not bare."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from cleanclose.doctor import body_pieces
from tests.harness.apps import routes
from tests.harness.scenarios import GUARD, MIB
from tests.harness.servers_asgi import HTTP_2_ROWS, HYPERCORN_TRIO, with_certificate
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.tls import Certificate, certificate
from tests.harness.waiting import LIMIT, until

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(GUARD)]


@dataclass
class Stream:
    """What came on one stream."""

    status: str | None = None
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


@dataclass
class Client:
    """One connection, used by one request after the other."""

    port: int
    signed: Certificate
    streams: dict[int, Stream] = field(default_factory=dict[int, Stream])
    terminated: int | None = None
    closed: bool = False

    def __enter__(self) -> Self:
        raw = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        self.sock = self.signed.context("h2").wrap_socket(raw, server_hostname="127.0.0.1")
        assert self.sock.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self.h2.initiate_connection()
        self._flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _flush(self) -> None:
        try:
            self.sock.sendall(self.h2.data_to_send())
        except OSError:
            self.closed = True

    def read(self, seconds: float) -> None:
        """Take what comes, for so long at most."""
        self.sock.settimeout(max(seconds, 0.001))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return
        except (OSError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.terminated = int(event.error_code or 0)
                continue
            stream = self.streams.get(getattr(event, "stream_id", None) or 0, Stream())
            match event:
                case h2.events.ResponseReceived():
                    stream.status = dict(event.headers or ())[b":status"].decode()
                case h2.events.DataReceived():
                    stream.body += event.data or b""
                    length = event.flow_controlled_length or 0
                    self.h2.acknowledge_received_data(length, event.stream_id or 0)
                case h2.events.StreamEnded():
                    stream.ended = True
                case h2.events.StreamReset():
                    stream.reset = int(event.error_code or 0)
                case _:
                    pass
        self._flush()

    def begin(self, method: str, path: str, *headers: tuple[str, str], end: bool) -> int:
        """Send a request's head."""
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = Stream()
        names = ((":method", method), (":path", path), (":scheme", "https"))
        self.h2.send_headers(number, [*names, (":authority", "h2"), *headers], end_stream=end)
        self._flush()
        return number

    def get(self, path: str) -> Stream:
        """A request without a body."""
        if self.closed or self.terminated is not None:
            return Stream()
        return self.wait(self.begin("GET", path, end=True))

    def wait(self, number: int) -> Stream:
        """Read until this stream is over."""
        deadline = time.monotonic() + LIMIT
        stream = self.streams[number]
        while not (stream.over or self.closed) and time.monotonic() < deadline:
            self.read(deadline - time.monotonic())
        return stream

    def post(self, path: str, size: int, *, stubborn: bool) -> Stream:
        """Upload; a stubborn client sends on when it has its answer, as it may."""
        number = self.begin("POST", path, ("content-length", str(size)), end=False)
        stream = self.streams[number]
        deadline = time.monotonic() + LIMIT
        for piece in body_pieces(size, 16384):
            view = bytes(piece)
            while view:
                self.read(0)
                if self.closed or stream.reset is not None or (stream.ended and not stubborn):
                    return stream
                if time.monotonic() > deadline:
                    return stream
                try:
                    room = self.h2.local_flow_control_window(number)
                    room = min(room, len(view), self.h2.max_outbound_frame_size)
                    if room == 0:
                        self.read(0.2)
                        if stream.ended:
                            # Nobody makes room for it any more.
                            return stream
                        continue
                    self.h2.send_data(number, view[:room])
                except h2.exceptions.ProtocolError:
                    return stream
                view = view[room:]
                self._flush()
        try:
            self.h2.end_stream(number)
        except h2.exceptions.ProtocolError:
            return stream
        self._flush()
        return self.wait(number)


@dataclass(frozen=True)
class Seen:
    """What one client saw of a refused upload and of the request behind it."""

    status: str | None
    body: bytes
    ended: bool
    reset: int | None
    terminated: int | None
    next_status: str | None


def refused(port: int, signed: Certificate, *, stubborn: bool) -> Seen:
    with Client(port, signed) as client:
        first = client.post(routes.REFUSE, 4 * MIB, stubborn=stubborn)
        second = client.get(routes.INDEX)
        # What is said about the first stream may come behind the answer of the second.
        client.read(0.05)
        return Seen(
            first.status,
            first.body,
            first.ended,
            first.reset,
            client.terminated,
            second.status,
        )


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("stubborn", [False, True], ids=["stops", "stubborn"])
@pytest.mark.parametrize("row", HTTP_2_ROWS, ids=str)
def test_a_refused_upload_is_drained_first(
    serve: Serve, signed: Certificate, row: Stack, stubborn: bool
) -> None:
    """The stream ends in good order, so a client that writes everything first gets the answer."""
    server = serve(with_certificate(row, signed))
    with Client(server.port, signed) as client:
        before = json.loads(client.get(routes.COUNTERS).body)
        seen = client.post(routes.REFUSE, 4 * MIB, stubborn=stubborn)
        assert (seen.status, seen.body, seen.ended) == ("413", routes.REFUSAL, True)
        # The connection goes on: no reset of the stream, no GOAWAY.
        assert (seen.reset, client.terminated) == (None, None)
        assert client.get(routes.INDEX).status == "200"
        after = json.loads(client.get(routes.COUNTERS).body)
    delivered = 'cleanclose_early_responses_total{outcome="delivered"}'
    assert after[delivered] == before[delivered] + 1


@pytest.mark.negative_control
@pytest.mark.parametrize("row", HTTP_2_ROWS, ids=str)
def test_bare_its_stream_or_connection_breaks(
    serve: Serve, signed: Certificate, row: Stack
) -> None:
    # hypercorn's own KeyError.
    serve.allow_tracebacks()
    server = serve(with_certificate(row, signed), wrapped=False)
    seen = [refused(server.port, signed, stubborn=True) for _ in range(4)]
    # Or the whole connection ends, with every other request on it.
    assert any(
        each.reset is not None or not each.ended or each.next_status != "200" for each in seen
    ), seen


# A server that ends resets the clients that it has not accepted. Where the reset comes between a
# client's connect() and its handshake, ``SSLSocket._create`` raises and leaves its socket open.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.negative_control
def test_bare_hypercorn_on_trio_does_not_survive_it(signed: Certificate) -> None:
    """The KeyError that ends one connection on asyncio ends the worker there."""
    with with_certificate(HYPERCORN_TRIO, signed).process(wrapped=False) as server:
        deadline = time.monotonic() + LIMIT
        while "KeyError" not in server.log_text():
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                refused(server.port, signed, stubborn=True)
        until(lambda: not server.alive, server.log_text)


@pytest.mark.parametrize("row", HTTP_2_ROWS, ids=str)
def test_an_upload_that_is_read(serve: Serve, signed: Certificate, row: Stack) -> None:
    row = with_certificate(row, signed)
    seen: list[Stream] = []
    for each in (False, True):
        with Client(serve(row, wrapped=each).port, signed) as client:
            seen.append(client.post(routes.ACCEPT, 2 * MIB, stubborn=True))
    assert seen[0] == seen[1]
    assert (seen[1].status, seen[1].ended, seen[1].reset) == ("200", True, None)
    assert json.loads(seen[1].body)["bytes"] == 2 * MIB
