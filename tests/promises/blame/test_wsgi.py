"""Clients that leave WSGI apps, and upstreams that reset, on real servers.

Nothing at WARNING or above for the one, one event each; an ERROR and a 500 for the other.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cleanclose.doctor.clients import Upload, strict
from tests.harness.asking import get_json
from tests.harness.hiding import HIDES
from tests.harness.leavers import How, connected, leave, leave_at, request, until_read
from tests.harness.stacks import Stack, gunicorn
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.processes import ServerProcess
    from tests.harness.serving import Serve

pytestmark = pytest.mark.stacks

APP: Final = "noise_wsgi"
MIB: Final = 1024 * 1024
DEPARTURES: Final = frozenset({"client_departed", "response_undelivered", "truncated_upload"})


def _own(name: str) -> Stack:
    return Stack(
        name=f"noise-{name}",
        interface="wsgi",
        command=(sys.executable, "-m", f"tests.harness.apps.{APP}", name, "{port}"),
        loses="always",
    )


SYNC: Final = gunicorn("noise-sync", APP, "--worker-class=sync", threads=False)
GTHREAD: Final = gunicorn(
    "noise-gthread", APP, "--worker-class=gthread", "--threads=4", "--keep-alive=30", threads=True
)
GEVENT: Final = gunicorn("noise-gunicorn-gevent", APP, "--worker-class=gevent", threads=True)
WAITRESS: Final = _own("waitress")
CHEROOT: Final = _own("cheroot")
WERKZEUG: Final = _own("werkzeug")
WSGIREF: Final = _own("wsgiref")
PYWSGI: Final = _own("gevent")

HIDING: Final = (SYNC, GTHREAD, GEVENT, CHEROOT, WERKZEUG, WSGIREF, PYWSGI)
"""Servers that take an application's reset for their client's."""
STACKS: Final = (*HIDING, WAITRESS)

RESETS: Final = ("/reset", "/reset-unread", "/reset-first")
BROKEN_OFF: Final = ("/reset-later", "/reset-declared")


class Site:
    """A server with a tap, from the moment that a test began to look."""

    def __init__(self, server: ServerProcess, tap: Path, name: str) -> None:
        self.name = name
        self._server = server
        self._tap = tap
        self.port = server.port
        self._records = self._events = 0
        self.look()
        self._counted = self._count()

    def look(self) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """What is new: records at WARNING and above, and events."""
        records, events = read_tap(self._tap)
        new = records[self._records :], events[self._events :]
        self._records, self._events = len(records), len(events)
        return [record for record in new[0] if record["level"] >= logging.WARNING], new[1]

    def see(self, *names: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """The same, once so many events are there; then a request more, for what comes behind."""
        until(
            lambda: len(read_tap(self._tap)[1]) - self._events >= len(names),
            lambda: f"of {names} there is only {self.look()}",
        )
        self._count()
        records, events = self.look()
        assert sorted(event["event"] for event in events) == sorted(names), (records, events)
        return records, events

    def log_text(self) -> str:
        """What the server has printed."""
        return self._server.log_text()

    def departures_counted(self) -> float:
        """By how much the counter of departures has grown since the last time."""
        before, self._counted = self._counted, self._count()
        return self._counted - before

    def _count(self) -> float:
        counters: dict[str, float] = get_json(self._server.port)
        return sum(
            value
            for name, value in counters.items()
            if name.startswith("cleanclose_departures_total")
        )

    def ask(self, data: bytes) -> bytes:
        """Send this, and read to the end."""
        with connected(self.port) as client:
            client.sendall(data)
            return read_to_end(client)


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
    return received


@pytest.fixture(scope="module")
def taps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("taps")


class Sites:
    def __init__(self, serve: Serve, folder: Path) -> None:
        self._serve = serve
        self._folder = folder

    def __call__(
        self, stack: Stack, *, wrapped: bool = True, framework: str = "raw", **env: str
    ) -> Site:
        """A running server, looked at from now on."""
        # An upstream's reset and what bottle and falcon print are tracebacks.
        self._serve.allow_tracebacks()
        tap = self._folder / f"{stack.name}-{framework}-{wrapped}-{'-'.join(env)}"
        server = self._serve(
            stack,
            wrapped=wrapped,
            env={PATH_VARIABLE: str(tap), "TEST_FRAMEWORK": framework, **env},
        )
        return Site(server, tap, stack.name)


@pytest.fixture
def site(serve: Serve, taps: Path) -> Sites:
    return Sites(serve, taps)


def leave_at_the_gate(port: int, path: str, how: How | None, gate: Path) -> bytes:
    """Leave while the handler works, and let it go on; without ``how``, stay for the answer."""
    with connected(port) as client:
        client.sendall(request("GET", f"{path}?{gate}", headers=(("Connection", "close"),)))
        until(gate.with_suffix(".entered").exists, "the handler was not called")
        if how is not None:
            leave(client, how)
        gate.touch()
        return read_to_end(client) if how is None else b""


HOWS: Final[tuple[How, ...]] = ("rst", "fin")


@pytest.mark.parametrize("stack", STACKS, ids=str, scope="module")
def test_an_upload_that_is_cut(site: Sites, stack: Stack) -> None:
    here = site(stack)
    paths = ("/read", "/read-length", "/read-lines", "/read-pieces")
    for how, path in itertools.product(HOWS, paths):
        leave_at(here.port, request("POST", path, length=1000), how, body=b"ab\ncd")
        if stack is WAITRESS:
            # It reads the body first: such a request never comes to the application.
            continue
        # gevent.pywsgi raises by itself.
        whole = how == "fin" and stack is not PYWSGI
        records, [event] = here.see("truncated_upload" if whole else "client_departed")
        assert not records
        assert event["phase"] == "request_body"
        assert event["mechanism"] == {"rst": "reset", "fin": "eof"}[how]
        assert event["side"] == "client"
        assert "accepted" not in event or event["accepted"] is False
        assert here.departures_counted() == 1
    if stack is WAITRESS:
        here.see()


@pytest.mark.parametrize("stack", STACKS, ids=str, scope="module")
def test_left_while_the_handler_works(site: Sites, stack: Stack, tmp_path: Path) -> None:
    here = site(stack)
    for how in HOWS:
        leave_at_the_gate(here.port, "/work", how, tmp_path / how)
        if stack is WAITRESS:
            # It looks at the connection again when it has written the response.
            here.see()
            continue
        records, [event] = here.see("client_departed")
        assert not records
        assert event["phase"] == "handler"
        assert event["mechanism"] == {"rst": "reset", "fin": "eof"}[how]
        assert here.departures_counted() == 1


def test_waitress_tells_if_it_looks_ahead(site: Sites, tmp_path: Path) -> None:
    here = site(WAITRESS, TEST_LOOKAHEAD="1")
    gate = tmp_path / "gate"
    with connected(here.port) as client:
        client.sendall(request("GET", f"/work?{gate}"))
        until(gate.with_suffix(".entered").exists, "the handler was not called")
        leave(client, "fin")
    # Its own thread notices, and answers this one only afterwards.
    assert b" 200 OK" in here.ask(request("GET", "/", headers=(("Connection", "close"),)))
    gate.touch()
    records, [event] = here.see("client_departed")
    assert not records
    assert (event["phase"], event["witnesses"]) == ("handler", "server,close")


@pytest.mark.parametrize("stack", STACKS, ids=str, scope="module")
def test_left_while_the_response_streams(site: Sites, stack: Stack) -> None:
    here = site(stack)
    for how, path in itertools.product(HOWS, ("/stream", "/write", "/file", "/big")):
        leave_at(here.port, request("GET", path), how, read=100_000)
        if stack is WAITRESS and path == "/big":
            # What it has in its buffers, its own thread sends when the application has gone.
            here.see()
            continue
        records, [event] = here.see("client_departed")
        assert not records, path
        assert event["phase"] in ("response_start", "response_body")
        assert event["status"] == 200
        if path == "/file":
            # The server sends it by itself; the client has had 100,000 bytes with the head.
            assert event["phase"] == "response_body"
            assert 90_000 < event["bytes_out"] <= 64 * MIB
        assert here.departures_counted() == 1


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
@pytest.mark.negative_control
def test_the_control_a_hidden_upstream_reset(site: Sites, stack: Stack) -> None:
    here = site(stack, wrapped=False)
    for path in RESETS:
        close = (("Connection", "close"),)
        answer = here.ask(request("POST", path, length=5, headers=close) + b"hello")
        assert b" 500 " not in answer, path
    # The upstream's reset is no record of anybody's.
    assert here.see() == ([], [])


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
def test_a_hidden_upstream_reset_is_restored(site: Sites, stack: Stack) -> None:
    here = site(stack)
    close = (("Connection", "close"),)
    for path in RESETS:
        answer = here.ask(request("POST", path, length=5, headers=close) + b"hello")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 500 Internal Server Error\r\n" in head + b"\r\n"
        assert head.lower().count(b"content-length") == 1
        assert body == b"Internal Server Error\n"
        # The upload that was not read is drained like that of any response.
        drained = () if path == "/reset" else ("upload_drained",)
        records, events = here.see("upstream_reset", *drained)
        _is_one_error(records, events[0])
        assert events[0]["restored"] is True
    for path in BROKEN_OFF:
        answer = here.ask(request("GET", path, headers=close))
        assert b" 200 OK\r\n" in answer
        assert b"begun" in answer
        # Neither a last chunk nor 1000 bytes.
        assert not answer.endswith(b"0\r\n\r\n")
        records, events = here.see("upstream_reset")
        _is_one_error(records, events[0])
    answer = here.ask(request("GET", "/reset-close", headers=close))
    assert b"ended" in answer
    records, events = here.see("upstream_reset")
    _is_one_error(records, events[0])
    assert here.departures_counted() == 0


def _is_one_error(records: list[Mapping[str, Any]], event: Mapping[str, Any]) -> None:
    [record] = records
    assert (record["logger"], record["level"]) == ("cleanclose", logging.ERROR)
    assert record["error"] == "ConnectionResetError"
    assert (event["event"], event["side"]) == ("upstream_reset", "upstream")


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
def test_an_upstream_reset_is_told_although_the_client_has_left(
    site: Sites, stack: Stack, tmp_path: Path
) -> None:
    here = site(stack)
    for how in HOWS:
        leave_at_the_gate(here.port, "/reset-gone", how, tmp_path / how)
        records, events = here.see("upstream_reset", "client_departed")
        _is_one_error(records, events[0])
        assert here.departures_counted() == 1


def test_what_waitress_tells_is_left_to_it(site: Sites) -> None:
    here = site(WAITRESS)
    for path in (*RESETS, "/refused"):
        answer = here.ask(
            request("POST", path, length=5, headers=(("Connection", "close"),)) + b"hello"
        )
        assert b"generated by waitress" in answer
        records, _ = here.see(*(() if path == "/refused" else ("upstream_reset",)))
        assert [record["error"] for record in records if record["logger"] == "waitress"]


@pytest.mark.parametrize("stack", [WERKZEUG, CHEROOT], ids=str, scope="module")
def test_a_refused_upstream_is_restored_where_it_is_hidden(site: Sites, stack: Stack) -> None:
    bare = site(stack, wrapped=False)
    asked = request("GET", "/refused", headers=(("Connection", "close"),))
    assert b" 500 " not in bare.ask(asked), "the control"
    here = site(stack)
    assert b" 500 " in here.ask(asked)
    [record], [event] = here.see("upstream_reset")
    assert (record["level"], record["error"]) == (logging.ERROR, "ConnectionRefusedError")
    assert event["side"] == "unknown"


def test_what_gunicorn_reports_is_left_to_it(site: Sites) -> None:
    here = site(SYNC)
    assert here.ask(request("GET", "/refused")) == b""
    [record], [] = here.see()
    assert (record["logger"], record["error"]) == ("gunicorn.error", "ConnectionRefusedError")


@pytest.mark.parametrize("stack", [SYNC, GTHREAD], ids=str, scope="module")
def test_a_restored_500_reaches_a_client_that_still_uploads(site: Sites, stack: Stack) -> None:
    here = site(stack)
    outcome = strict(Upload(port=here.port, path="/reset-unread", body_size=8 * MIB))
    assert outcome.status == 500
    here.see("upstream_reset", "upload_drained")


FRAMEWORKS: Final = ("flask", "django", "bottle", "pyramid", "falcon")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_upload_that_is_cut_in_a_framework(site: Sites, framework: str) -> None:
    here = site(GTHREAD, framework=framework)
    for how in HOWS:
        leave_at(here.port, request("POST", "/read", length=1000), how, body=b"abcd")
        records, [event] = here.see("client_departed" if how == "rst" else "truncated_upload")
        assert not records
        assert event["phase"] == "request_body"
        assert here.departures_counted() == 1
        if framework in ("flask", "bottle"):
            assert event["route"] == "/read"


@pytest.mark.parametrize("framework", ["flask", "django"])
@pytest.mark.negative_control
def test_the_control_the_noise_of_a_cut_upload(site: Sites, framework: str) -> None:
    here = site(GTHREAD, framework=framework, wrapped=False)
    leave_at(here.port, request("POST", "/read", length=1000), "rst", body=b"abcd")
    found: list[Mapping[str, Any]] = []

    def look() -> bool:
        found.extend(here.look()[0])
        return bool(found)

    until(look, "no noise")
    assert found[0]["level"] == logging.ERROR


def _short_upload(port: int, path: str) -> bytes:
    """Half of a body and the end of the sending; the answer's first line."""
    with connected(port) as client:
        client.sendall(
            request("POST", path, length=1000, headers=(("Connection", "close"),)) + b"x" * 500
        )
        until_read(client)
        client.shutdown(socket.SHUT_WR)
        return read_to_end(client).partition(b"\r\n")[0]


