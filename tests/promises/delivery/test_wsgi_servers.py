"""Early responses, clients that misbehave and normal requests, on every other WSGI server.

The servers are those of `tests.harness.servers_wsgi`; gunicorn's sync and gthread workers have
their own tests in ``tests/promises/delivery``.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest

from cleanclose.doctor import Fault, Outcome, Upload, body_pieces, reader, strict
from tests.harness.apps import routes
from tests.harness.asking import post_and_get
from tests.harness.kernel import connections_at
from tests.harness.processes import ServerProcess
from tests.harness.scenarios import (
    CORE,
    GUARD,
    KIB,
    MIB,
    PATHS,
    STREAM_BEHIND_CADDY,
    TRIES,
    Scenario,
)
from tests.harness.servers_wsgi import HTTPD, MOD_WSGI_ROWS, row
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import Stack, gunicorn
from tests.harness.verdicts import arrived, assert_clean, assert_delivered, repeat
from tests.harness.waiting import until
from tests.harness.watching import DRAINED, SLACK, Watch, check_no_confusion, get_json

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(GUARD)]

FEW: Final = TRIES if TRIES > 3 else 1
"""One try of each on every server is a minute's work already; more where more are asked for."""

_NAMES: Final = (
    "length-8",
    "length-64",
    "chunked-8",
    "chunked-64",
    "close-8",
    "large-8",
    "large-close-64",
    "slow-close",
    "slow-chunked",
    "after-close",
    "streaming",
    "redirect-close",
    "nothing-close",
)
SCENARIOS: Final = [scenario for scenario in (*CORE, *PATHS) if scenario.name in _NAMES]

CAPS: Final[SettingsOptions] = {
    "max_seconds": 1.5,
    "idle_seconds": 0.5,
    "hold_seconds": 0.2,
    "respond_after": 0.1,
    "max_bytes": 6 * MIB,
}
UPLOAD: Final = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, listen=0.1, timeout=SLACK)

NEVER_ASKED: Final = frozenset({"waitress"})
"""Has read everything before the application runs: there is nothing to do, and nothing is done."""
NO_SOCKET: Final = frozenset({"granian-wsgi"})
"""No way to wait for a while only."""
NO_ANSWER: Final = frozenset({"uwsgi", "uwsgi-router"})
"""Send no byte when the application raises."""
DAEMON: Final = "mod_wsgi"
"""Answers when the whole body has come: ``wsgi_execute_remote`` sends it to the daemon process
first, and reads nothing of the response meanwhile."""


# Early responses.


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_refusal_arrives(serve: Serve, tally: Tally, stack: Stack, scenario: Scenario) -> None:
    if scenario.upload.chunked and not stack.chunked:
        pytest.skip(f"{stack} shows the application no chunked bodies")
    if stack.name == DAEMON and scenario.body == routes.LARGE:
        pytest.skip("wsgi_execute_remote of mod_wsgi blocks: see the test of it")
    server = serve(stack)
    outcomes = repeat(strict, scenario.to(server.port), FEW)
    tally(
        f"{stack} {scenario}",
        "strict",
        wrapped=True,
        delivered=sum(arrived(outcome, scenario) for outcome in outcomes),
        tries=FEW,
    )
    assert_delivered(outcomes, scenario)
    assert not any(outcome.reset_seen for outcome in outcomes)


@pytest.mark.negative_control
@pytest.mark.parametrize("name", ["close-8", "slow-close", "after-close"])
def test_without_the_middleware_it_is_lost(
    serve: Serve, tally: Tally, stack: Stack, name: str
) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    if not scenario.lost_by(stack):
        pytest.skip(f"{stack} reads on by itself")
    server = serve(stack, wrapped=False)
    outcomes = repeat(strict, scenario.to(server.port), 3)
    delivered = sum(arrived(outcome, scenario) for outcome in outcomes)
    tally(f"{stack} {scenario}", "strict", wrapped=False, delivered=delivered, tries=3)
    assert delivered < 3


@pytest.mark.negative_control
@pytest.mark.parametrize("name", ["werkzeug", "werkzeug-unthreaded"])
def test_without_the_middleware_werkzeug_does_not_close(serve: Serve, name: str) -> None:
    """It reads on for what may come behind the body, until the client closes."""
    server = serve(row(name), wrapped=False)
    outcome = strict(replace(UPLOAD, port=server.port, timeout=4.0))
    assert (outcome.status, outcome.closed_by) == (413, "timeout")


