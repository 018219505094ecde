"""`cleanclose doctor module:app` on real servers: it finds what is there, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.harness.command import cleanclose
from tests.harness.processes import run_python
from tests.harness.waiting import until

ROOT: Final = Path(__file__).parents[3]
CLEANCLOSE: Final = (sys.executable, "-c", "from cleanclose.doctor.main import main; main()")
HELLO: Final = "tests.harness.apps.hello"
PATIENTLY: Final = "--start-timeout=60"
"""For an import on a busy machine; of two the last one holds."""

pytestmark = [pytest.mark.stacks, pytest.mark.slow, pytest.mark.timeout(120)]


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.out)
        return report


def doctor(*arguments: str, **env: str) -> Ran:
    finished = cleanclose("doctor", PATIENTLY, *arguments, seconds=100, more=env)
    return Ran(finished.returncode, finished.stdout, finished.stderr)


def found(report: dict[str, Any], side: str, *, where: str = "server") -> set[str]:
    return {
        finding["id"]
        for finding in report["findings"]
        if finding["side"] == side and finding["where"] == where
    }


def lost(report: dict[str, Any], side: str) -> set[str]:
    """The early answers on the doctor's own routes that have not arrived."""
    return {
        case["id"]
        for case in report["sides"][side]["cases"]
        if case["group"] == "early answer"
        and any(answer["status"] != case["expected"] for answer in case["answers"])
    }


ALL_STRICT: Final = {"early-strict", "early-close", "early-chunked", "early-large", "early-slow"}
LOST: Final = "early-answer-lost"
NOISE: Final = "departure-logged-as-error"
SHORT: Final = "short-upload-accepted"
HIDDEN: Final = "upstream-failure-hidden"
HTTP_2: Final = "http2-answer-lost"
ENDED: Final = "server-ended"

APPS: Final = {
    # The framework: its interface, its usual server, and what that is known for.
    "flask": ("wsgi", "gunicorn", {LOST, SHORT, HIDDEN, NOISE}),
    "fastapi": ("asgi", "uvicorn", {LOST, NOISE}),
    "django": ("wsgi", "gunicorn", {LOST, SHORT, HIDDEN, NOISE}),
    "starlette": ("asgi", "uvicorn", {LOST, NOISE}),
    "tornado": ("tornado", "tornado", {LOST, NOISE}),
    "quart": ("asgi", "uvicorn", {LOST}),
    "litestar": ("asgi", "uvicorn", {LOST}),
    "falcon": ("wsgi", "gunicorn", {LOST, SHORT, HIDDEN}),
    "bottle": ("wsgi", "gunicorn", {LOST, SHORT, HIDDEN}),
    "pyramid": ("wsgi", "gunicorn", {LOST, SHORT, HIDDEN}),
}


def some_of(names: Iterable[str], *wanted: str) -> list[object]:
    """The names; each takes ten seconds or more, so that `make test` has the wanted ones alone."""
    return [
        pytest.param(name, marks=[] if name in wanted else [pytest.mark.full]) for name in names
    ]


@pytest.mark.parametrize("framework", some_of(APPS, "flask", "starlette", "tornado"))
def test_a_hello_world_application_has_the_defects_of_its_server_and_no_others(
    framework: str,
) -> None:
    interface, server, known = APPS[framework]
    ran = doctor(f"{HELLO}.on_{framework}:app", "--json", "--no-proxies")
    assert ran.status == 1, ran.err
    report = ran.report
    assert (report["interface"], report["server"]["name"]) == (interface, server)
    assert report["framework"].lower() == framework
    assert found(report, "bare") == known, report["findings"]
    assert found(report, "wrapped") == set()
    assert found(report, "wrapped", where="application") == set()


HUNG: Final = "connection-hung"


class Known(NamedTuple):
    """A server, and what it is known for."""

    framework: str
    server: tuple[str, ...]
    """Its name, and its options."""
    matrix: str
    """Its row in the matrix (docs/matrix.md)."""
    bare: set[str]
    loses: set[str] = ALL_STRICT
    wrapped: frozenset[str] = frozenset()
    """What no middleware reaches."""

    def __str__(self) -> str:
        return "-".join((self.framework, *self.server))


