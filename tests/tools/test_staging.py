"""Starting real programs: ports, logs, readiness, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tests.harness.paths import ROOT
from tests.harness.processes import (
    PortClaim,
    ServerProcess,
    StartError,
    find_program,
    peak_rss_bytes,
    process_tree,
    rss_bytes,
    run_python,
)
from tests.harness.proxies import NginxProxy
from tests.harness.waiting import until

SERVER = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_program_is_ready_inside_and_gone_outside(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello")
    with ServerProcess(SERVER, cwd=tmp_path, ready_path="/", name="files") as server:
        with urllib.request.urlopen(f"{server.url}/hello") as response:
            assert response.read() == b"hello"
        assert "GET /hello" in server.log_text()
        pid = server.pid
    assert not server.alive
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "GET /hello" in server.log_text(), "the log outlives the program"


def test_the_environment_knows_the_port() -> None:
    code = (
        "import os, http.server as h;"
        "assert 'GONE' not in os.environ;"
        "h.ThreadingHTTPServer(('127.0.0.1', int(os.environ['AT'])), h.BaseHTTPRequestHandler)"
        ".serve_forever()"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GONE", "here")
        with ServerProcess(
            [sys.executable, "-c", code], env={"AT": "{port}", "GONE": None}, ready_path="/"
        ) as server:
            assert server.alive


def test_a_program_that_ends_at_once_tells_what_it_said() -> None:
    program = ServerProcess([sys.executable, "-c", "raise SystemExit('no such luck')"], name="bad")
    with pytest.raises(StartError, match=r"(?s)bad ended with 1 .*no such luck"):
        program.start()
    assert not program.alive


def test_a_program_that_never_serves_is_stopped() -> None:
    program = ServerProcess(
        [sys.executable, "-c", "import time; print('waiting'); time.sleep(60)"],
        ready_seconds=1.0,
        name="slow",
    )
    with pytest.raises(StartError, match=r"(?s)slow was not ready within 1.0 s.*waiting"):
        program.start()
    assert not program.alive


def test_a_taken_port_is_answered_with_another_one(tmp_path: Path) -> None:
    """The first attempt pretends to have lost the race for its port."""
    code = (
        "import pathlib, sys, http.server as h\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    raise SystemExit('[Errno 98] Address already in use')\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()\n"
    )
    ports: list[int] = []
    with ServerProcess([sys.executable, "-c", code, "{port}"], prepare=ports.append) as server:
        assert server.alive
    assert len(ports) == 2


def test_the_whole_group_is_stopped() -> None:
    """A child that ignores SIGTERM and outlives its parent is no exception."""
    code = (
        "import subprocess, sys, http.server as h\n"
        "ignore = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);'\n"
        "child = subprocess.Popen([sys.executable, '-c', ignore + 'time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()\n"
    )
    with ServerProcess([sys.executable, "-c", code, "{port}"]) as server:
        child = int(server.log_text().split()[1])
        os.kill(child, 0)
    until(lambda: not _runs(child))
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # A zombie that nobody has collected yet is dead all the same.
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_program_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, sys, http.server as h\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()\n"
    )
    server = ServerProcess([sys.executable, "-c", code, "{port}"], stop_seconds=0.3)
    server.start()
    pid = server.pid
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def test_nothing_outlives_a_starter_that_is_killed() -> None:
    code = (
        "import time\n"
        "from tests.harness.processes import ServerProcess\n"
        f"server = ServerProcess({SERVER!r})\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert _runs(pid)
        starter.kill()
    until(lambda: not _runs(pid))
    assert not _runs(pid)


def test_claimed_ports_differ() -> None:
    claims = [PortClaim() for _ in range(50)]
    assert len({claim.port for claim in claims}) == 50
    for claim in claims:
        claim.release()


def test_programs_are_found_or_not() -> None:
    assert find_program("sh")
    assert find_program("no-program-has-this-name") is None


@linux
def test_memory_is_that_of_the_whole_tree() -> None:
    code = (
        "import subprocess, sys, http.server as h\n"
        "hold = 'x = bytearray(64 << 20); print(1, flush=True); input()'\n"
        "child = subprocess.Popen([sys.executable, '-c', hold], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()\n"
    )
    with ServerProcess([sys.executable, "-c", code, "{port}"]) as server:
        assert len(process_tree(server.pid)) == 2
        assert rss_bytes(server.pid) > 64 << 20
        assert peak_rss_bytes(server.pid) >= rss_bytes(server.pid)
        pid = server.pid
    assert rss_bytes(pid) == 0


@pytest.mark.parametrize("buffering", [True, False], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("upstream_http", ["1.0", "1.1"])
def test_nginx_stands_in_front(
    require_program: Callable[[str], str],
    tmp_path: Path,
    buffering: bool,
    upstream_http: Literal["1.0", "1.1"],
) -> None:
    require_program("nginx")
    (tmp_path / "hello").write_text("hello")
    with ServerProcess(SERVER, cwd=tmp_path, ready_path="/") as server:
        proxy = NginxProxy(server.port, request_buffering=buffering, upstream_http=upstream_http)
        with proxy:
            with urllib.request.urlopen(f"{proxy.url}/hello") as response:
                assert response.read() == b"hello"
            # nginx writes the line when it has sent the response.
            until(proxy.access_log)
            assert proxy.access_log() == '200 upstream=200 "GET /hello HTTP/1.1"\n'
            assert "[emerg]" not in proxy.error_log()
            folder = proxy.folder
        assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_nothing_of_our_own_parent_is_left_to_children() -> None:
    """As under nohup, in a shell's background job, or with a proxy and PYTHONWARNINGS set."""
    child = (
        "import os, signal\n"
        "def is_default(name): return signal.getsignal(getattr(signal, name)) in\\\n"
        "    (signal.SIG_DFL, signal.default_int_handler)\n"
        "print(*map(is_default, ('SIGINT', 'SIGHUP', 'SIGTERM')),\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.umask(0),\n"
        "    os.environ.keys() & {'http_proxy', 'PYTHONWARNINGS', 'GUNICORN_CMD_ARGS'})\n"
    )
    run = run_python(
        f"""
        import os, signal, subprocess, sys
        for name in ("SIGINT", "SIGHUP", "SIGTERM"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        os.umask(0o077)
        from tests.harness.isolation import as_started, shed_what_was_inherited
        shed_what_was_inherited()
        assert as_started()["http_proxy"] == "http://127.0.0.1:9"
        os.kill(os.getpid(), signal.SIGHUP)
        subprocess.run([sys.executable, "-c", {child!r}], check=True)
        """,
        http_proxy="http://127.0.0.1:9",
        PYTHONWARNINGS="error",
        GUNICORN_CMD_ARGS="--workers=9",
        CLEANCLOSE_TESTS_SHED="{}",
    )
    assert run.stdout.split("\n")[0] == "True True True set() 18 set()"