def test_refusal_arrives_over_http_1_0(serve: Serve, stack: Stack) -> None:
    server = serve(stack)
    outcomes = repeat(strict, replace(UPLOAD, port=server.port, http_version="1.0"), FEW)
    assert [outcome.status for outcome in outcomes] == [413] * FEW, "\n".join(map(str, outcomes))
    assert_clean(outcomes)


@pytest.mark.parametrize("manner", ["patient", "impatient"])
def test_expectation(serve: Serve, stack: Stack, chunked: bool, manner: str) -> None:
    """One final answer, and no 100 behind it."""
    server = serve(stack)
    upload = replace(
        UPLOAD,
        port=server.port,
        chunked=chunked,
        expect="patient" if manner == "patient" else "impatient",
        expect_seconds=5.0,
    )
    outcome = strict(upload)
    if stack.name in NO_SOCKET and manner == "impatient":
        # hyper sends the 100 with the first reading, and ends the exchange with the answer: the
        # body of a client that did not wait can be read neither before nor behind it.
        assert outcome.status in (None, 413), str(outcome)
        return
    assert outcome.status == 413, str(outcome)
    assert len(outcome.transcript.responses) == 1, str(outcome)
    continued = [response.status for response in outcome.transcript.informational]
    if stack.name == "werkzeug":
        # Over HTTP/1.1 both it and http.server below it send one.
        assert continued == [100, 100], str(outcome)
        assert set(outcome.transcript.faults) <= {Fault.UNASKED_CONTINUE}, str(outcome)
        continued.pop()
    else:
        assert_clean([outcome])
    assert continued in ([], [100]), str(outcome)
    if manner == "patient":
        assert outcome.bytes_sent in (0, 8 * MIB)
        # The answer may have come together with the 100.
        assert continued or not outcome.bytes_sent, str(outcome)


def test_nothing_is_written_into_a_stream_behind_caddy(
    serve: Serve, stack: Stack, chunked: bool
) -> None:
    server = serve(stack)
    outcome = strict(replace(STREAM_BEHIND_CADDY, port=server.port, chunked=chunked))
    response = outcome.response
    if response is None:
        assert stack.name in NO_SOCKET, str(outcome)
        return
    assert b"100 Continue" not in response.body, str(outcome)
    assert outcome.transcript.stray == b"", str(outcome)
    if stack.name not in NO_SOCKET:
        assert (response.status, response.body) == (413, b"".join(routes.CHUNKS)), str(outcome)


@pytest.mark.parametrize("beyond", [-1, 0, 1], ids=["below", "at", "above"])
def test_a_body_around_the_cap(serve: Serve, stack: Stack, chunked: bool, beyond: int) -> None:
    if chunked and beyond <= 0:
        pytest.skip("the framing takes no part in it")
    server = serve(stack, settings=CAPS)
    if stack.name in NO_SOCKET and beyond > 0:
        pytest.skip("the exchange ends with the response: nothing can be held behind it")
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            body_size=6 * MIB + beyond,
            chunked=chunked,
            keep_sending=True,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert outcome.transcript.clean, str(outcome)
    assert outcome.closed_by != "timeout", str(outcome)


@pytest.mark.parametrize("pause", [0.0, 0.015], ids=["fast", "slow"])
def test_the_servers_own_500_arrives(serve: Serve, stack: Stack, pause: float) -> None:
    """The application raises, with the body unread: the server answers, not we."""
    serve.allow_tracebacks()
    server = serve(stack)
    outcome = strict(
        replace(UPLOAD, port=server.port, path=routes.ERROR, body_size=4 * MIB, pause=pause)
    )
    if stack.name in NO_ANSWER:
        assert outcome.raw == b"", str(outcome)
        assert not outcome.reset_seen
        return
    assert outcome.status == 500, str(outcome)
    assert_clean([outcome])


@pytest.mark.negative_control
@pytest.mark.parametrize("name", ["gunicorn-gevent", "cheroot", "wsgiref", "granian-wsgi"])
def test_without_the_middleware_the_servers_own_500_is_lost(serve: Serve, name: str) -> None:
    server = serve(row(name), wrapped=False)
    outcomes = repeat(strict, replace(UPLOAD, port=server.port, path=routes.ERROR), 3)
    assert any(outcome.status is None for outcome in outcomes)


def test_a_request_behind_the_unread_body(serve: Serve, stack: Stack, chunked: bool) -> None:
    """It is answered behind the refusal, or not at all."""
    server = serve(stack)
    outcome = strict(
        replace(UPLOAD, port=server.port, body_size=MIB, chunked=chunked, follow_up="pipelined")
    )
    assert outcome.followed_up
    assert outcome.status == 413, str(outcome)
    assert outcome.transcript.clean, str(outcome)
    assert outcome.closed_by != "timeout", str(outcome)
    if outcome.second is not None:
        assert (outcome.second.status, outcome.second.body) == (200, routes.OK_BODY)
    else:
        assert outcome.closed_by is not None


