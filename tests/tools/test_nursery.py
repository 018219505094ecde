"""Servers that are forked from a process which has read their libraries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.harness.hiding import HIDE
from tests.harness.nursery import VARIABLE, what_it_imports
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.stacks import SERVERS, Stack
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has one")

COMMAND: Final = (sys.executable, "-m", "tests.harness.apps.serve_wsgi", "wsgiref", "{port}")


def command_line(pid: int) -> str:
    return (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")


def parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_no_application_is_read_ahead_and_no_cleanclose_that_is_to_find_something_else(
    stack: Stack,
) -> None:
    imports = what_it_imports(stack.command, {})
    assert imports
    packages = {name.partition(".")[0] for name in imports}
    assert "cleanclose" in packages
    assert not packages & {"tests", "example_apps"}
    hiding = what_it_imports(stack.command, {HIDE: "anyio:nothing"})
    assert hiding == tuple(name for name in imports if not name.startswith("cleanclose."))


@pytest.mark.parametrize(
    "command",
    [
        (
            sys.executable,
            "-m",
            "gunicorn",
            "--worker-class=gevent",
            "tests.harness.apps.raw_wsgi:app",
        ),
        (sys.executable, "-m", "tests.harness.apps.serve_wsgi", "eventlet", "{port}"),
        (sys.executable, "-m", "granian", "tests.harness.apps.raw_asgi:app"),
        (sys.executable, "-c", "print(1)", "tests.harness.apps.raw_asgi:app"),
        ("nginx", "-c", "nginx.conf", "-q"),
    ],
)
def test_what_patches_or_is_another_program_is_started(command: tuple[str, ...]) -> None:
    assert what_it_imports(command, {}) is None


@pytest.mark.skipif(VARIABLE not in os.environ, reason="this run has no nursery")
@pytest.mark.parametrize("own", [False, True], ids=["forked", "with a Python of its own"])
def test_a_server_ends_as_any_other(own: bool, tmp_path: Path) -> None:
    env = {"PYTHONDEVMODE": ""} if own else {}
    with ServerProcess(COMMAND, env=env, cwd=ROOT, ready_path="/") as server:
        forked = "tests.harness.nursery" in command_line(parent(server.pid))
        assert forked is not own
        words = command_line(server.pid).split()
        assert words == [each.format(port=server.port) for each in COMMAND]
        assert os.getpgid(server.pid) == server.pid
        assert os.readlink(f"/proc/{server.pid}/cwd") == str(ROOT)
        assert os.readlink(f"/proc/{server.pid}/fd/0") == os.devnull
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.alive, "it seems to run on")


def test_it_ends_with_who_has_started_it() -> None:
    code = (
        "import os; from tests.harness.nursery import Nursery, VARIABLE;"
        "n = Nursery(); print(n.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=False, timeout=60
    )
    pid = int(ran.stdout)
    until(lambda: not (Path("/proc") / str(pid)).exists(), "it runs on")