@pytest.mark.parametrize("framework", ["raw", *FRAMEWORKS])
@pytest.mark.parametrize("stack", [SYNC, GTHREAD], ids=str, scope="module")
def test_a_short_upload_is_never_accepted(site: Sites, stack: Stack, framework: str) -> None:
    paths: tuple[str, ...] = ("/read", "/read-length", "/read-lines", "/read-pieces")
    if framework != "raw":
        paths = ("/read",)
    bare = site(stack, wrapped=False, framework=framework)
    if framework != "pyramid":
        # webob counts by itself.
        for path in paths:
            assert b" 200 OK" in _short_upload(bare.port, path), "the control"
    here = site(stack, framework=framework)
    tries = 100 // len(paths)
    for path in paths:
        answers = [_short_upload(here.port, path) for _ in range(tries)]
        assert not [answer for answer in answers if b" 2" in answer]
        assert all(answer.startswith(b"HTTP/1.1 ") for answer in answers)
    records, events = here.see(*["truncated_upload"] * 100)
    assert not records
    assert not [event for event in events if event["accepted"]]
    assert here.departures_counted() == 100


@pytest.mark.parametrize("framework", ["bottle", "falcon"])
def test_who_notices_half_a_body_answers_as_without_us(site: Sites, framework: str) -> None:
    asked = request(
        "POST",
        "/json",
        length=1000,
        headers=(("Content-Type", "application/json"), ("Connection", "close")),
    )
    answers: list[bytes] = []
    for wrapped in (False, True):
        here = site(GTHREAD, framework=framework, wrapped=wrapped)
        with connected(here.port) as client:
            client.sendall(asked + b'{"name": "re')
            until_read(client)
            client.shutdown(socket.SHUT_WR)
            head, _, body = read_to_end(client).partition(b"\r\n\r\n")
        answers.append(head.partition(b"\r\n")[0] + body)
        records, events = here.see(*["truncated_upload"] * wrapped)
        assert not records
        assert not [event for event in events if event["accepted"]]
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
def test_client_gone(site: Sites, stack: Stack, tmp_path: Path) -> None:
    here = site(stack)
    said: list[str] = []
    hows: tuple[How | None, ...] = ("rst", "fin", None)
    for how in hows:
        gate = tmp_path / str(how)
        answer = leave_at_the_gate(here.port, "/gone", how, gate)
        here.see(*(() if how is None else ("client_departed",)))
        said.append(gate.with_suffix(".gone").read_text())
        assert b"done" in answer or how is not None
    assert said == ["True", "True", "False"]


