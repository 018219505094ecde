"""What `cleanclose kernel` makes of the kernel's own words, of several versions."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from cleanclose.core.kernel import Listener
from cleanclose.doctor.kernel import naming
from cleanclose.doctor.kernel.figures import Figures, Owner, parse_counters
from cleanclose.doctor.kernel.naming import EventLog, Namer
from cleanclose.doctor.kernel.readings import FINDINGS, QUEUE_FULL, Reading, read, worst
from cleanclose.doctor.kernel.sentences import COUNTERS
from cleanclose.doctor.kernel.servers import ServerSettings, settings_of
from cleanclose.doctor.kernel.tracing import Direction, Reset, Tracer, Untraceable, parse_line

SENT = (
    "         python3-13013   [001] .N...  1267.740328: tcp_send_reset: "
    "skbaddr=0000000000000000 skaddr=00000000ab6db4d4 src={src} dest={dest} "
    "state={state} reason={reason}"
)
RECEIVED = (
    "      my task-9-13013   [000] ..s2.  1268.382098: tcp_receive_reset: family=AF_INET6 "
    "sport=35669 dport=59808 saddr=127.0.0.6 daddr=127.0.0.6 saddrv6={v6} daddrv6={v6} "
    "sock_cookie=11e0"
)


@pytest.mark.parametrize(
    ("src", "dest", "local", "remote"),
    [
        ("127.0.0.1:80", "10.0.0.9:51172", "127.0.0.1:80", "10.0.0.9:51172"),
        ("[::1]:80", "[2001:db8::1]:5", "[::1]:80", "[2001:db8::1]:5"),
        ("[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.9]:5", "127.0.0.1:80", "10.0.0.9:5"),
    ],
)
def test_a_reset_that_is_sent(src: str, dest: str, local: str, remote: str) -> None:
    line = SENT.format(src=src, dest=dest, state="TCP_CLOSE", reason="TCP_ABORT_ON_CLOSE")
    reset = parse_line(line)
    assert reset is not None
    assert (reset.direction, reset.local, reset.remote) == (Direction.SENT, local, remote)
    assert (reset.state, reset.reason) == ("CLOSE", "TCP_ABORT_ON_CLOSE")
    assert (reset.task, reset.tid, reset.at) == ("python3", 13013, 1267.740328)


def test_without_a_socket_there_is_no_state() -> None:
    line = SENT.format(src="1.2.3.4:1", dest="1.2.3.5:2", state="UNKNOWN", reason="NO_SOCKET")
    reset = parse_line(line)
    assert reset is not None
    assert (reset.state, reset.reason) == (None, "NO_SOCKET")


@pytest.mark.parametrize(
    ("v6", "local", "remote"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1:35669", "127.0.0.1:59808"),
        ("::1", "[::1]:35669", "[::1]:59808"),
    ],
)
def test_a_reset_that_is_received(v6: str, local: str, remote: str) -> None:
    # The IPv4 fields of an IPv6 socket are not its addresses.
    reset = parse_line(RECEIVED.format(v6=v6))
    assert reset is not None
    assert (reset.direction, reset.local, reset.remote) == (Direction.RECEIVED, local, remote)
    assert reset.reason is None
    assert reset.task == "my task-9"


def test_a_kernel_that_gives_no_reason() -> None:
    line = (
        "  <idle>-0     [000] ..s1.   12.500000: tcp_send_reset: skbaddr=0000000000000000 "
        "skaddr=0000000000000000 src=1.2.3.4:1 dest=1.2.3.5:2 state=TCP_ESTABLISHED"
    )
    reset = parse_line(line)
    assert reset is not None
    assert (reset.state, reset.reason) == ("ESTABLISHED", None)


def test_a_kernel_of_2018() -> None:
    line = (
        "  nginx-77    [000] ..s1    12.500000: tcp_send_reset: sport=80 dport=4000 "
        "saddr=1.2.3.4 daddr=1.2.3.5 saddrv6=::ffff:1.2.3.4 daddrv6=::ffff:1.2.3.5"
    )
    reset = parse_line(line)
    assert reset is not None
    assert (reset.local, reset.remote, reset.reason) == ("1.2.3.4:80", "1.2.3.5:4000", None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "CPU:1 [LOST 17 EVENTS]",
        "  nginx-77 [000] ..s1 12.5: tcp_probe: src=1.2.3.4:80 dest=1.2.3.5:4000",
        "  nginx-77 [000] ..s1 12.5: tcp_send_reset: src=nowhere dest=1.2.3.5:4000",
        "  nginx-77 [000] ..s1 12.5: tcp_receive_reset: family=AF_INET sport=1",
    ],
)
def test_other_lines_are_no_resets(line: str) -> None:
    assert parse_line(line) is None


def test_all_pairs_of_a_counter_file_are_read() -> None:
    lines = ["TcpExt: A B", "TcpExt: 1 2", "IpExt: C", "IpExt: 3"]
    assert parse_counters(lines) == {"A": 1, "B": 2, "C": 3}
    with pytest.raises(ValueError, match="zip"):
        parse_counters(["TcpExt: A B", "TcpExt: 1"])


def figures(
    at: float,
    *,
    listeners: tuple[Listener, ...] = (),
    abort_on_overflow: int = 0,
    owners: dict[int, list[Owner]] | None = None,
    counters: dict[str, int] | None = None,
) -> Figures:
    return Figures(
        at=at,
        counters=dict.fromkeys(COUNTERS, 1000) | (counters or {}),
        listeners=listeners,
        owners=owners or {},
        sysctls={"net.core.somaxconn": 128, "net.ipv4.tcp_abort_on_overflow": abort_on_overflow},
        namespace="net:[1]",
        unseen=(),
    )


def names(reading: Reading) -> list[str]:
    return [each.name for each in reading.findings]


def test_nothing_happened() -> None:
    reading = read(figures(1.0), figures(3.0))
    assert not reading.findings
    assert {each.grown for each in reading.counters} == {0}
    # Of the sums nothing is said: others tell the same.
    assert set(reading.earlier) == set(FINDINGS) - {QUEUE_FULL, "ListenDrops"}


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != QUEUE_FULL])
def test_each_counter_has_its_own_finding(name: str) -> None:
    reading = read(figures(1.0), figures(3.0, counters={name: 1010}))
    assert names(reading) == [name]
    (rate,) = (each.per_second for each in reading.counters if each.name == name)
    assert (reading.findings[0].count, rate) == (10, 5.0)


def test_an_overflow_is_a_drop_too_and_told_once() -> None:
    after = figures(
        3.0, counters={"ListenOverflows": 1010, "TCPReqQFullDrop": 1002, "ListenDrops": 1013}
    )
    reading = read(figures(1.0), after)
    assert [(each.name, each.count) for each in reading.findings] == [
        ("ListenOverflows", 10),
        ("ListenDrops", 1),
        ("TCPReqQFullDrop", 2),
    ]


@pytest.mark.parametrize(("setting", "word"), [(0, "try again after"), (1, "get a reset")])
def test_what_becomes_of_those_who_are_turned_away(setting: int, word: str) -> None:
    after = figures(
        3.0,
        counters={"ListenOverflows": 1010, "ListenDrops": 1010},
        abort_on_overflow=setting,
    )
    assert word in read(figures(1.0), after).findings[0].means


def listener(queue: int, limit: int | None = 8, port: int = 80) -> Listener:
    return Listener(address="0.0.0.0", port=port, queue=queue, limit=limit)


@pytest.mark.parametrize(
    ("before", "after", "limit", "full"),
    [(0, 9, 8, True), (9, 0, 8, True), (8, 8, 8, False), (50, 50, None, False)],
)
def test_a_queue_is_full_when_more_than_its_limit_wait(
    before: int, after: int, limit: int | None, full: bool
) -> None:
    reading = read(
        figures(1.0, listeners=(listener(before, limit),)),
        figures(3.0, listeners=(listener(after, limit),)),
    )
    assert names(reading) == ([QUEUE_FULL] if full else [])


def test_only_the_port_that_was_asked_for() -> None:
    both = (listener(9), listener(9, port=81))
    reading = read(figures(1.0, listeners=both), figures(3.0, listeners=both), port=81)
    assert [each.port for each in reading.queues] == [81]
    assert [each.port for each in reading.findings] == [81]


def test_a_backlog_that_the_kernel_cuts() -> None:
    owner = Owner(pid=1, name="uvicorn", command=("python", "-m", "uvicorn", "app:app"))
    one = figures(1.0, listeners=(listener(0, 128),), owners={80: [owner]})
    (queue,) = read(one, one).queues
    assert queue.note is not None
    assert "raise net.core.somaxconn" in queue.note


def test_which_findings_make_a_check_fail() -> None:
    reading = read(figures(1.0), figures(3.0, counters={"TCPAbortOnClose": 1001}))
    assert worst(reading.findings, {"TCPAbortOnClose"})
    assert not worst(reading.findings, {"TCPAbortOnData"})


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (
            ("/usr/bin/python3", "-m", "uvicorn", "app:app", "--backlog", "7"),
            ("uvicorn", 7, 5, ("keep_alive",)),
        ),
        (
            ("/v/bin/python", "/v/bin/uvicorn", "a:b", "--backlog=9", "--timeout-keep-alive=30"),
            ("uvicorn", 9, 30, ()),
        ),
        (("gunicorn: master [app:app]",), ("gunicorn", 2048, 2, ("backlog", "keep_alive"))),
        (
            ("/v/bin/python", "/v/lib/hypercorn/__main__.py", "a:b"),
            ("hypercorn", 100, 5, ("backlog", "keep_alive")),
        ),
        (("granian", "a:b", "--backlog", "many"), ("granian", 1024, None, ("backlog",))),
        (("waitress-serve", "a:b"), ("waitress", 1024, 120, ("backlog", "keep_alive"))),
        (("uwsgi", "--http-socket=:80", "--listen", "7"), ("uwsgi", 7, None, ())),
        (("/v/bin/daphne", "a:b"), ("daphne", None, None, ())),
        (("python", "manage.py", "runserver", "x", "uvicorn"), None),
        ((), None),
    ],
)
def test_settings_on_a_command_line(
    command: tuple[str, ...], settings: tuple[str, int | None, float | None, tuple[str, ...]] | None
) -> None:
    found = settings_of(command)
    if settings is None:
        assert found is None
        return
    server, backlog, keep_alive, defaults = settings
    assert found == ServerSettings(
        server=server, backlog=backlog, keep_alive=keep_alive, from_defaults=defaults
    )


def test_an_event_belongs_to_one_reset(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text('{"event": "client_departed", "client": "10.0.0.9"}\n')
    log = EventLog(path)
    now = time.monotonic()
    with path.open("a") as file:
        ours = {"event": "client_departed", "client": "10.0.0.9", "phase": "handler"}
        print(json.dumps(ours), "7", "no JSON", sep="\n", file=file)
        print(json.dumps({"event": "order_paid", "client": "10.0.0.9"}), file=file)
    log.read()
    assert log.take("10.0.0.8:5", now) is None
    assert log.take("10.0.0.9:5", now - 60) is None
    event = log.take("10.0.0.9:5", now)
    assert event is not None
    assert event["phase"] == "handler"
    assert log.take("10.0.0.9:5", now) is None
    log.close()


def a_reset(port: int) -> Reset:
    line = SENT.format(
        src=f"127.0.0.1:{port}", dest="10.0.0.9:5", state="UNKNOWN", reason="NO_SOCKET"
    )
    reset = parse_line(line)
    assert reset is not None
    return reset


def test_where_a_look_at_all_processes_takes_long_there_are_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    looks = 0

    def look() -> tuple[dict[int, list[Owner]], list[int]]:
        nonlocal now, looks
        now += 3.0
        looks += 1
        return {}, []

    monkeypatch.setattr(naming, "listening_owners", look)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    namer = Namer()
    for port in range(1, 101):
        assert namer.name(a_reset(port)).owner is None
    assert looks == 1
    now += 12.0
    namer.name(a_reset(101))
    assert looks == 2


class Piped(Tracer):
    """One that reads from a pipe."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe


def test_a_flood_of_resets_is_read_in_parts() -> None:
    line = SENT.format(src="127.0.0.1:80", dest="10.0.0.9:5", state="UNKNOWN", reason="NO_SOCKET")
    reading, writing = os.pipe()

    def flood() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(writing, f"{line}\n".encode() * 50)

    tracer = Piped(reading)
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        first, second = tracer.read(), tracer.read()
    finally:
        tracer.close()
        thread.join()
        os.close(writing)
    assert len(first) > 1000
    assert {reset.local for reset in (*first, *second)} == {"127.0.0.1:80"}


def test_what_has_come_before_the_end_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    line = SENT.format(src="127.0.0.1:80", dest="10.0.0.9:5", state="UNKNOWN", reason="NO_SOCKET")
    now = 2000.0

    def slow_clock() -> float:
        nonlocal now
        now += 10.0
        return now

    monkeypatch.setattr(time, "monotonic", slow_clock)
    reading, writing = os.pipe()

    def backlog() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(f"{line}\n".encode() * 20_000)

    tracer = Piped(reading)
    thread = threading.Thread(target=backlog)
    thread.start()
    try:
        resets = tracer.drain()
    finally:
        tracer.close()
        thread.join()
    assert len(resets) == 20_000


def test_what_is_no_tracefs(tmp_path: Path) -> None:
    (tmp_path / "instances").mkdir()
    with pytest.raises(Untraceable, match="no tracepoints"), Tracer(tmp_path):
        pass


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.EACCES, "sudo"), (errno.EPERM, "sudo"), (errno.EROFS, "read-only")],
)
def test_why_there_is_no_tracing(
    number: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "instances").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Untraceable, match=word), Tracer(tmp_path):
        pass
