"""`cleanclose explain` as people run it: real logs, real pipes, and all that can go wrong."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.command import cleanclose_bytes
from tests.harness.staged.proxies import CASES, PROXIES, staged_behind
from tests.harness.staged.servers import staged_on

SCRIPT: Final = Path(sys.executable).with_name("cleanclose")
RESET: Final = (
    "2026/11/27 10:00:0{} [error] 7#7: *3 recv() failed (104: Connection reset by peer) while "
    'reading response header from upstream, client: 10.0.0.9, request: "GET / HTTP/1.1"\n'
)
LEFT: Final = '10.0.0.9 - - [27/Nov/2026:10:00:05 +0000] "GET / HTTP/1.1" 499 0 "-" "curl"\n'
QUIET: Final = '10.0.0.9 - - [27/Nov/2026:10:00:05 +0000] "GET / HTTP/1.1" 200 9 "-" "curl"\n'


def run(
    *arguments: str | Path, stdin: bytes = b"", before: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[bytes]:
    if not before:
        return cleanclose_bytes("explain", *arguments, stdin=stdin, more=env)
    return subprocess.run(
        [*before, SCRIPT, "explain", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )


def document(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    ran = run("--json", *arguments, stdin=stdin)
    assert ran.returncode in (0, 1), ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shop.log"
    path.write_text(text)
    return path


def test_findings_end_with_1_and_none_with_0(tmp_path: Path) -> None:
    found = run(log(tmp_path, QUIET + RESET.format(0)))
    assert (found.returncode, found.stderr) == (1, b"")
    assert b"the application behind the proxy broke it" in found.stdout
    clean = run(log(tmp_path, QUIET))
    assert (clean.returncode, clean.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("sides", "status"),
    [
        ([], 1),
        (["client"], 1),
        (["upstream"], 0),
        (["upstream", "client"], 1),
        (["never"], 0),
    ],
)
def test_fail_on_makes_a_check_of_it(tmp_path: Path, sides: list[str], status: int) -> None:
    options = [option for side in sides for option in ("--fail-on", side)]
    assert run(*options, log(tmp_path, LEFT)).returncode == status


def test_the_document(tmp_path: Path) -> None:
    path = log(tmp_path, "".join(RESET.format(n) for n in range(5)) + LEFT + QUIET)
    found = document(path)
    assert found.keys() == {
        *("version", "files", "lines", "findings", "sides", "first", "last", "bucket_seconds"),
        "kinds",
    }
    assert found["version"] == 1
    assert found["files"] == [str(path)]
    assert (found["lines"], found["findings"]) == (7, 6)
    assert found["sides"] == {"client": 1, "server": 0, "unknown": 0, "upstream": 5}
    assert (found["first"], found["last"]) == ("2026-11-27T10:00:00Z", "2026-11-27T10:00:05Z")
    first = found["kinds"][0]
    assert first.keys() == {
        *("kind", "side", "sure", "title", "why", "advice", "count", "first", "last", "formats"),
        *("details", "over_time", "example"),
    }
    assert (first["kind"], first["side"], first["sure"]) == (
        "proxy_upstream",
        "upstream",
        "certain",
    )
    assert first["formats"] == {"nginx-error": 5}
    assert sum(count for _, count in first["over_time"]) == 5


def test_standard_input_and_gzip_are_read_alike(tmp_path: Path) -> None:
    packed = tmp_path / "shop.log.gz"
    packed.write_bytes(gzip.compress((LEFT * 3).encode()))
    assert document(packed)["sides"] == document("-", stdin=(LEFT * 3).encode())["sides"]


def test_it_is_readable_without_colour_in_80_columns(tmp_path: Path) -> None:
    shown = run(log(tmp_path, RESET.format(0) + LEFT * 3), NO_COLOR="1").stdout.decode()
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"3 +client +certain", shown)
    assert re.search(r"1 +upstream +certain", shown)


def test_it_needs_no_utf_8(tmp_path: Path) -> None:
    ran = run(log(tmp_path, LEFT), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (ran.returncode, ran.stderr) == (1, b"")
    ran.stdout.decode("ascii")


def test_help_fits_a_screen() -> None:
    shown = run("--help").stdout.decode().splitlines()
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80


def trouble(ran: subprocess.CompletedProcess[bytes]) -> str:
    """The one sentence of a run that could not do its work."""
    assert ran.returncode == 2
    assert ran.stdout == b""
    (line,) = ran.stderr.decode().splitlines()
    return line


def test_an_empty_log(tmp_path: Path) -> None:
    assert "is empty" in trouble(run(log(tmp_path, "")))
    assert "Standard input is empty" in trouble(run("-"))


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\x7fELF\0\0\0" * 100)
    assert "is a binary file" in trouble(run(path))
    path.write_bytes(gzip.compress(b"\0" * 100))
    assert "is a binary file" in trouble(run("--json", path))


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "shop.log.gz"
    path.write_bytes(gzip.compress(LEFT.encode() * 1000)[:40])
    assert "is damaged" in trouble(run(path))


def test_a_log_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    assert "No such file" in trouble(run(tmp_path / "missing.log"))
    assert "directory" in trouble(run(tmp_path))


def test_a_log_without_permission(tmp_path: Path) -> None:
    path = log(tmp_path, LEFT)
    path.chmod(0)
    before: list[str] = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root reads everything, and there is no setpriv to change that")
        dropped = "-dac_override,-dac_read_search"
        before = [setpriv, f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
    assert "Permission denied" in trouble(run(path, before=before))


def test_a_long_pipe_is_read_to_its_end() -> None:
    assert document("-", stdin=LEFT.encode() * 20_000)["lines"] == 20_000


def test_ctrl_c_ends_it_at_once() -> None:
    with subprocess.Popen(
        [SCRIPT, "explain", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(LEFT.encode() * 20_000)
        process.stdin.flush()
        # Nearly all of it is read: it waits for more.
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 2
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.stderr is not None
        # The first line ends the one that the terminal has `^C` on.
        assert process.stderr.read().decode().split("\n") == [
            "",
            "Stopped before it was done.",
            "",
        ]


def test_a_reader_that_leaves_is_no_finding(tmp_path: Path) -> None:
    path = log(tmp_path, LEFT)
    shell = f"'{SCRIPT}' explain '{path}' | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in ran.stderr


MEASURE: Final = """
import resource, sys
from cleanclose.doctor.group import run
status = run(["explain", "--json", sys.argv[1]])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