class Told:
    """How often a server has told of the application's own error, from now on."""

    def __init__(self, here: Site) -> None:
        self._here = here
        self._before = self._count()

    def _count(self) -> tuple[int, int]:
        text = self._here.log_text()
        # Its traceback goes down to the line; our own word for a short body is none of it.
        return text.count(BUG), text.count("TruncatedBodyError")

    def once(self) -> None:
        """It was told once, and nothing else in its place."""
        bugs, others = self._before
        until(lambda: self._count()[0] > bugs, self._here.log_text)
        told, others_now = self._count()
        # wsgiref shows it again as the context of what its own answer met.
        assert told == bugs + 1 or self._here.name == WSGIREF.name, self._here.log_text()
        assert others_now == others, self._here.log_text()
        self._before = self._count()


BUG: Final = "\nKeyError: 'order'"


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
def test_a_client_cannot_hide_an_error(site: Sites, stack: Stack) -> None:
    here = site(stack)
    told = Told(here)
    # gevent.pywsgi raises by itself when a body ends too early.
    event = "client_departed" if stack is PYWSGI else "truncated_upload"
    for construct in HIDES:
        assert b" 500 " in _short_upload(here.port, f"/hide?{construct}"), construct
        here.see(event)
        told.once()
        leave_at(here.port, request("POST", f"/hide?{construct}", length=1000), "rst", body=b"ab")
        here.see("client_departed")
        told.once()


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
def test_nor_one_in_the_response(site: Sites, stack: Stack) -> None:
    here = site(stack)
    told = Told(here)
    for how in HOWS:
        path = "/hide-in-pieces?finally"
        leave_at(here.port, request("POST", path, length=1000), how, body=b"abcd")
        if how == "rst" and here.name == "noise-cheroot":
            # It sends the head behind the error, to nobody, and that hides the error: bare as well.
            _, events = here.see("client_departed", "upstream_reset")
            (restored,) = [each for each in events if each["event"] == "upstream_reset"]
            assert (restored["error"], restored["restored"]) == ("builtins.KeyError", True)
            told.once()
            continue
        here.see("truncated_upload" if how == "fin" and stack is not PYWSGI else "client_departed")
        told.once()


@pytest.mark.parametrize("stack", HIDING, ids=str, scope="module")
@pytest.mark.negative_control
def test_the_control_a_bare_server_tells_of_it(site: Sites, stack: Stack) -> None:
    """So a wrapped one must: the client has only ended its sending, and reads the answer."""
    here = site(stack, wrapped=False)
    told = Told(here)
    answer = _short_upload(here.port, "/hide?finally")
    assert b" 500 " in answer
    told.once()
