"""`cleanclose explain` on lines, one by one: whose each is, and what must never be the client's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cleanclose.core import Side
from cleanclose.doctor.explain.entries import Entry, entries
from cleanclose.doctor.explain.kinds import KINDS, Sure
from cleanclose.doctor.explain.rules import Finding, find
from cleanclose.doctor.explain.tally import Tally
from cleanclose.doctor.explain.times import time_in_fields, time_in_line

PACKAGES = "/usr/lib/python3.11/site-packages"
READ = f"""\
  File "{PACKAGES}/gunicorn/http/unreader.py", line 100, in chunk
    return self.sock.recv(size)
"""
APP = """\
  File "/srv/shop/views.py", line 7, in view
    value = load()
"""
RESET = "ConnectionResetError: [Errno 104] Connection reset by peer\n"
TRACEBACK = "Traceback (most recent call last):\n"
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"


def findings(text: str) -> list[Finding]:
    found = (find(entry) for entry in entries(text.splitlines()))
    return [each for each in found if each is not None]


def sides(text: str) -> list[Side]:
    return [KINDS[each.kind].side for each in findings(text)]


def kinds(text: str) -> list[str]:
    return [each.kind for each in findings(text)]


NGINX = '2026/11/27 10:00:00 [{level}] 7#7: *3 {said}, client: 10.0.0.9, server: x, upstream: "u"'
HAPROXY = (
    "Nov 27 10:00:00 lb haproxy[7]: 10.0.0.9:5000 [27/Nov/2026:10:00:00.100] web app/one "
    '0/0/0/-1/20 {status} 200 - - {state} 1/1/0/0/0 0/0 "POST /u HTTP/1.1"'
)
ENVOY = (
    '[2026-11-27T10:00:00.000Z] "GET /x HTTP/1.1" {status} {flags} 0 0 3 - "-" "curl" "i" "h" "-"'
)
ACCESS = '10.0.0.9 - - [27/Nov/2026:10:00:00 +0000] "GET /x HTTP/1.1" {status} 0 "-" "curl"'


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (NGINX.format(level="info", said="client prematurely closed connection"), "proxy_client"),
        (
            NGINX.format(
                level="info",
                said="recv() failed (104: Connection reset by peer) while sending request to "
                "upstream",
            ),
            "proxy_client",
        ),
        (
            NGINX.format(
                level="error",
                said="recv() failed (104: Connection reset by peer) while reading response header "
                "from upstream",
            ),
            "proxy_upstream",
        ),
        (
            NGINX.format(
                level="error",
                said="writev() failed (32: Broken pipe) while sending request to upstream",
            ),
            "proxy_upstream_upload",
        ),
        (
            NGINX.format(
                level="error",
                said="upstream timed out (110: Connection timed out) while reading response header "
                "from upstream",
            ),
            "proxy_upstream_timeout",
        ),
        (HAPROXY.format(status=400, state="CD--"), "proxy_client"),
        (HAPROXY.format(status=408, state="cR--"), "proxy_client_timeout"),
        (HAPROXY.format(status=502, state="SH--"), "proxy_upstream"),
        (HAPROXY.format(status=503, state="SC--"), "proxy_upstream_connect"),
        (HAPROXY.format(status=403, state="PR--"), "proxy_itself"),
        (ENVOY.format(status=0, flags="DC downstream_remote_disconnect"), "proxy_client"),
        (ENVOY.format(status=503, flags="UC upstream_reset"), "proxy_upstream"),
        (ENVOY.format(status=503, flags="UF,URX upstream_reset"), "proxy_upstream_connect"),
        (ENVOY.format(status=0, flags="UC,DC upstream_reset"), "proxy_upstream"),
        (ACCESS.format(status=499), "proxy_client"),
        ("[21/Nov/2026 10:00:00] - Broken pipe from ('127.0.0.1', 4000)", "server_says_client"),
        ("INFO:waitress:Client disconnected while serving /x", "server_says_client"),
        ("[2026-11-27 10:00:00 +0000] [7] [CRITICAL] WORKER TIMEOUT (pid:9)", "worker_timeout"),
        ("[2026-11-27 10:00:00 +0000] [7] [DEBUG] Ignoring EPIPE", "gunicorn_ignored"),
        (
            "[2026-11-27 10:00:00 +0000] [7] [DEBUG] Exception after response complete (client "
            "disconnected)",
            "gunicorn_ignored",
        ),
        ("socket.send() raised exception.", "asyncio_writes_in_vain"),
        ("the warehouse said: Connection reset by peer", "bare_words"),
        (
            "2026-11-27 10:00:00 [debug    ] client_departed    side=client phase=handler",
            "event_client",
        ),
        ("upstream_reset side=upstream error=ConnectionResetError", "event_upstream"),
        (
            json.dumps({"event": "truncated_upload", "side": "client", "status": 200}),
            "event_client",
        ),
        (
            json.dumps({"event": "upload_drained", "outcome": "cut", "cap": "max_bytes"}),
            "event_response_cut",
        ),
        (
            json.dumps({"logger": "http.log.error", "msg": "EOF", "status": 502, "ts": 1.0}),
            "proxy_upstream",
        ),
        (
            json.dumps({"response_flags": "DC", "start_time": "2026-11-27T10:00:00Z"}),
            "proxy_client",
        ),
        (json.dumps({"message": "502 Bad Gateway", "error": "EOF"}), "proxy_upstream"),
        (json.dumps({"DownstreamStatus": 499, "OriginStatus": 0}), "proxy_client"),
        (
            json.dumps({"level": "ERROR", "exc_info": TRACEBACK + READ + RESET}),
            "python_client_read",
        ),
        (
            json.dumps({"log": "INFO:waitress:Client disconnected while serving /x\n", "time": ""}),
            "server_says_client",
        ),
    ],
)
def test_a_line_is_of_its_kind(line: str, kind: str) -> None:
    assert kinds(line) == [kind]


@pytest.mark.parametrize(
    "line",
    [
        ACCESS.format(status=200),
        ACCESS.format(status=502),
        HAPROXY.format(status=200, state="----"),
        ENVOY.format(status=200, flags="- via_upstream"),
        'INFO:     10.0.0.9:5000 - "GET /password-reset HTTP/1.1" 200 OK',
        NGINX.format(level="info", said="client 10.0.0.9 closed keepalive connection"),
        "2026-11-27 10:00:00 [debug    ] upload_drained outcome=delivered status=413",
        "nothing to see",
        "{not JSON, reset",
        TRACEBACK + APP + "ValueError: no such thing\n",
        TRACEBACK + APP + "ConnectionRefusedError: [Errno 111] Connection refused\n",
    ],
)
def test_what_is_not_about_a_broken_connection_is_left_out(line: str) -> None:
    assert findings(line) == []


def test_a_servers_own_read_is_the_clients() -> None:
    assert kinds("ERROR in app\n" + TRACEBACK + APP + READ + RESET) == ["python_client_read"]


def test_the_applications_own_frame_proves_nothing() -> None:
    assert kinds(TRACEBACK + READ + APP + RESET) == ["python_unproven"]


def test_a_client_librarys_frame_is_an_upstreams() -> None:
    redis = f'  File "{PACKAGES}/redis/connection.py", line 1, in read\n    x()\n'
    assert sides(TRACEBACK + READ + APP + redis + RESET) == [Side.UPSTREAM]


def hidden() -> Iterator[str]:
    """Texts in which the client's error comes with another one."""
    client = TRACEBACK + READ + RESET
    other = TRACEBACK + APP + "KeyError: 'price'\n"
    yield other + DURING + client
    yield client + DURING + other
    yield other + CAUSE + client
    # The first half was written between lines of another process.
    yield other + "another line\n" + DURING + client
    upstream = TRACEBACK + APP + RESET
    yield upstream + DURING + client
    yield client + CAUSE + upstream
    group = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/srv/shop/views.py", line 7, in view\n'
        "  |     async with TaskGroup() as group:\n"
        "  | ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n"
    )
    for text in (client, upstream):
        lines = "".join(f"    | {line}\n" for line in text.splitlines())
        group += lines + "    +---------------- 2 ----------------\n"
    yield group