def million(path: Path, lines: int) -> None:
    """A log as it is: mostly quiet, with resets, tracebacks and one line that never ends."""
    frames = "".join(
        f'  File "/usr/lib/python3.11/site-packages/gunicorn/http/body.py", line {n}, in read\n'
        "    return self.sock.recv(size)\n"
        for n in range(20)
    )
    trace = (
        f"[2026-11-27 10:00:00 +0000] [7] [ERROR] Error handling request\n"
        f"Traceback (most recent call last):\n{frames}"
        "ConnectionResetError: [Errno 104] Connection reset by peer\n"
    )
    block = QUIET * 840 + LEFT * 50 + RESET.format(1) * 46 + trace + QUIET * 20
    with path.open("w") as out:
        out.write("x" * 20_000_000 + "\n")
        for _ in range(lines // block.count("\n") + 1):
            out.write(block)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_million_lines_take_less_than_a_minute_and_no_more_memory(tmp_path: Path) -> None:
    used: list[int] = []
    for lines in (10_000, 1_000_000):
        path = tmp_path / f"{lines}.log"
        million(path, lines)
        ran = subprocess.run(
            [sys.executable, "-c", MEASURE, path], capture_output=True, check=True, timeout=280
        )
        memory, seconds = ran.stderr.split()
        # Of the processor: what else the machine does meanwhile is not what is promised.
        assert float(seconds) < 60
        found = json.loads(ran.stdout)
        assert found["lines"] >= lines
        assert found["sides"]["upstream"] > lines // 25
        assert found["sides"]["client"] > lines // 25
        used.append(int(memory))
    assert used[1] < used[0] + 8 * 1024, "KiB of the small log and of the large one"


MORE_SERVERS: Final = ("gunicorn-gthread", "tornado")
"""Eight are started of each."""


def sides_of(text: str) -> dict[str, int]:
    found: dict[str, int] = document("-", stdin=text.encode() + b"\n")["sides"]
    return found


@pytest.mark.parametrize(
    "name",
    [
        "nginx",
        # Ten proxies are started for each, and each has a second and a half to say its last.
        pytest.param("haproxy", marks=pytest.mark.full),
        # Programs of the `stacks` group.
        *(
            pytest.param(each, marks=[pytest.mark.stacks, pytest.mark.full])
            for each in ("caddy", "traefik", "envoy")
        ),
    ],
)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_proxy_writes(name: str, require_program: Callable[[str], str]) -> None:
    require_program(name)
    assert name in PROXIES
    seen = 0
    for lines in staged_behind(name, "seen"):
        found = sides_of(lines.text)
        if lines.truth == "upstream":
            assert found["client"] == 0, lines
        seen += found[lines.truth]
    assert seen >= len(CASES["seen"]) - 3


@pytest.mark.parametrize(
    "name",
    ["uvicorn", *(pytest.param(each, marks=pytest.mark.full) for each in MORE_SERVERS)],
)
@pytest.mark.slow
@pytest.mark.stacks
@pytest.mark.timeout(300)
def test_what_a_server_writes(name: str) -> None:
    seen: dict[str, int] = {"client": 0, "upstream": 0}
    for lines in staged_on(name, "seen"):
        found = sides_of(lines.text)
        if lines.truth == "upstream":
            assert found["client"] == 0, lines
        seen[lines.truth] += found[lines.truth]
    assert seen["client"] >= 1
    assert seen["upstream"] >= 4
