"""Access logs on real servers: 499 for who has left, and every other line as it was."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cleanclose.doctor.clients import Upload, strict
from tests.harness.leavers import How, connected, leave_at, request
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.reporting import TORNADO, departures, uvicorn
from tests.harness.stacks import Stack, gunicorn
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve

MIB: Final = 1024 * 1024

_FORMAT: Final = '%(h)s "%(r)s" %(s)s %(b)s "%(f)s"'
_LOGGER: Final = "--logger-class=cleanclose.integrations.gunicorn.Logger"
_CONFIG: Final = f"--log-config={ROOT / 'example_apps' / 'uvicorn_log_config.json'}"


def _gunicorn(kind: str, app: str, *arguments: str) -> Stack:
    return gunicorn(
        f"access-{kind}-{app}-{len(arguments)}",
        app,
        f"--worker-class={kind}",
        "--threads=4" if kind == "gthread" else "--threads=1",
        "--access-logfile=-",
        f"--access-logformat={_FORMAT}",
        *arguments,
        threads=kind != "sync",
    )


def _both(kind: str) -> tuple[Stack, Stack]:
    """A server with our helper, and without."""
    match kind:
        case "sync" | "gthread" | "gevent":
            return _gunicorn(kind, "told_flask", _LOGGER), _gunicorn(kind, "told_flask")
        case "asgi":
            return _gunicorn(kind, "told_asgi", _LOGGER), _gunicorn(kind, "told_asgi")
        case "tornado":
            return TORNADO, TORNADO
        case _:
            http = f"--http={kind}"
            return (
                uvicorn(f"access-{kind}", http, _CONFIG),
                uvicorn(f"access-{kind}-plain", http),
            )


class Log:
    """A server's access log, from the moment that a test began to look."""

    def __init__(self, serve: Serve, kind: str, *, ours: bool = True, **env: str) -> None:
        serve.allow_tracebacks()
        stack = _both(kind)[0 if ours else 1]
        if kind == "tornado" and ours:
            env["TEST_ACCESS"] = "1"
        self.kind = kind
        # Nothing of ours at all, or both the middleware and the helper.
        self.server: ServerProcess = serve(stack, wrapped=ours, env=env)
        self._size = self.server.log_size()

    def lines(self) -> list[str]:
        """What is new of the log, without what each line has of its own."""
        text = self.server.log_text()[self._size :]
        found = [line for line in text.splitlines() if re.search(r"(GET|POST) /", line)]
        found = [line for line in found if "Uncaught exception" not in line]
        # The one that asks for the counters.
        return [_alike(line) for line in found if " / " not in line]

    def left(self, path: str, how: How, **options: Any) -> list[str]:
        """The lines about a client that leaves."""
        method = "POST" if path == "/read" else "GET"
        before, known = departures(self.server), len(self.lines())
        length = 1000 if method == "POST" else None
        leave_at(self.server.port, request(method, path, length=length), how, **options)
        until(lambda: departures(self.server) > before, self.server.log_text)
        departures(self.server)
        return self.lines()[known:]

    def asked(self, *requests: bytes) -> list[str]:
        """The lines about clients that stay."""
        known = len(self.lines())
        for each in requests:
            with connected(self.server.port) as client:
                client.sendall(each)
                with contextlib.suppress(ConnectionError):
                    while client.recv(65536):
                        pass
        until(lambda: len(self.lines()) >= known + len(requests), self.server.log_text)
        departures(self.server)
        return self.lines()[known:]


def _alike(line: str) -> str:
    """Without the time, the client's port, and how long it took."""
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", line)
    line = re.sub(r"\[(\w) \d+ [\d:]+ \w+:\d+\]", r"[\1]", line)
    return re.sub(r"\d+\.\d\dms$", "TIME", line)


def _status(line: str) -> int:
    found = re.search(r'" (\d{3})\b|\[\w\] (\d{3}) ', line)
    assert found, line
    return int(found[1] or found[2])


CLOSE: Final = (("Connection", "close"),)
KINDS: Final = [
    "sync",
    "gthread",
    pytest.param("asgi", marks=pytest.mark.stacks),
    "h11",
    "tornado",
]