@pytest.mark.parametrize("text", list(hidden()))
def test_a_client_hides_nothing(text: str) -> None:
    assert Side.CLIENT not in sides(text)


def test_a_traceback_without_its_middle_proves_nothing() -> None:
    frames = APP * 400
    assert sides(TRACEBACK + frames + READ + RESET) == [Side.UNKNOWN]


def test_a_server_frame_that_calls_the_application_proves_nothing() -> None:
    call = f'  File "{PACKAGES}/uvicorn/protocols/http/h11_impl.py", line 1, in run_asgi\n'
    assert sides(TRACEBACK + call + "    result = await app(scope)\n" + RESET) == [Side.UNKNOWN]
    assert sides(TRACEBACK + call + RESET) == [Side.UNKNOWN]


def test_a_class_by_a_famous_name_proves_nothing() -> None:
    text = TRACEBACK + APP + "starlette.requests.ClientDisconnect\n"
    assert sides(text) == [Side.UNKNOWN]


def test_what_a_client_puts_into_a_request_line_is_no_verdict() -> None:
    request = '"GET /client%20prematurely\u0020closed\u0020connection HTTP/1.1"'
    said = "connect() failed (111: Connection refused) while connecting to upstream"
    line = NGINX.format(level="error", said=said) + f", request: {request}"
    assert kinds(line) == ["proxy_upstream_connect"]