def test_the_next_request_is_served(serve: Serve, stack: Stack, chunked: bool) -> None:
    """Behind a body that has come with its head: a worker waits for no more."""
    if not stack.keeps_alive:
        pytest.skip(f"{stack} keeps no connection")
    server = serve(stack)
    # Not a 413: cheroot closes behind each of those.
    transcript = post_and_get(server.port, routes.REDIRECT, chunked=chunked)
    assert [response.status for response in transcript.responses] == [303, 200]
    assert transcript.clean


SLOW: Final = replace(UPLOAD, piece_size=256 * KIB, pause=0.02)
"""One that is under way for 0.6 s, so that several of them are at the same time."""


def at_once(server: ServerProcess, count: int) -> list[Outcome]:
    """The outcomes of so many slow uploads at the same time."""
    upload = replace(SLOW, port=server.port, timeout=SLACK)
    with ThreadPoolExecutor(count) as clients:
        return list(clients.map(strict, [upload] * count))


@pytest.mark.parametrize(
    ("name", "count"), [("cheroot", 2), ("uwsgi", 2), ("uwsgi-router", 2), ("werkzeug", 4)]
)
def test_half_of_the_threads_drain_at_once(serve: Serve, name: str, count: int) -> None:
    """Each of the servers has four, but Werkzeug's development server has as many as it takes."""
    server = serve(row(name), settings={"max_draining": 50})
    outcomes = at_once(server, count)
    assert [outcome.status for outcome in outcomes] == [413] * count, outcomes
    assert_clean(outcomes)


def test_werkzeugs_own_reading_holds_nobody(serve: Serve) -> None:
    """Its development server reads on by itself, bare, until its client has closed."""
    server = serve(row("werkzeug"), settings={"max_draining": 1})
    outcomes = at_once(server, 4)
    assert [outcome.status for outcome in outcomes] == [413] * 4, outcomes
    assert {outcome.closed_by for outcome in outcomes} == {"fin"}


# Clients that misbehave.


def bystander(server: ServerProcess) -> Outcome:
    return strict(Upload(port=server.port, method="GET", path=routes.INDEX, timeout=60.0))


@pytest.mark.parametrize("manner", ["stall", "stall-early", "dribble"])
def test_a_client_that_stalls_is_let_go(
    serve: Serve, stack: Stack, chunked: bool, manner: str
) -> None:
    if stack.name in (NO_SOCKET | NEVER_ASKED):
        pytest.skip("nothing ends the server's own waiting")
    if stack.name in HTTPD:
        pytest.skip("httpd's time-outs end it: see the tests of them")
    if manner == "dribble" and chunked:
        pytest.skip("for nobody but the clock it is the same")
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    upload = replace(UPLOAD, port=server.port, chunked=chunked, keep_sending=True)
    if manner == "dribble":
        upload = replace(upload, piece_size=16, pause=0.1)
    else:
        upload = replace(
            upload,
            body_size=8 * MIB if manner == "stall" else 3000,
            abort_after=5 * MIB if manner == "stall" else 1000,
            abort_how="stall",
        )
    outcomes: list[Outcome] = []
    client = threading.Thread(target=lambda: outcomes.append(reader(upload)))
    until(lambda: not connections_at(server.port))
    client.start()
    # It is before the other one in the server's queue, if not accepted already.
    until(lambda: connections_at(server.port) or outcomes)
    # Where there is one worker only, this is served when that one is free again.
    served = bystander(server)
    client.join()
    assert served.status == 200, str(served)
    outcome = outcomes[0]
    assert outcome.status == 413, str(outcome)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.transcript.clean, str(outcome)
    # Where the kernel can be asked, the response has arrived. uWSGI's own time-out is an OSError
    # that does not say what it was.
    ways = ("cut", "delivered", "reset", "unknown")
    assert watch.grown(*(DRAINED % how for how in ways)), watch.changes()
    watch.check()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("path", [routes.REFUSE, routes.ERROR])
def test_a_client_that_stalls_never_has_the_last_of_granians_threads(
    serve: Serve, threads: int, path: str
) -> None:
    """Nothing ends the waiting for it: no middleware may wait where nobody else is served."""
    serve.allow_tracebacks()
    stack = row("granian-wsgi")
    command = (*stack.command[:-2], f"--blocking-threads={threads}", stack.command[-1])
    server = serve(replace(stack, command=command))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {8 * MIB}\r\n\r\n"
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(
                socket.create_connection(("127.0.0.1", server.port), SLACK)
            )
            client.sendall(head.encode() + bytes(100 * KIB))
            time.sleep(0.2)
        assert bystander(server).status == 200