NO_CHUNKS: Final = ALL_STRICT - {"early-chunked"}
GTHREAD: Final = ("gunicorn", "--", "--worker-class=gthread", "--threads=4")
ON_GUNICORN: Final = {LOST, SHORT, HIDDEN, NOISE}
SERVERS: Final = [
    Known("starlette", ("uvicorn",), "uvicorn-httptools", {LOST, NOISE}, {"early-close"}),
    Known("starlette", ("hypercorn",), "asgi-hypercorn", {LOST, NOISE, HTTP_2}),
    Known(
        "starlette",
        ("hypercorn", "--", "--worker-class=trio"),
        "asgi-hypercorn-trio",
        # DATA behind the answer ends the whole server.
        {LOST, NOISE, HTTP_2, ENDED},
    ),
    Known("starlette", ("granian",), "asgi-granian", {LOST, NOISE}),
    Known("starlette", ("gunicorn",), "asgi-gunicorn", {LOST, NOISE}),
    Known("starlette", ("daphne",), "asgi-daphne", set(), set()),
    Known("tornado", ("tornado",), "tornado", {LOST, NOISE}),
    Known("flask", ("gunicorn",), "gunicorn-sync", ON_GUNICORN),
    Known("flask", GTHREAD, "gunicorn-gthread", ON_GUNICORN),
    Known(
        "flask",
        ("gunicorn", "--", "--worker-class=gevent"),
        "gunicorn-gevent",
        ON_GUNICORN,
        {"early-close"},
    ),
    Known("flask", ("waitress",), "waitress", set(), set()),
    Known("flask", ("granian",), "granian-wsgi", {LOST, SHORT}),
    Known("flask", ("uwsgi",), "uwsgi", {LOST}, NO_CHUNKS),
    Known("flask", ("cheroot",), "cheroot", ON_GUNICORN, ALL_STRICT - {"early-large"}),
    Known("flask", ("gevent",), "gevent", {HIDDEN, NOISE}, set(), frozenset({NOISE})),
    # Who has asked gets neither an answer nor an end.
    Known("flask", ("werkzeug",), "werkzeug", {HIDDEN, HUNG}, set()),
    Known("flask", ("wsgiref",), "wsgiref", {LOST, HIDDEN, NOISE}, NO_CHUNKS, frozenset({NOISE})),
]


