"""`cleanclose kernel` on what was really done: each thing in its own sentence, and in no other."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from cleanclose.doctor import strict
from cleanclose.doctor.kernel.tracing import Direction, Tracer, Untraceable, find_tracefs
from example_apps.namespaces import namespace_command
from tests.harness.command import cleanclose
from tests.harness.kernel_staging import (
    CLEANCLOSE,
    TIMES,
    closed_before_data,
    closed_unread,
    connected,
)
from tests.harness.scenarios import CORE, Scenario
from tests.harness.serving import Serve
from tests.harness.stacks import SERVERS, Stack
from tests.harness.verdicts import arrived, repeat
from tests.harness.waiting import LIMIT, until

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")


@functools.cache
def namespace() -> tuple[str, ...]:
    command = namespace_command()
    if command is None:
        pytest.skip("no network namespace can be made here")
    return command


def staged(case: str) -> dict[str, Any]:
    finished = subprocess.run(
        [*namespace(), sys.executable, "-m", "tests.harness.kernel_staging", case],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert finished.returncode == 0, finished.stderr
    seen: dict[str, Any] = json.loads(finished.stdout)
    return seen


def test_where_all_is_in_order_nothing_is_found() -> None:
    assert staged("nothing") == {"counts": {}, "sentences": [], "status": 0}


@pytest.mark.parametrize(
    ("case", "counter", "word"),
    [
        ("unread", "TCPAbortOnClose", "that it had not read"),
        ("on_data", "TCPAbortOnData", "had already closed"),
    ],
)
def test_a_reset_is_counted_once_and_in_no_other_sentence(
    case: str, counter: str, word: str
) -> None:
    seen = staged(case)
    assert seen["counts"] == {counter: TIMES}
    (sentence,) = seen["sentences"]
    assert word in sentence
    assert seen["status"] == 1


@pytest.mark.parametrize(
    ("case", "word"), [("overflow", "try again"), ("overflow_reset", "They get a reset")]
)
def test_an_accept_queue_that_overflows(case: str, word: str) -> None:
    seen = staged(case)
    # What was turned away is a counter's finding, what waits is the queue's.
    assert set(seen["counts"]) == {"ListenOverflows", "queue_full"}
    assert any(word in sentence for sentence in seen["sentences"])
    assert any("3 connections wait, and its limit is 2" in each for each in seen["sentences"])


def test_one_port_and_who_listens_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(7)
        port = listener.getsockname()[1]
        told = cleanclose("kernel", f"--port={port}", "--json", "--seconds=0.1", "--fail-on=none")
    assert told.returncode == 0, told.stderr
    reading = json.loads(told.stdout)
    # At another address the port may be somebody else's.
    (queue,) = (each for each in reading["queues"] if each["address"] == "127.0.0.1")
    assert (queue["port"], queue["waiting"], queue["limit"]) == (port, 0, 7)
    assert os.getpid() in [owner["pid"] for owner in queue["owners"]]
    assert {"net.core.somaxconn", "net.ipv4.tcp_abort_on_overflow"} <= set(reading["sysctls"])


def test_a_server_and_what_it_was_started_with(serve: Serve) -> None:
    server = serve(next(stack for stack in SERVERS if stack.name == "gunicorn-gthread"))
    told = cleanclose("kernel", f"--port={server.port}", "--json", "--seconds=0.1")
    queues = json.loads(told.stdout)["queues"]
    (queue,) = (each for each in queues if each["address"] == "127.0.0.1")
    assert queue["server"]["server"] == "gunicorn"
    # Its workers rename themselves, but not where setproctitle is missing.
    if "keep_alive" not in queue["server"]["from_defaults"]:
        assert queue["server"]["keep_alive"] == 30


def test_for_people_it_fits_80_columns_without_colour() -> None:
    told = cleanclose("kernel", "--seconds=0.1", "--fail-on=none")
    assert told.returncode == 0, told.stderr
    assert "\x1b" not in told.stdout
    assert all(len(line) <= 80 for line in told.stdout.splitlines())
    for word in ("TCPAbortOnClose", "net.core.somaxconn", "listens at"):
        assert word in told.stdout


def test_without_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("all other tests run without it here")
    # What Python itself still has to open may be in a folder that only root can read.
    code = (
        "import os; from cleanclose.doctor.kernel import command; command.look(); "
        f"os.setgroups([]); os.setgid(65534); os.setuid(65534); {CLEANCLOSE[2]}"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "kernel", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(7)
        port = listener.getsockname()[1]
        told = run(f"--port={port}", "--json", "--seconds=0.1", "--fail-on=none")
    traced = run("--trace")
    assert told.returncode == 0, told.stderr
    reading = json.loads(told.stdout)
    assert 7 in [queue["limit"] for queue in reading["queues"]]
    assert any(f"{port}" in each and "cannot be seen" in each for each in reading["unseen"])
    assert traced.returncode == 2
    assert traced.stderr.startswith("Error: Tracing needs root")
    assert traced.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def tracefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tracefs is: mounted for these tests where root may, as the mount of others may go."""
    folder = tmp_path_factory.mktemp("tracefs")
    mount = ["mount", "-t", "tracefs", "tracefs", str(folder)]
    if os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode:
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    try:
        with Tracer():
            pass
    except Untraceable as why:
        pytest.skip(str(why))
    yield find_tracefs()