def test_what_a_client_puts_into_an_event_is_no_verdict() -> None:
    line = "upstream_reset idempotency_key='x side=client' library=redis side=upstream"
    assert sides(line) == [Side.UPSTREAM]
    line = "client_departed idempotency_key='x side=client' side=server status=200"
    assert sides(line) == [Side.SERVER]


def test_prefixes_of_containers_are_no_obstacle() -> None:
    text = "".join(f"web-1  | {line}\n" for line in (TRACEBACK + READ + RESET).splitlines())
    assert kinds("web-1  | ERROR: x\n" + text) == ["python_client_read"]


def test_an_indented_traceback_is_one() -> None:
    text = "".join(f"    {line}\n" for line in (TRACEBACK + READ + RESET).splitlines())
    assert kinds("[E 261127 10:00:00 web:1] Uncaught exception\n" + text) == ["python_client_read"]


def test_two_tracebacks_in_a_row_are_two() -> None:
    one = TRACEBACK + READ + RESET
    assert kinds(one + one) == ["python_client_read", "python_client_read"]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("2026-11-27T10:00:00.5Z x", 1795773600.0),
        ("2026-11-27 11:00:00,123 x", 1795777200.0),
        ("[2026-11-27 11:00:00 +0100] x", 1795773600.0),
        ("2026/11/27 10:00:00 [error] x", 1795773600.0),
        ('1.2.3.4 - - [27/Nov/2026:10:00:00 +0000] "x"', 1795773600.0),
        ("[E 261127 10:00:00 web:1] x", 1795773600.0),
        ("nothing", None),
        ("2026-13-45 99:99:99", None),
    ],
)
def test_times(line: str, seconds: float | None) -> None:
    assert time_in_line(line) == seconds


def test_times_in_json() -> None:
    assert time_in_fields({"ts": 1795773600.25}) == 1795773600.25
    assert time_in_fields({"time": 1795773600250}) == 1795773600.25
    assert time_in_fields({"time": "2026-11-27T10:00:00Z"}) == 1795773600.0
    assert time_in_fields({"ts": float("inf"), "time": True}) is None


def test_counting_over_time_takes_no_more_memory_for_more_time() -> None:
    tally = Tally()
    for number in range(20_000):
        tally.add(Finding("x", "bare_words", f"detail {number}", number * 977.0, "a\x1b[31mline"))
    (group,) = tally.ranked()
    assert group.count == 20_000
    assert len(group.buckets) <= 240
    assert sum(group.buckets.values()) == 20_000
    assert len(group.details) <= 65
    assert "\x1b" not in group.example


def test_an_entry_takes_no_more_memory_for_more_lines() -> None:
    lines = (TRACEBACK + APP * 50_000 + RESET).splitlines()
    (entry,) = entries(lines)
    assert len(entry.lines) <= 300
    assert not entry.is_whole
    assert isinstance(entry, Entry)


def test_every_kind_has_a_sentence_for_each_question() -> None:
    for kind in KINDS.values():
        for sentence in (kind.why, kind.advice):
            assert sentence.endswith(".")
        # A guess is never a verdict.
        assert (kind.sure is Sure.GUESS) == (kind.side is Side.UNKNOWN), kind.name