def figures_of_the_matrix(title: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Of each bare server in a table of the matrix: by column, how many arrived of how many."""
    page = (ROOT / "docs" / "matrix.md").read_text("utf-8")
    _, _, behind = page.partition(f"### {title}\n")
    lines = behind.lstrip().partition("\n\n")[0].splitlines()
    columns, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        row[0].strip("`"): {
            column: (int(found[1]), int(found[2]))
            for column, cell in zip(columns, row, strict=True)
            if (found := re.search(r"(\d+)/(\d+)", cell)) is not None
        }
        for row in rows
        if "bare" in row
    }


@pytest.mark.parametrize("known", SERVERS, ids=str)
def test_what_a_server_is_known_to_lose_is_what_the_matrix_has(known: Known) -> None:
    """The client is the matrix' `raw strict`: some of its framings have no other client."""
    framings = figures_of_the_matrix("By framing, all clients")[known.matrix]
    own = {"early-close": "close 8 MiB", "early-large": "1 MiB answer", "early-slow": "slow 8 MiB"}
    lost = {case for case, column in own.items() if framings[column] == (0, 1)}
    arrived, tried = figures_of_the_matrix("By client")[known.matrix]["strict"]
    # What is left of its losses are those with a length and in chunks: all of them, or none.
    others = {"early-strict", "early-chunked"} if "chunked 8 MiB" in framings else {"early-strict"}
    left = tried - arrived - len(lost) - (framings["Expect 8 MiB"] == (0, 1))
    assert left in (0, len(others))
    assert lost | (others if left else set()) == known.loses


@pytest.mark.full
@pytest.mark.parametrize("known", SERVERS, ids=str)
def test_each_server_has_its_own_defects(known: Known) -> None:
    """The rows of the matrix: what a bare server loses there, it loses here."""
    target = f"{HELLO}.on_{known.framework}:app"
    name, *options = known.server
    ran = doctor(target, "--json", "--no-proxies", f"--server={name}", *options)
    assert ran.status in (0, 1), ran.err
    report = ran.report
    # Whether hypercorn hangs or resets is a race, over HTTP/2 as well.
    races = {HUNG, HTTP_2} if name == "hypercorn" else set[str]()
    # Werkzeug by itself reads what has come a moment later: on a busy machine that is not all.
    reads_on = name == "werkzeug"
    if reads_on:
        races = {LOST}
    assert found(report, "bare") - races == known.bare - races, report["findings"]
    # Whether so small a body, or one behind a 100, is still on its way by then is a race.
    races = {"early-leftover", "early-expect"} if known.loses else set[str]()
    assert reads_on or lost(report, "bare") - races == known.loses
    assert found(report, "wrapped") == known.wrapped, report["findings"]
    assert lost(report, "wrapped") == set()
    assert ran.status == bool(known.bare)


@pytest.mark.full
def test_behind_nginx_the_answer_becomes_a_bad_gateway(require_program: Any) -> None:
    """Bare it is a race between nginx' writing and the server's reset, so it is run until lost."""
    require_program("nginx")
    report: dict[str, Any] = {}
    for _ in range(6):
        report = doctor(f"{HELLO}.on_tornado:app", "--json").report
        assert found(report, "wrapped", where="nginx") == set()
        if found(report, "bare", where="nginx"):
            break
    assert found(report, "bare", where="nginx") == {"bad-gateway"}


def test_it_aims_at_a_real_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example service: it refuses without a token, early, and bare gunicorn loses that."""
    monkeypatch.setenv("CLEANCLOSE", "0")
    ran = doctor(
        "example_apps.uploads_flask:make_app()",
        "--json",
        "--no-proxies",
        "--run=bare",
        "--path=/files",
        "--method=put",
        "--header=Authorization: Bearer wrong",
        "--body-size=9M",
    )
    report = ran.report
    assert ran.status == 1, ran.err
    cases = {case["id"]: case for case in report["sides"]["bare"]["cases"]}
    assert cases["app-plain"]["answers"][0]["status"] == 401
    # docs/doctor.md promises that none of these goes away.
    assert report.keys() == {
        *("version", "kind", "target", "interface", "framework", "server", "seconds", "sides"),
        *("notes", "findings"),
    }
    assert cases["app-plain"].keys() == {
        *("id", "title", "group", "where", "expected", "answers", "log", "tracebacks"),
        *("access_log", "events", "resets"),
    }
    assert report["findings"][0].keys() == {
        *("id", "severity", "side", "where", "cases", "sentence", "advice", "evidence", "kernel"),
    }
    assert list(report["sides"]) == ["bare"]
    assert LOST in found(report, "bare", where="application")


@pytest.mark.parametrize("example", some_of(["tornado", "fastapi", "flask"], "flask"))
def test_an_application_that_has_the_middleware_is_tried_as_it_is(example: str) -> None:
    target = f"example_apps.uploads_{example}:make_app()"
    ran = doctor(target, "--json", "--no-proxies", "--path=/files", "--method=PUT")
    report = ran.report
    assert (ran.status, report["findings"]) == (0, []), ran.err
    assert list(report["sides"]) == ["wrapped"]
    assert "already has the middleware" in report["notes"][0]
    assert lost(report, "wrapped") == set()


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [
        ("never", 0),
        pytest.param("error", 1, marks=pytest.mark.full),
        pytest.param("warning", 1, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_fail_on_decides_the_exit_status(fail_on: str, status: int) -> None:
    target = f"{HELLO}.on_bottle:app"
    ran = doctor(target, "--run=bare", "--no-proxies", f"--fail-on={fail_on}")
    assert ran.status == status
    assert LOST in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


TROUBLES: Final = [
    ("no_such_module:app", (), "There is no module no_such_module"),
    (f"{HELLO}.on_flask:application", (), "has no application"),
    ("on_flask.py:app", (), "write module:app, without .py"),
    (f"{HELLO}.fails_to_import:app", (), "RuntimeError: the settings are wrong"),
    # It is told at once, and what it has started is gone with it.
    (f"{HELLO}.starts_another:app", (), "RuntimeError: the other one runs"),
    (f"{HELLO}.needs_another:app", (), "needs the module no_such_module_anywhere"),
    (f"{HELLO}.leaves_python:app", (), "ended Python"),
    (f"{HELLO}.troubles:no_application", (), "neither an ASGI, nor a WSGI, nor a Tornado"),
    (f"{HELLO}.troubles:fails()", (), "ValueError: there is no configuration"),
    pytest.param(
        f"{HELLO}.troubles:never_answers",
        ("--timeout=1",),
        "did not answer POST / within 1 s",
        marks=pytest.mark.full,
    ),
    (f"{HELLO}.troubles:lifespan_fails", (), "lifespan startup failed: no database here"),
    # To its end, in which the application has to be imported on a busy machine as well.
    pytest.param(
        f"{HELLO}.troubles:lifespan_hangs",
        ("--start-timeout=20",),
        "did not complete",
        marks=pytest.mark.full,
    ),
    pytest.param(
        f"{HELLO}.troubles:needs_lifespan",
        ("--server=daphne",),
        "runs no lifespan",
        marks=pytest.mark.full,
    ),
    (f"{HELLO}.on_flask:app", ("--server=uvicorn",), "uvicorn does not serve a WSGI"),
    (f"{HELLO}.on_flask:app", ("--server=cheroot", "--", "--threads=2"), "takes no options"),
    (f"{HELLO}.on_flask:app", ("--", "--no-such-option"), "gunicorn exited before it was ready"),
    (f"{HELLO}.on_flask:app", ("--path=x",), "must begin with a slash"),
    (f"{HELLO}.on_flask:app", ("--header=nonsense",), "is not a header"),
    (f"{HELLO}.on_flask:app", ("--body-size=1G",), "is not a size"),
]


@pytest.mark.parametrize(("target", "options", "sentence"), TROUBLES, ids=str)
def test_what_cannot_be_examined_is_told_in_one_sentence(
    target: str, options: tuple[str, ...], sentence: str
) -> None:
    ran = doctor(target, *options)
    assert ran.status == 2
    assert sentence in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert left_behind() == []


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = doctor(f"{HELLO}.on_flask:app", f"--port={port}")
    assert (ran.status, ran.err) == (2, f"Error: Port {port} is in use.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such ports")
def test_a_port_that_only_root_may_have() -> None:
    if os.geteuid() != 0:
        ran = doctor(f"{HELLO}.on_flask:app", "--port=1")
        assert (ran.status, ran.err) == (
            2,
            "Error: Port 1 cannot be used here: Permission denied.\n",
        )
        return
    # As another user, but what Python itself still has to open may be where only root can read.
    taken = run_python(
        """
        import os
        from cleanclose.doctor.application.process import why_taken
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        limit = int(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read())
        print(why_taken(1) if limit > 1 else "Port 1 cannot be used here: Permission denied.")
        """
    )
    assert taken.stdout == "Port 1 cannot be used here: Permission denied.\n"


@pytest.mark.full
def test_a_proxy_that_does_not_start_is_told_and_left_out(tmp_path: Path) -> None:
    """Whatever stands there by its name: the application is examined all the same."""
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\necho no such setting >&2\nexit 1\n")
    broken.chmod(0o755)
    ran = doctor(
        f"{HELLO}.on_tornado:app",
        "--json",
        "--run=wrapped",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert ran.status == 0, ran.err
    note = "Not tried behind HAProxy: HAProxy exited before it was ready: no such setting"
    assert note in ran.report["notes"]


def test_an_application_that_needs_its_lifespan_gets_it() -> None:
    ran = doctor(f"{HELLO}.troubles:make()", "--json", "--no-proxies", "--run=wrapped")
    assert ran.status == 0, ran.err
    statuses = {
        answer["status"]
        for case in ran.report["sides"]["wrapped"]["cases"]
        if case["id"] == "app-plain"
        for answer in case["answers"]
    }
    assert statuses == {200}


def left_behind() -> list[str]:
    """The processes that still serve for some doctor that has ended."""
    commands: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            parents = [line for line in environment if line.startswith(b"DOCTOR_TEST=")]
            if parents == [f"DOCTOR_TEST={os.getpid()}".encode()]:
                commands.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return commands


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that a test starts can be told from others."""
    monkeypatch.setenv("DOCTOR_TEST", str(os.getpid()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_process_is_left_behind(number: signal.Signals) -> None:
    # Not this test process itself, nor what others of its tests have started.
    before = left_behind()
    with subprocess.Popen(
        [*CLEANCLOSE, "doctor", f"{HELLO}.on_flask:app"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(
            lambda: any("gunicorn" in command for command in left_behind()),
            "no server has been started",
        )
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    if number is signal.SIGKILL:
        until(lambda: set(left_behind()) <= set(before), left_behind)
    else:
        assert (process.returncode, err.strip()) == (2, "Stopped before it was done.")
    # What others have started may end meanwhile.
    assert set(left_behind()) <= set(before)