@functools.cache
def own_mounts() -> tuple[str, ...]:
    """What gives a command tracefs where it looks first, whatever others mount and unmount."""
    mounted = 'mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null; exec "$0" "$@"'
    command = ("unshare", "--mount", "sh", "-c", mounted)
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return ()
    possible = subprocess.run([*command, "true"], check=False, capture_output=True)
    return () if possible.returncode else command


def left_behind(tracefs: Path, pid: int) -> list[Path]:
    return list((tracefs / "instances").glob(f"cleanclose-{pid}-*"))


class Traced:
    """A `cleanclose kernel --trace --json` that runs.

    It reports the resets of all other tests, too: a full pipe would hold it back.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A killed one may have ended in the middle of its last line.
            if line.endswith("\n"):
                self.lines.append(json.loads(line))

    def stop(self, number: signal.Signals = signal.SIGINT) -> list[dict[str, Any]]:
        self.process.send_signal(number)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            proc = Path("/proc", str(self.process.pid))
            where = {name: (proc / name).read_text() for name in ("status", "wchan", "stack")}
            pytest.fail(f"It goes on, after {len(self.lines)} resets: {self.lines[-1:]} {where}")
        assert self.process.stderr is not None
        assert "Traceback" not in self.process.stderr.read()
        self._reader.join(LIMIT)
        assert self.lines[-1].keys() == {"lost", "resets", "seconds"}
        return self.lines[:-1]


@contextmanager
def tracing(*arguments: str) -> Generator[Traced]:
    with subprocess.Popen(
        [*own_mounts(), *CLEANCLOSE, "kernel", "--trace", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert "Listening" in process.stderr.readline()
            yield Traced(process)
        finally:
            process.kill()


def ends(sock: socket.socket) -> tuple[str, str]:
    """Both ends of a connection, as its other side's kernel calls them."""
    (host, port), (peer, peer_port) = sock.getpeername()[:2], sock.getsockname()[:2]
    if ":" in host:
        host, peer = f"[{host}]", f"[{peer}]"
    return f"{host}:{port}", f"{peer}:{peer_port}"


def refused() -> tuple[str, str]:
    """A connection to where nobody listens: its both ends as the other side's kernel sees them."""
    with socket.socket() as held, socket.socket() as client:
        held.bind(("127.0.0.1", 0))
        client.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            client.connect(held.getsockname())
        (host, port), (peer, peer_port) = held.getsockname(), client.getsockname()
        return f"{host}:{port}", f"{peer}:{peer_port}"


@pytest.mark.usefixtures("tracefs")
def test_a_hundred_resets_each_with_its_reason() -> None:
    expected: list[tuple[str, str, str]] = []
    with tracing() as traced:
        for at in range(TIMES):
            if at % 3 == 2:
                expected.append((*refused(), "NO_SOCKET"))
                continue
            act = closed_unread if at % 3 == 0 else closed_before_data
            reason = "TCP_ABORT_ON_CLOSE" if at % 3 == 0 else "TCP_ABORT_ON_DATA"
            with connected("127.0.0.1" if at % 2 else "::1") as (client, server):
                both = ends(client)
                act(client, server)
            expected.append((*both, reason))
        # One that is in order: it must not be there.
        with connected() as (client, server):
            orderly = ends(client)
            client.sendall(b"x")
            server.recv(1)
        lines = traced.stop()
    assert traced.process.returncode == 1
    staged_ends = {(local, remote) for local, remote, _ in expected} | {orderly}
    sent = [
        (line["local"], line["remote"], line["reason"])
        for line in lines
        if line["direction"] == "sent" and (line["local"], line["remote"]) in staged_ends
    ]
    assert sorted(sent) == sorted(expected)
    received = [
        (line["remote"], line["local"])
        for line in lines
        if line["direction"] == "received" and (line["remote"], line["local"]) in staged_ends
    ]
    assert sorted(received) == sorted((local, remote) for local, remote, _ in expected)
    for line in lines:
        if (
            line["reason"] == "TCP_ABORT_ON_CLOSE"
            and (line["local"], line["remote"]) in staged_ends
        ):
            assert line["owner"]["pid"] == os.getpid()
            assert "because it closed it with unread data" in line["sentence"]


