"""What became of an early response is a fact from the kernel, where the socket is in reach.

Each scenario is tried with a kernel that does not tell as well, as on another system than Linux.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from cleanclose.doctor import Upload, strict
from tests.harness.apps import evidence, routes
from tests.harness.asking import get_json
from tests.harness.leavers import request
from tests.harness.processes import ServerProcess
from tests.harness.scenarios import KIB, MIB
from tests.harness.serving import Serve
from tests.harness.stacks import Stack, gunicorn
from tests.harness.waiting import until

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells"),
]

Kernel = Literal["tells", "silent"]


def own(name: str, interface: Literal["wsgi", "tornado"]) -> Stack:
    return Stack(
        name=f"evidence-{name}",
        interface=interface,
        command=(sys.executable, "-m", "tests.harness.apps.evidence", name, "{port}"),
        loses="always",
    )


def on_gunicorn(name: str, *arguments: str) -> Stack:
    row = gunicorn(f"evidence-{name}", "raw_wsgi", *arguments, threads=True)
    command = (*row.command[:-1], "tests.harness.apps.evidence:application")
    return Stack(name=row.name, interface="wsgi", command=command, loses="always")


SYNC: Final = on_gunicorn("gunicorn-sync", "--worker-class=sync")
GTHREAD: Final = on_gunicorn("gunicorn-gthread", "--worker-class=gthread", "--threads=4")
WERKZEUG: Final = own("werkzeug", "wsgi")
WSGIREF: Final = own("wsgiref", "wsgi")
TORNADO: Final = own("tornado", "tornado")

OTHERS: Final = [
    pytest.param(own("cheroot", "wsgi"), id="cheroot", marks=pytest.mark.stacks),
    pytest.param(own("gevent", "wsgi"), id="gevent", marks=pytest.mark.stacks),
    pytest.param(
        on_gunicorn("gunicorn-gevent", "--worker-class=gevent"),
        id="gunicorn-gevent",
        marks=pytest.mark.stacks,
    ),
]
ALL: Final = (SYNC, GTHREAD, WERKZEUG, WSGIREF, TORNADO)
CAPS: Final[SettingsOptions] = {
    "respond_after": 0.2,
    "hold_seconds": 0.2,
    "idle_seconds": 8.0,
    "max_seconds": 20.0,
    "min_rate": 0,
}
QUICK: Final[SettingsOptions] = {**CAPS, "idle_seconds": 1.0}

SENT: Final = 256 * KIB
LENGTH: Final = 8 * MIB


def start(
    serve: Serve, stack: Stack, settings: SettingsOptions = CAPS, kernel: Kernel = "tells"
) -> ServerProcess:
    return serve(stack, settings=settings, env={"TEST_KERNEL": kernel})


def events(server: ServerProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get_json(server.port, evidence.EVENTS)
    return found


@contextlib.contextmanager
def uploading(
    server: ServerProcess, path: str = evidence.REFUSE, *, buffer: int | None = None
) -> Generator[socket.socket]:
    """A client that has sent the beginning of an upload."""
    with socket.socket() as client:
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(request("POST", path, length=LENGTH) + bytes(SENT))
        yield client


def receive_answer(client: socket.socket) -> bytes:
    """Read all of the refusal, and no further."""
    received = b""
    while not received.endswith(routes.REFUSAL):
        data = client.recv(4096)
        assert data, received
        received += data
    return received


def until_more_than_a_head(client: socket.socket) -> None:
    """Wait until the rest of the answer is on its way, and read none of it."""
    until(lambda: evidence.MEDIUM[:10] in client.recv(4096, socket.MSG_PEEK), "no answer")


def receive_end(client: socket.socket) -> str:
    """How the server ends the connection, behind its answer."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "fin"