@pytest.mark.parametrize(
    ("how", "pause"),
    [("reset", 0.0), ("reset", 0.02), ("half_close", 0.02)],
    ids=["reset-in-the-drain", "reset", "half_close"],
)
def test_a_client_that_leaves(
    serve: Serve, stack: Stack, chunked: bool, how: str, pause: float
) -> None:
    """In the drain and in the linger: the server is well, and took nothing for a request."""
    if chunked and not pause:
        pytest.skip("tried with a Content-Length")
    server = serve(stack, settings=CAPS)
    if stack.name == "eventlet":
        # It prints what its own write has raised, bare as well.
        serve.allow_tracebacks()
    watch = Watch(server)
    upload = replace(
        UPLOAD,
        port=server.port,
        chunked=chunked,
        pause=pause,
        abort_after=MIB,
        keep_sending=True,
    )
    if how == "half_close":
        outcome = reader(replace(upload, abort_how="half_close"))
        # httpd's own word, which the application never hears of.
        ends = (500,) if stack.name == DAEMON else (None, 400, 413)
        assert outcome.status in ends, str(outcome)
        assert outcome.closed_by in ("fin", "reset"), str(outcome)
        check_no_confusion(outcome)
    else:
        reader(replace(upload, abort_how="reset"))
    watch.check()


BAIT: Final = b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n"
BAITS: Final = {
    "trailers": b"5\r\nhello\r\n0\r\n" + BAIT + BAIT,
    "behind-trailers": b"5\r\nhello\r\n0\r\nX-Trailer: one\r\n" + BAIT,
    "leftover": b"100000\r\n" + BAIT * 40,
    "in-a-chunk": b"%x\r\n%b\r\n0\r\n\r\n" % (len(BAIT) * 40, BAIT * 40),
}


@pytest.mark.parametrize("path", [routes.REFUSE, routes.REDIRECT, routes.ACCEPT])
@pytest.mark.parametrize("bait", BAITS)
def test_no_part_of_a_chunked_body_is_a_request(
    serve: Serve, stack: Stack, path: str, bait: str
) -> None:
    if stack.name == "waitress" and bait == "trailers":
        pytest.skip("ChunkedReceiver takes any lines for trailers, before the application runs")
    waiting = NO_SOCKET | NEVER_ASKED | HTTPD
    if bait == "leftover" and (path == routes.ACCEPT or stack.name in waiting):
        pytest.skip("somebody waits for the rest of it, who has to")
    serve.allow_tracebacks()
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            path=path,
            headers=(("Transfer-Encoding", "chunked"),),
            raw_body=BAITS[bait],
            keep_sending=True,
            timeout=4.0,
        )
    )
    finals = outcome.transcript.responses
    if len(finals) > 1 or outcome.transcript.stray:
        # A server's word about what it cannot make out; never the answer to the bait.
        assert b"HTTP/1.1 404" not in outcome.raw, str(outcome)
        assert b" 400 " in outcome.raw, str(outcome)
    assert Fault.INFORMATIONAL_AFTER_FINAL not in outcome.transcript.faults
    watch.check()


@pytest.mark.negative_control
def test_without_the_middleware_cheroot_takes_trailers_for_a_request(serve: Serve) -> None:
    server = serve(row("cheroot"), wrapped=False)
    before = smuggled(server)
    reader(
        replace(
            UPLOAD,
            port=server.port,
            path=routes.ACCEPT,
            headers=(("Transfer-Encoding", "chunked"),),
            raw_body=BAITS["trailers"],
            timeout=4.0,
        )
    )
    assert smuggled(server) > before


def smuggled(server: ServerProcess) -> int:
    seen = cast("dict[str, int]", get_json(server, routes.SEEN))
    return seen["smuggled"]


# httpd and mod_wsgi: what is theirs stays as it is.


@pytest.fixture(scope="module", params=MOD_WSGI_ROWS, ids=str)
def impatient(request: pytest.FixtureRequest, mod_wsgi_folder: Path) -> Stack:
    """The same rows, with short time-outs."""
    chosen: Stack = request.param
    return replace(
        chosen,
        name=f"{chosen}-impatient",
        command=(*chosen.command, "--socket-timeout=1", "--body-timeout=1"),
        env={"TEST_MOD_WSGI": str(mod_wsgi_folder)},
    )