@pytest.mark.parametrize("kind", KINDS, scope="module")
def test_who_stays_has_the_line_that_it_had(serve: Serve, kind: str) -> None:
    asked = (
        request("GET", "/missing?a=%20b", headers=CLOSE),
        request("GET", "/reset", headers=CLOSE),
        request("POST", "/read", length=4, headers=CLOSE) + b"four",
        request("POST", "/refuse", length=4, headers=CLOSE) + b"four",
    )
    ours, plain = Log(serve, kind), Log(serve, kind, ours=False)
    assert ours.asked(*asked) == plain.asked(*asked)


@pytest.mark.parametrize("kind", KINDS, scope="module")
def test_an_upstream_that_resets_in_mid_response_is_no_client_that_left(
    serve: Serve, kind: str
) -> None:
    """A broken pipe of ours ends such a response on gunicorn, which takes it for any other."""
    ours, plain = Log(serve, kind), Log(serve, kind, ours=False)
    asked = request("GET", "/reset-later", headers=CLOSE)
    assert ours.asked(asked) == plain.asked(asked)


@pytest.mark.parametrize(
    "kind",
    [*KINDS, "httptools", pytest.param("gevent", marks=pytest.mark.stacks)],
    scope="module",
)
def test_who_leaves_has_499_once(serve: Serve, kind: str) -> None:
    log = Log(serve, kind)
    hows: tuple[How, ...] = ("rst", "fin")
    for how in hows:
        downloading = log.left("/stream", how, read=100_000)
        working = log.left("/work", how)
        assert [_status(line) for line in (*downloading, *working)] == [499, 499], log.lines()
    uploading = log.left("/read", "rst", body=b"some")
    if kind == "tornado":
        # Its handler, which would write the line, is made when the body is there.
        assert uploading == []
    else:
        assert [_status(line) for line in uploading] == [499]


@pytest.mark.parametrize("kind", KINDS, scope="module")
@pytest.mark.negative_control
def test_the_control_who_leaves_has_200_or_no_line(serve: Serve, kind: str) -> None:
    log = Log(serve, kind, ours=False)
    leave_at(log.server.port, request("GET", "/stream"), "rst", read=100_000)
    until(lambda: len(log.lines()) == 1, log.server.log_text)
    assert _status(log.lines()[0]) == 200


def test_what_tornado_has_not_sent_yet_is_waited_for(serve: Serve) -> None:
    log = Log(serve, "tornado")
    # 16 MiB are handed over at once; the client has seen the beginning only.
    assert [_status(line) for line in log.left("/big", "rst", read=1000)] == [499]
    with connected(log.server.port) as client:
        client.sendall(request("GET", "/big", headers=CLOSE))
        assert client.recv(1000)
        departures(log.server)
        assert [_status(line) for line in log.lines()] == [499], "it is not over yet"
        while client.recv(1 << 20):
            pass
    until(lambda: len(log.lines()) == 2, log.server.log_text)
    assert [_status(line) for line in log.lines()] == [499, 200]


@pytest.mark.parametrize("kind", ["sync", "gthread", "h11", "tornado"], scope="module")
def test_an_early_response_keeps_its_status(serve: Serve, kind: str) -> None:
    log = Log(serve, kind)
    assert strict(Upload(port=log.server.port, path="/refuse", body_size=8 * MIB)).status == 413
    until(lambda: len(log.lines()) == 1, log.server.log_text)
    assert _status(log.lines()[0]) == 413


@pytest.mark.parametrize("kind", ["sync", "h11", "tornado"], scope="module")
def test_499_is_never_on_the_wire(serve: Serve, kind: str) -> None:
    log = Log(serve, kind)
    with connected(log.server.port) as client:
        # It leaves, but for reading.
        client.sendall(request("POST", "/read", length=1000, headers=CLOSE) + b"some")
        client.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := client.recv(65536):
                received += data
    assert b"499" not in received


def test_the_example_configuration_is_one(serve: Serve, tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "gunicorn",
        "--config=example_apps/gunicorn_conf.py",
        "--bind=127.0.0.1:{port}",
        "--no-control-socket",
        "tests.harness.apps.told_flask:app",
    )
    env = {"CLEANCLOSE": "1"}
    with ServerProcess(command, env=env, cwd=ROOT, ready_path="/") as server:
        before = departures(server)
        leave_at(server.port, request("GET", "/stream"), "rst", read=100_000)
        until(lambda: departures(server) > before)
        until(lambda: '"GET /stream HTTP/1.1" 499 ' in server.log_text(), server.log_text)