class Told:
    """What is told of the one upload that a test makes."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = len(events(server))

    def event(self) -> dict[str, Any]:
        """Its event, when it is over."""
        until(self._new, "no event was reported")
        (event,) = self._new()
        return event

    def _new(self) -> list[dict[str, Any]]:
        return events(self._server)[self._before :]


@pytest.mark.parametrize("stack", ALL, ids=str)
def test_a_client_that_has_its_answer_and_waits_has_got_it(serve: Serve, stack: Stack) -> None:
    server = start(serve, stack, QUICK)
    told = Told(server)
    with uploading(server) as client:
        receive_answer(client)
        # That is the server's half; the client keeps its own.
        assert receive_end(client) == "fin"
        event = told.event()
    assert (event["outcome"], event.get("cap"), event["unacked"]) == ("delivered", None, 0)
    assert event["drained"] == SENT


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [GTHREAD, TORNADO], ids=str)
def test_without_the_kernels_word_it_is_idle(serve: Serve, stack: Stack) -> None:
    server = start(serve, stack, QUICK, "silent")
    told = Told(server)
    with uploading(server) as client:
        receive_answer(client)
        # That is the server's half; the client keeps its own.
        assert receive_end(client) == "fin"
        event = told.event()
    assert (event["outcome"], event.get("cap")) == ("cut", "idle_seconds")
    assert "unacked" not in event


@pytest.mark.parametrize("stack", [GTHREAD, TORNADO], ids=str)
def test_a_client_that_does_not_read_has_not_got_it(serve: Serve, stack: Stack) -> None:
    """Its kernel has no room for all of the answer, so a part is not acknowledged."""
    server = start(serve, stack, QUICK)
    told = Told(server)
    with uploading(server, evidence.REFUSE_MEDIUM, buffer=4096):
        event = told.event()
    assert (event["outcome"], event["cap"]) == ("cut", "idle_seconds")
    assert 0 < event["unacked"] <= len(evidence.MEDIUM) + 1000


@pytest.mark.parametrize("stack", [GTHREAD, TORNADO], ids=str)
def test_a_client_that_reads_late_has_got_it(serve: Serve, stack: Stack) -> None:
    """The same client: once it reads, the kernel tells so."""
    server = start(serve, stack)
    told = Told(server)
    with uploading(server, evidence.REFUSE_MEDIUM, buffer=4096) as client:
        until_more_than_a_head(client)
        receive_end(client)
    event = told.event()
    assert (event["outcome"], event["unacked"]) == ("delivered", 0)


@pytest.mark.parametrize("stack", [*ALL, *OTHERS], ids=str)
def test_a_client_that_closes_its_half_behind_the_answer(serve: Serve, stack: Stack) -> None:
    server = start(serve, stack)
    told = Told(server)
    with uploading(server) as client:
        receive_answer(client)
        client.shutdown(socket.SHUT_WR)
        assert receive_end(client) == "fin"
    event = told.event()
    assert (event["outcome"], event["mechanism"], event["unacked"]) == ("delivered", "eof", 0)


@pytest.mark.parametrize("stack", [*ALL, *OTHERS], ids=str)
def test_a_client_that_resets(serve: Serve, stack: Stack) -> None:
    server = start(serve, stack)
    told = Told(server)
    with uploading(server) as client:
        receive_answer(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    event = told.event()
    assert (event["outcome"], event["mechanism"], event["unacked"]) == ("reset", "reset", 0)


@pytest.mark.parametrize("stack", ALL, ids=str)
def test_a_client_that_resets_without_having_read(serve: Serve, stack: Stack) -> None:
    server = start(serve, stack)
    told = Told(server)
    with uploading(server, evidence.REFUSE_MEDIUM, buffer=4096) as client:
        until_more_than_a_head(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    event = told.event()
    assert event["outcome"] == "reset"
    assert event["unacked"] > 0


@pytest.mark.parametrize(
    ("stack", "pause"),
    [
        pytest.param(stack, pause, id=f"{stack}-{'slow' if pause else 'fast'}")
        for stack in ALL
        for pause in (0.0, 0.012)
    ],
)
def test_a_client_that_looks_only_when_it_has_sent_all(
    serve: Serve, stack: Stack, pause: float
) -> None:
    server = start(serve, stack)
    told = Told(server)
    outcome = strict(
        Upload(port=server.port, path=evidence.REFUSE, body_size=LENGTH, pause=pause, listen=0.1)
    )
    assert outcome.status == 413, str(outcome)
    assert not outcome.reset_seen, str(outcome)
    event = told.event()
    assert (event["outcome"], event["drained"]) == ("delivered", LENGTH)


@pytest.mark.parametrize(("pause", "pieces"), [(0.7, 7), (2.5, 3)], ids=["often", "long"])
@pytest.mark.parametrize("stack", [GTHREAD, TORNADO], ids=str)
def test_a_pause_is_no_end(serve: Serve, stack: Stack, pause: float, pieces: int) -> None:
    """The response has arrived, and the sender is silent for a while, again and again."""
    server = start(serve, stack, {"idle_seconds": 30.0, "max_seconds": 60.0})
    told = Told(server)
    outcome = strict(
        Upload(
            port=server.port,
            path=evidence.REFUSE,
            body_size=pieces * 64 * KIB,
            pause=pause,
            listen=0.1,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert not outcome.reset_seen, str(outcome)
    assert told.event()["outcome"] == "delivered"