NOBODYS: Final = "--port=1"
"""Others' resets need not be told here."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind(tracefs: Path, number: signal.Signals) -> None:
    with tracing(NOBODYS) as traced:
        assert left_behind(tracefs, traced.process.pid)
        traced.stop(number)
    assert not left_behind(tracefs, traced.process.pid)


def test_what_a_killed_one_left_the_next_removes(tracefs: Path) -> None:
    with tracing(NOBODYS) as killed:
        (instance,) = left_behind(tracefs, killed.process.pid)
        # What is in use cannot be removed: others on this machine may trace meanwhile.
        with (instance / "tracing_on").open():
            killed.process.kill()
            killed.process.wait(30)
            assert left_behind(tracefs, killed.process.pid)
        with tracing(NOBODYS) as traced:
            traced.stop()
    assert not left_behind(tracefs, killed.process.pid)


def test_what_is_unmounted_meanwhile_is_removed_all_the_same(tracefs: Path, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tracefs", "tracefs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("tracefs cannot be mounted here")
    with Tracer(tmp_path):
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
        assert left_behind(tracefs, os.getpid())
    assert not left_behind(tracefs, os.getpid())


@pytest.mark.slow
@pytest.mark.usefixtures("tracefs")
@pytest.mark.stacks
def test_the_doctor_has_the_kernels_own_word() -> None:
    told = subprocess.run(
        [
            *(*own_mounts(), *CLEANCLOSE, "doctor", "tests.harness.apps.hello.on_bottle:app"),
            *("--json", "--run=bare", "--no-proxies", "--start-timeout=60"),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert told.returncode == 1, told.stderr
    found = {each["id"]: each["kernel"] for each in json.loads(told.stdout)["findings"]}
    # Which word it is, depends on whether more of the body came before the close or behind it.
    assert found["early-answer-lost"]


@pytest.mark.usefixtures("tracefs")
def test_only_the_port_that_was_asked_for() -> None:
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        traced = stack.enter_context(tracing(f"--port={port}"))
        with connected() as (client, server):
            closed_unread(client, server)
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            server, _ = listener.accept()
            closed_unread(client, server)
        lines = traced.stop()
    assert [line["direction"] for line in lines if line["role"] == "server"] == ["sent"]
    assert {line["local"].rpartition(":")[2] for line in lines} >= {str(port)}
    assert all(str(port) in (line["local"] + line["remote"]) for line in lines)
    (sent,) = (line for line in lines if line["direction"] == "sent")
    assert sent["sentence"].startswith("your server ")


def resets_of(tracer: Tracer, port: int) -> list[str | None]:
    return [
        reset.reason
        for reset in tracer.drain()
        if reset.direction is Direction.SENT and reset.local.endswith(f":{port}")
    ]


DELIVERED: list[Scenario] = [each for each in CORE if each.name.endswith("-8")]


@pytest.mark.parametrize("scenario", DELIVERED, ids=str)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_for_a_delivered_answer_the_server_sends_no_reset(
    tracefs: Path, serve: Serve, stack: Stack, scenario: Scenario
) -> None:
    server = serve(stack)
    with Tracer(tracefs) as tracer:
        outcomes = repeat(strict, scenario.to(server.port), 3)
        assert all(arrived(outcome, scenario) for outcome in outcomes)
        assert resets_of(tracer, server.port) == []


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [each for each in SERVERS if each.loses == "always"], ids=str)
def test_a_bare_server_resets_what_it_loses(tracefs: Path, serve: Serve, stack: Stack) -> None:
    (scenario, *_) = DELIVERED
    server = serve(stack, wrapped=False)
    with Tracer(tracefs) as tracer:
        strict(scenario.to(server.port))
        found = resets_of(tracer, server.port)
    # What comes for a connection that was closed with everything read, and that the kernel has put
    # into its table of ended ones meanwhile, has a reason of its own.
    reasons = {"TCP_ABORT_ON_CLOSE", "TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"}
    assert set(found) & reasons, found


def test_events_of_cleanclose_are_joined(tracefs: Path, tmp_path: Path) -> None:
    del tracefs
    events = tmp_path / "events.jsonl"
    events.touch()
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        # An event names an address and no port: another test's reset would fit it as well.
        traced = stack.enter_context(tracing(f"--events={events}", f"--port={port}"))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        server = stack.enter_context(listener.accept()[0])
        local, remote = ends(client)
        closed_unread(client, server)
        with events.open("a") as file:
            line = {"event": "client_departed", "client": "127.0.0.1", "phase": "request_body"}
            file.write(json.dumps(line) + "\n")
        # The kernel has both ends of a connection; the event is in the line of one of them.
        until(lambda: any(line.get("event") for line in traced.lines))
        found = next(line for line in traced.lines if line.get("event"))
    assert found["event"]["phase"] == "request_body"
    assert {local, remote} == {found["local"], found["remote"]}
