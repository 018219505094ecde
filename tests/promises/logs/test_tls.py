"""Clients that leave servers which speak TLS: in the handshake, and behind it without a goodbye.

A handshake that breaks off passes no middleware, and no request is harmed: it makes no record at
WARNING or above, and no event.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from tests.harness.apps.noise_asgi import CAME, GATE, UPSTREAM_PORT, WORKS
from tests.harness.asgi_noise import HOWS, WARNING, asgi_stack, together
from tests.harness.leavers import How, connected, leave, request, until_read
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess, stopped
from tests.harness.stacks import gunicorn
from tests.harness.tap import PATH_VARIABLE, noted, read_tap
from tests.harness.waiting import LIMIT, until

pytestmark = pytest.mark.stacks

MIB: Final = 1 << 20
MODULES: Final = (sys.executable, "-m", "tests.harness.apps")


def own(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of an app that serves itself."""
    python, option, package = MODULES
    return (python, option, f"{package}.{module}", *arguments, "{port}")


def worker(kind: str) -> tuple[str, ...]:
    """The command of a gunicorn."""
    stack = gunicorn(kind, "noise_wsgi", f"--worker-class={kind}", threads=True)
    return (*stack.command, "--certfile={pem}", "--keyfile={pem}")


def asgi(server: str, *options: str) -> tuple[str, ...]:
    """The command of an ASGI server."""
    return (*asgi_stack(server).command, *options)


_UVICORN: Final = ("--ssl-certfile={pem}", "--ssl-keyfile={pem}")
_OTHERS: Final = ("--certfile={pem}", "--keyfile={pem}")
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn-h11": asgi("uvicorn-h11", *_UVICORN),
    "uvicorn-uvloop": asgi("uvicorn-uvloop", *_UVICORN),
    "hypercorn": asgi("hypercorn", *_OTHERS),
    "gunicorn": asgi("gunicorn", *_OTHERS),
    "sync": worker("sync"),
    "gthread": worker("gthread"),
    "gevent": worker("gevent"),
    "tornado": own("noise_tornado"),
}

BODY: Final = ("POST", "/read", "request_body")
STREAM: Final = ("GET", "/stream", "response_body")
ASGI: Final = {"body": BODY, "work": ("GET", "/work", "handler"), "stream": STREAM}
WSGI: Final = {"body": BODY, "stream": STREAM}
TORNADO: Final = {
    "body": ("POST", "/reads", "request_body"),
    "work": ("GET", "/waits", "handler"),
    "stream": ("GET", "/streams", "response_body"),
}
VISITS: Final[Mapping[str, Mapping[str, tuple[str, str, str]]]] = {
    **dict.fromkeys(("uvicorn-h11", "uvicorn-uvloop", "hypercorn", "gunicorn"), ASGI),
    **dict.fromkeys(("sync", "gthread", "gevent"), WSGI),
    "tornado": TORNADO,
}


class Client:
    """A client that trusts the server's certificate."""

    def __init__(self, port: int, authority: trustme.CA) -> None:
        self._port = port
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)

    def hello(self) -> bytes:
        """The first message of a handshake."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = self._context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            handshake.do_handshake()
        return outgoing.read()

    def leave_the_handshake(self, how: How, *, sent: int | None, answered: bool) -> None:
        """Leave after so many bytes of the first message, or behind the server's answer."""
        with connected(self._port) as sock:
            sock.sendall(self.hello()[:sent])
            if answered:
                sock.recv(100)
            until_read(sock)
            leave(sock, how)

    def leave_without_goodbye(
        self, how: How, data: bytes, *, read: bool = False, once: Callable[[], bool] | None = None
    ) -> None:
        """Shake hands, send this, perhaps wait for something, and leave without a close_notify."""
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT) as sock,
            self._context.wrap_socket(sock, server_hostname="localhost") as secured,
        ):
            secured.sendall(data)
            if read:
                assert secured.recv(65536)
            until_read(secured)
            if once is not None:
                until(once, "what this client waits for never came")
            leave(secured, how)

    def jobs(
        self, visits: Mapping[str, tuple[str, str, str]], tap: Path
    ) -> list[Callable[[], None]]:
        """All the ways to leave, each by a reset and in good order."""
        jobs: list[Callable[[], None]] = []
        for how in HOWS:
            handshake = partial(self.leave_the_handshake, how)
            jobs += [partial(handshake, sent=0, answered=False)]
            jobs += [partial(handshake, sent=60, answered=False)]
            jobs += [partial(handshake, sent=None, answered=True)]
            jobs += [partial(self.leave_without_goodbye, how, b"")]
            for name, (method, path, _) in visits.items():
                who = f"{name}-{how}"
                headers = (("X-Request-ID", who),)
                length, body = (MIB, b"x" * 60000) if method == "POST" else (None, b"")
                head = request(method, path, length=length, headers=headers)
                read = name == "stream"
                place = {"/read": CAME, "/work": WORKS}.get(path)
                once = partial(noted, tap, place, who) if place and visits is ASGI else None
                jobs += [
                    partial(self.leave_without_goodbye, how, head + body, read=read, once=once)
                ]
        return jobs