def serves(serve: Serve, impatient: Stack, *, wrapped: bool) -> ServerProcess:
    """Such a server, once it serves.

    Until its application has been imported, which may take longer than the time-outs, httpd gives
    requests up: the one that asks whether the server is ready, too. Its daemon process meets them
    later, and says in a traceback that they have no end.
    """
    server = serve(impatient, wrapped=wrapped)
    until(lambda: [bystander(server).status for _ in range(2)] == [200, 200], server.log_text)
    serve.leave_out_what_was_said_by(server)
    return server


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("early", [False, True], ids=["stall", "stall-early-chunked"])
def test_httpd_lets_a_client_that_stalls_go(
    serve: Serve, impatient: Stack, early: bool, wrapped: bool
) -> None:
    server = serves(serve, impatient, wrapped=wrapped)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            chunked=early,
            body_size=3000 if early else 8 * MIB,
            abort_after=1000 if early else 5 * MIB,
            abort_how="stall",
            keep_sending=True,
        )
    )
    # In daemon mode the application's answer is never asked for.
    expected = 413 if "embedded" in impatient.name else 408
    assert outcome.status == expected, str(outcome)
    assert_clean([outcome])
    assert bystander(server).status == 200


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_mod_wsgi_blocks_on_a_large_early_answer(
    serve: Serve, impatient: Stack, wrapped: bool
) -> None:
    """A limit of daemon mode, also for a client that reads, with the middleware as without.

    The process of httpd waits in ``wsgi_execute_remote`` for the daemon process to take the body,
    and that one waits for its answer to be taken. The time-out cuts the answer off.
    """
    server = serves(serve, impatient, wrapped=wrapped)
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "large-8")
    outcome = reader(replace(scenario.to(server.port), keep_sending=True))
    assert arrived(outcome, scenario) == ("embedded" in impatient.name), str(outcome)
    assert bystander(server).status == 200


# TLS.


@pytest.fixture(scope="module")
def certificate(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Path:
    """A key and its certificate, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        [
            require_program("openssl"),
            *arguments.split(),
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            str(file),
            "-out",
            str(file.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def tls_server(name: str, file: Path, *, wrapped: bool) -> ServerProcess:
    if name == "gunicorn":
        arguments = (f"--certfile={file}", f"--keyfile={file}", "--threads=4")
        chosen = gunicorn("gunicorn-tls", "raw_wsgi", *arguments, threads=True)
    else:
        chosen = row(name)
    process = chosen.process(
        wrapped=wrapped, env={"TEST_TLS": str(file)}, settings={"idle_seconds": 0.8}
    )
    # Being ready is asked for in plain HTTP.
    process.ready_path = None
    return process


def tls_connection(port: int) -> http.client.HTTPSConnection:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)


def refused(port: int, *, chunked: bool = False, pause: float = 0.0) -> tuple[int, bytes]:
    """http.client's answer to an upload; a failed send is its end."""
    connection = tls_connection(port)

    def pieces() -> Iterator[bytes]:
        for piece in body_pieces(8 * MIB, 256 * KIB):
            time.sleep(pause)
            yield bytes(piece)

    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(8 * MIB)}
    with contextlib.closing(connection):
        connection.request(
            "POST", routes.REFUSE, body=pieces(), headers=headers, encode_chunked=chunked
        )
        response = connection.getresponse()
        return response.status, response.read()


@pytest.mark.parametrize("name", ["werkzeug", "cheroot", "gevent", "gunicorn"])
def test_refusal_arrives_over_tls(name: str, certificate: Path) -> None:
    with tls_server(name, certificate, wrapped=True) as server:
        for chunked in (False, True):
            assert refused(server.port, chunked=chunked) == (413, routes.REFUSAL)
        # Longer than the response is kept back.
        assert refused(server.port, pause=0.025) == (413, routes.REFUSAL)
        # A client that stalls gets its answer too, and the server serves on.
        with contextlib.closing(tls_connection(server.port)) as stalled:
            stalled.putrequest("POST", routes.REFUSE)
            stalled.putheader("Content-Length", "100000")
            stalled.endheaders(b"x" * 50_000)
            assert stalled.getresponse().read() == routes.REFUSAL
        with contextlib.closing(tls_connection(server.port)) as normal:
            normal.request("POST", routes.ACCEPT, body=b"x" * 100_000)
            assert normal.getresponse().status == 200


@pytest.mark.negative_control
@pytest.mark.parametrize("name", ["cheroot", "gunicorn"])
def test_without_the_middleware_it_is_lost_over_tls(name: str, certificate: Path) -> None:
    with tls_server(name, certificate, wrapped=False) as server:
        try:
            result = refused(server.port)
        except (OSError, http.client.HTTPException):
            return
    pytest.fail(f"it arrived: {result}")
