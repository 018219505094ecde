"""Work that nobody waits for any more ends, on every server, and nothing is said of it."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import Final

import pytest

from tests.harness.leavers import How, connected, request, until_read
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.stopping import (
    ASGI,
    HOWS,
    NOT_TOLD,
    TORNADO_ROW,
    Observed,
    with_keep_alive,
)
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import until

pytestmark = [pytest.mark.stacks, pytest.mark.slow]

SOON: Final = 15.0
"""Seconds: far less than the work would take by itself. How soon it ends is a benchmark's."""
AT_ONCE: Final = 3
WHERE: Final = (
    "/handler",
    "/body",
    "/upload",
    "/unread",
    "/group",
    "/quiet",
    "/beside",
    "/thread",
    "/dependency",
    "/stream",
    "/flowing",
    "/whole",
    "/whole-stream",
    "/whole-thread",
)
BY_THEMSELVES: Final = frozenset({"/beside", "/whole-thread"})
"""Work that ends by itself when it hears of the departure; it need not be cancelled."""


def observed(serve: Serve, row: Stack, tmp_path: Path, base: int = 0) -> Observed:
    """A fresh server of this kind: its log is this test's own."""
    tap = tmp_path / "tap"
    server = serve(row, env={PATH_VARIABLE: str(tap), "TEST_BASE_HTTP": str(base)})
    return Observed(server, tap)


def names() -> list[str]:
    return [uuid.uuid4().hex for _ in range(AT_ONCE)]


@pytest.mark.parametrize("row", ASGI, ids=str)
@pytest.mark.parametrize("base", [0, 1, 3])
def test_work_ends_and_cleans_up(serve: Serve, row: Stack, base: int, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path, base)
    tasks = server.state()["tasks"]
    delays: list[float] = []
    visits = 0
    for path in WHERE:
        for how in HOWS:
            if how in NOT_TOLD.get((row.name, path), ()):
                continue
            left = server.leave_all(path, how, names())
            delays += server.delays(left)
            visits += len(left)
    until(lambda: server.happened("cleaned") == visits, server.state)
    assert server.happened("begun") == visits
    assert max(delays) < SOON
    until(lambda: len(server.events()) == visits, server.events)
    assert server.loud() == []
    if tasks is not None:
        until(lambda: server.state()["tasks"] <= tasks, server.state)


@pytest.mark.parametrize("row", ASGI, ids=str)
@pytest.mark.parametrize("how", HOWS)
def test_it_is_told_and_counted(serve: Serve, row: Stack, how: How, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path)
    server.delays(server.leave_all("/handler", how, names()))
    until(lambda: len(server.events()) == AT_ONCE, server.events)
    for event in server.events():
        assert event["stopped"] is True
        assert event["side"] == "client"
        assert event.get("wasted_seconds", 0.0) < SOON
    counters = server.state()["counters"]
    assert counters['cleanclose_stopped_total{overdue="false"}'] == AT_ONCE


@pytest.mark.parametrize("row", ASGI, ids=str)
def test_a_shielded_part_finishes(serve: Serve, row: Stack, tmp_path: Path) -> None:
    server = observed(serve, row, tmp_path)
    server.delays(server.leave_all("/shielded", "rst", names()))
    assert server.happened("shielded part finished") == AT_ONCE
    until(lambda: server.happened("cleaned") == AT_ONCE, server.state)


@pytest.mark.parametrize("row", ASGI, ids=str)
def test_nothing_outside_of_a_quiet_block_is_cancelled(
    serve: Serve, row: Stack, tmp_path: Path
) -> None:
    server = observed(serve, row, tmp_path, base=1)
    server.delays(server.leave_all("/quiet", "fin", names()))
    until(lambda: server.happened("quiet, and on") == AT_ONCE, server.state)
    assert server.loud() == []


@pytest.mark.parametrize("row", ASGI, ids=str)
def test_an_error_of_the_work_while_it_is_stopped_is_told(
    serve: Serve, row: Stack, tmp_path: Path
) -> None:
    serve.allow_tracebacks()
    server = observed(serve, row, tmp_path)
    server.delays(server.leave_all("/fails", "rst", names()))
    # gunicorn says nothing of an error at its usual level once the client has left.
    if "asgi-gunicorn" not in row.name:
        until(lambda: len(server.loud()) >= AT_ONCE, server.loud)


@pytest.mark.parametrize("how", HOWS)
def test_tornado(serve: Serve, how: How, tmp_path: Path) -> None:
    server = observed(serve, TORNADO_ROW, tmp_path)
    tasks = server.state()["tasks"]
    paths = ("/handler", "/body", "/quiet", "/beside", "/flowing", "/whole")
    for path in paths:
        delays = server.delays(server.leave_all(path, how, names()))
        assert max(delays) < SOON
    visits = AT_ONCE * len(paths)
    until(lambda: server.happened("cleaned") == visits, server.state)
    until(lambda: len(server.events()) == visits, server.events)
    stopped = [event for event in server.events() if event.get("stopped")]
    # Who waits for the departure beside its work stops by itself.
    assert len(stopped) == visits - AT_ONCE
    assert server.happened("finished") == AT_ONCE
    assert server.loud() == []
    until(lambda: server.state()["tasks"] <= tasks, server.state)


@pytest.mark.negative_control
@pytest.mark.parametrize("row", [ASGI[0], TORNADO_ROW], ids=str)
def test_without_the_middleware_it_goes_on(serve: Serve, row: Stack) -> None:
    server = serve(row, wrapped=False)
    seen = Observed(server, Path("/nonexistent"))
    left = seen.leave_all("/handler", "rst", names())
    # It has long seen the departures: it serves these requests behind them.
    states = [seen.state() for _ in range(20)]
    assert set(left) <= set(states[-1]["running"])


DELIVERS_BEHIND_A_FIN: Final = frozenset(
    {"stopping-asgi-hypercorn", "stopping-asgi-hypercorn-trio"}
)
"""Servers that tell of a departure at the end of a client's sending, but do not close."""


@pytest.mark.parametrize("row", [*ASGI, TORNADO_ROW], ids=str)
def test_the_end_of_sending_counts_as_leaving(serve: Serve, row: Stack, tmp_path: Path) -> None:
    serve.allow_tracebacks()
    for wrapped in (False, True):
        env = {PATH_VARIABLE: str(tmp_path / "tap")} if wrapped else {}
        # hypercorn waits for so long behind the end of a client's sending.
        server = serve(with_keep_alive(row, 1), wrapped=wrapped, env=env)
        with connected(server.port) as sock:
            sock.settimeout(60)
            sock.sendall(request("GET", "/stay?seconds=0.3"))
            until_read(sock)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(4096)
        if row.name in DELIVERS_BEHIND_A_FIN:
            # The price of decision 0025: bare, this client would have had its answer.
            assert (b" 200 " in answer) is not wrapped
        else:
            assert answer == b""


@pytest.mark.parametrize("row", [ASGI[0], ASGI[3], ASGI[7], TORNADO_ROW], ids=str)
def test_a_server_that_stops_has_a_way_of_its_own(row: Stack, tmp_path: Path) -> None:
    tap = tmp_path / "tap"
    with (
        row.process(wrapped=True, env={PATH_VARIABLE: str(tap)}) as process,
        connected(process.port) as sock,
    ):
        sock.sendall(request("GET", "/handler", headers=(("X-Request-ID", "stays"),)))
        server = Observed(process, tap)
        until(lambda: server.state()["running"] == ["stays"], server.state)
        process.stop()
    # Whatever the server did: nobody has left, and nothing was stopped for that.
    assert [event for event in server.events() if event.get("stopped")] == []