def serve_and_leave(
    name: str, folder: Path, *, wrapped: bool
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What a server has said of all of them, in records at WARNING and above and in events."""
    authority = trustme.CA()
    tap, gate = folder / "tap.jsonl", folder / "gate"
    wanted = len(VISITS[name]) * len(HOWS) if wrapped else 0
    with serving(name, folder, authority, tap, gate, wrapped=wrapped) as server:
        together(Client(server.port, authority).jobs(VISITS[name], tap))
        gate.touch()
        until(lambda: len(read_tap(tap)[1]) >= wanted, lambda: f"only {read_tap(tap)}")
    records, events = read_tap(tap)
    return [record for record in records if record["level"] >= WARNING], events


def serving(
    name: str,
    folder: Path,
    authority: trustme.CA,
    tap: Path,
    gate: Path | None = None,
    *,
    wrapped: bool,
) -> ServerProcess:
    """A server that speaks TLS."""
    pem = folder / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    return ServerProcess(
        [argument.replace("{pem}", str(pem)) for argument in COMMANDS[name]],
        env={
            PATH_VARIABLE: str(tap),
            GATE: str(gate or folder / "gate"),
            UPSTREAM_PORT: "1",
            "TEST_CERTIFICATE": str(pem),
            "CLEANCLOSE": "1" if wrapped else "0",
            "CLEANCLOSE_SETTINGS": "{}",
        },
        cwd=ROOT,
        name=f"{name}-tls",
    )


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_departure_is_one_event_and_no_record(name: str, tmp_path: Path) -> None:
    records, events = serve_and_leave(name, tmp_path, wrapped=True)
    assert records == []
    told = sorted((event["request_id"], event["phase"], event["side"]) for event in events)
    assert told == sorted(
        (f"{visit}-{how}", phase, "client")
        for visit, (_, _, phase) in VISITS[name].items()
        for how in HOWS
    )


def leave_before_the_accept(folder: Path, *, wrapped: bool) -> list[Mapping[str, Any]]:
    """What Tornado has said at WARNING and above of clients that it accepts behind their reset."""
    authority = trustme.CA()
    tap = folder / "tap.jsonl"
    with serving("tornado", folder, authority, tap, wrapped=wrapped) as server:
        client = Client(server.port, authority)
        with stopped(server.pid):
            for sent in (0, 60):
                with connected(server.port) as sock:
                    sock.sendall(client.hello()[:sent])
                    leave(sock, "rst")
        # It answers when it has dealt with what came before.
        client.leave_without_goodbye("fin", request("GET", "/settle"), read=True)
    return [record for record in read_tap(tap)[0] if record["level"] >= WARNING]


def test_a_reset_before_tornado_accepts_is_no_record(tmp_path: Path) -> None:
    assert leave_before_the_accept(tmp_path, wrapped=True) == []


def test_of_a_reset_before_bare_tornado_accepts_asyncio_speaks(tmp_path: Path) -> None:
    records = leave_before_the_accept(tmp_path, wrapped=False)
    assert [record["logger"] for record in records] == ["asyncio", "asyncio"]


@pytest.mark.parametrize(("name", "logger"), [("hypercorn", "asyncio"), ("tornado", "tornado")])
def test_the_bare_server_logs_them(name: str, logger: str, tmp_path: Path) -> None:
    records, _ = serve_and_leave(name, tmp_path, wrapped=False)
    # The loop may log beside it.
    assert logger in {record["logger"].partition(".")[0] for record in records}
