"""Every ASGI server: refused uploads arrive, all else is as without the middleware."""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import pytest

from cleanclose.doctor import Upload, reader, strict
from tests.harness.apps import routes
from tests.harness.kernel import unread_at
from tests.harness.processes import ServerProcess, stopped
from tests.harness.scenarios import CORE, FRAMING, GUARD, KIB, MIB, PATHS, TRIES, Scenario
from tests.harness.servers_asgi import (
    DAPHNE,
    GRANIAN,
    GUNICORN,
    HYPERCORN,
    HYPERCORN_TRIO,
    OTHERS,
    ROWS,
    TLS_ROWS,
    UVICORN,
    raw,
    with_certificate,
)
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import Stack
from tests.harness.tls import Certificate, certificate, tls_upload
from tests.harness.verdicts import arrived, assert_clean, assert_delivered, repeat
from tests.harness.waiting import until
from tests.harness.watching import CUT, DRAINED, SLACK, Watch, check_no_confusion

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

pytestmark = [pytest.mark.stacks, pytest.mark.timeout(GUARD)]

FEW: Final = max(1, TRIES // 3)
CAPS: Final[SettingsOptions] = {
    "max_bytes": MIB,
    "max_seconds": 3.0,
    "idle_seconds": 0.6,
    "hold_seconds": 0.3,
}
PACED: Final[SettingsOptions] = {"max_seconds": 60.0, "idle_seconds": 30.0, "hold_seconds": 0.3}
"""For clients that send and pause: a busy machine stretches that, and no cap is to end it."""
# daphne has read every body before the application is called: there is nothing to deliver. With
# uvicorn these tests run in tests/promises/delivery.
EDGES = [row for row in ROWS if row is not DAPHNE and "uvicorn" not in row.name]

SCENARIOS: Final = (
    *(scenario for scenario in CORE if scenario.name not in ("length-64", "large-8", "slow")),
    *(
        scenario
        for scenario in PATHS
        if scenario.name in ("after-close", "streaming", "late-close")
    ),
    *(scenario for scenario in PATHS if scenario.name in ("redirect-close", "nothing-close")),
    replace(
        PATHS[-2],
        name="not-modified-close",
        status=304,
        upload=replace(PATHS[-2].upload, path=routes.NOT_MODIFIED),
    ),
)
CONTROLS: Final = ("length-8", "chunked-8", "close-8", "slow-close", "nothing-close")


def to(row: Stack, server: ServerProcess, scenario: Scenario) -> Upload:
    """The upload; where every kept connection costs a second, only the first ones are kept."""
    upload = scenario.to(server.port)
    if row in (HYPERCORN, HYPERCORN_TRIO) and not scenario.name.startswith("length"):
        return replace(upload, connection_close=True)
    return upload


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_refusal_arrives(serve: Serve, tally: Tally, row: Stack, scenario: Scenario) -> None:
    server = serve(row)
    tries = 1 if scenario.upload.pause else FEW
    upload = to(row, server, scenario)
    if row is HYPERCORN_TRIO and scenario.name == "streaming":
        # See test_a_stream_that_trio_never_ends.
        upload = replace(upload, connection_close=False)
    outcomes = repeat(strict, upload, tries)
    good = sum(arrived(outcome, scenario) for outcome in outcomes)
    tally(f"{row} {scenario}", "strict", wrapped=True, delivered=good, tries=tries)
    assert_delivered(outcomes, scenario)


@pytest.mark.negative_control
@pytest.mark.parametrize(
    ("row", "scenario"),
    [
        pytest.param(row, scenario, id=f"{row}-{scenario}")
        for row in ROWS
        for scenario in SCENARIOS
        if scenario.name in CONTROLS and scenario.lost_by(row)
    ],
)
def test_without_the_middleware_it_is_lost(
    serve: Serve, tally: Tally, row: Stack, scenario: Scenario
) -> None:
    server = serve(row, wrapped=False)
    delivered = tries = 0
    for tries in range(1, FEW + 2):
        # hypercorn lets a chunked upload hang for as long as its client waits.
        outcome = strict(replace(scenario.to(server.port), timeout=3.0))
        delivered += arrived(outcome, scenario)
        if delivered < tries:
            break
    tally(f"{row} {scenario}", "strict", wrapped=False, delivered=delivered, tries=tries)
    assert delivered < tries


def test_daphne_delivers_by_itself(serve: Serve) -> None:
    """So nothing is read, kept or counted there: its row of the table says so."""
    outcomes = [
        strict(CORE[0].to(serve(DAPHNE, wrapped=wrapped).port)) for wrapped in (False, True)
    ]
    assert_delivered(outcomes, CORE[0])
    counts = get_counts(serve(DAPHNE))
    assert not any(count for name, count in counts.items() if "early_responses" in name)


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_the_next_request_is_served(serve: Serve, row: Stack, chunked: bool) -> None:
    server = serve(row)
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=128 * KIB,
            chunked=chunked,
            follow_up="after",
            listen=0.02,
        )
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert response.status == 413, str(outcome)
    if chunked and outcome.second is None:
        # Where a chunked body ends nobody knows: only what has arrived is drained.
        assert not response.keeps_alive, str(outcome)
        return
    assert outcome.second is not None, str(outcome)
    assert (outcome.second.status, outcome.second.body) == (200, routes.OK_BODY)
    assert_clean([outcome])


@pytest.mark.parametrize("row", [UVICORN, GUNICORN, HYPERCORN], ids=str)
def test_a_body_that_came_with_its_head_needs_no_delivery(serve: Serve, row: Stack) -> None:
    """Nobody is uploading any more: the connection is used again, and there is nothing to tell."""
    server = serve(row)
    before = early_responses(server)
    request = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n" % (
        routes.REFUSE.encode()
    )
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answers = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=GUARD) as client:
        client.sendall(request + bytes(1024))
        answers += client.recv(64 * KIB)
        client.sendall(last + bytes(1024))
        while data := client.recv(64 * KIB):
            answers += data
    assert answers.count(b"HTTP/1.1 413 ") == 2, answers
    assert early_responses(server) == before


@pytest.mark.parametrize(
    ("chunked", "pause"), [(True, 0.0), (False, 0.015)], ids=["fast-chunked", "slow-length"]
)
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_a_request_behind_the_unread_body(
    serve: Serve, row: Stack, chunked: bool, pause: float
) -> None:
    """It has its own answer, or none where the answer before has announced the end."""
    server = serve(row)
    if "trio" in row.name:
        # TCPServer._close may be under way in another task than its protocol_send, which trio
        # answers with a BusyResourceError.
        serve.allow_tracebacks()
    watch = Watch(server)
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=3 * MIB if pause else 5 * MIB,
            chunked=chunked,
            pause=pause,
            follow_up="pipelined",
            listen=0.02,
        )
    )
    response = outcome.response
    assert response is not None, str(outcome)
    assert response.status == 413
    assert_clean([outcome])
    if outcome.second is None:
        assert not response.keeps_alive, str(outcome)
    else:
        assert (outcome.second.status, outcome.second.body) == (200, routes.OK_BODY)
    watch.check()


@pytest.mark.parametrize(
    ("chunked", "manner"), [(False, "patient"), (True, "patient"), (True, "impatient")]
)
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_expectations(
    serve: Serve, row: Stack, chunked: bool, manner: Literal["patient", "impatient"]
) -> None:
    """No 100 behind the final response; and where it is not sent, nobody waits for the body."""
    server = serve(row)
    upload = Upload(
        port=server.port,
        path=routes.REFUSE,
        body_size=8 * MIB,
        chunked=chunked,
        expect=manner,
        expect_seconds=10.0,
        connection_close=row in (HYPERCORN, HYPERCORN_TRIO),
        listen=0.05,
    )
    outcome = strict(upload)
    if row is GRANIAN and manner == "impatient":
        # Reading would send a 100, behind the response there is nothing to read, and the
        # connection is not in reach: as without the middleware, the client may be reset.
        assert outcome.status in (None, 413), str(outcome)
        return
    assert outcome.status == 413, str(outcome)
    assert_clean([outcome])
    continued = [response.status for response in outcome.transcript.informational]
    assert continued in ([], [100]), str(outcome)
    if manner == "patient" and not continued:
        assert outcome.bytes_sent == 0
        assert outcome.response is not None
        assert not outcome.response.keeps_alive
    accepted = strict(replace(upload, path=routes.ACCEPT, body_size=MIB))
    assert accepted.status == 200, str(accepted)
    assert_clean([accepted])


@pytest.mark.parametrize("path", [routes.REFUSE_LARGE, routes.NOTHING])
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_http_1_0(serve: Serve, row: Stack, path: str) -> None:
    server = serve(row)
    outcome = strict(Upload(port=server.port, path=path, body_size=8 * MIB, http_version="1.0"))
    assert outcome.status in (401, 413, 204), str(outcome)
    assert outcome.closed_by == "fin", str(outcome)
    assert_clean([outcome])


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_client_that_stalls(serve: Serve, row: Stack, chunked: bool) -> None:
    server = serve(row, settings={**CAPS, "max_bytes": 64 * MIB})
    watch = Watch(server)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=8 * MIB,
            chunked=chunked,
            abort_after=5 * MIB,
            abort_how="stall",
            keep_sending=True,
            timeout=SLACK,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.transcript.clean, str(outcome)
    if row is GRANIAN or sys.platform != "linux":
        assert watch.grown(DRAINED % "cut"), watch.changes()
        assert watch.grown(CUT % "idle_seconds"), watch.changes()
    else:
        # The kernel says that the response has arrived.
        assert watch.grown(DRAINED % "delivered"), watch.changes()
    watch.check()


@pytest.mark.parametrize(
    ("chunked", "pause"), [(True, 0.01), (False, 0.03)], ids=["chunked", "length"]
)
@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_client_that_resets(serve: Serve, row: Stack, chunked: bool, pause: float) -> None:
    server = serve(row, settings={**PACED, "max_bytes": 64 * MIB})
    watch = Watch(server)
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=8 * MIB,
            chunked=chunked,
            pause=pause,
            abort_after=MIB,
            abort_how="reset",
        )
    )
    assert outcome.send_error is None, str(outcome)
    assert watch.grown(DRAINED % "reset", DRAINED % "unknown"), watch.changes()
    watch.check()


@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_a_client_that_half_closes(serve: Serve, row: Stack) -> None:
    server = serve(row, settings={**PACED, "max_bytes": 64 * MIB})
    watch = Watch(server)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=8 * MIB,
            pause=0.03,
            abort_after=MIB,
            abort_how="half_close",
            keep_sending=True,
            timeout=SLACK,
        )
    )
    check_no_confusion(outcome)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    if row is DAPHNE:
        # Of a body that has not come whole it tells the application nothing.
        assert outcome.status is None
    elif row is HYPERCORN and outcome.status == 400:
        # H11Protocol._handle_events: its own answer to half a body, if ours is not on its way.
        assert outcome.transcript.clean
    else:
        assert outcome.status == 413, str(outcome)
    watch.check()


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1], ids=["below", "at", "above"])
@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_body_at_the_cap(serve: Serve, row: Stack, size: int) -> None:
    """The cap is the last byte that is read: with a body of that size the connection goes on."""
    server = serve(row, settings={**CAPS, "respond_after": 3.0})
    watch = Watch(server)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=size,
            keep_sending=True,
            follow_up="after",
            listen=0.02,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert outcome.transcript.clean, str(outcome)
    if size <= MIB:
        assert outcome.second is not None, str(outcome)
        assert watch.grown(DRAINED % "delivered"), watch.changes()
    else:
        # A server's last piece may bring more than the cap asks for.
        assert watch.grown(DRAINED % "cut", DRAINED % "delivered"), watch.changes()


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_body_far_above_the_cap(serve: Serve, row: Stack, chunked: bool) -> None:
    """The response is there, and then the connection ends, also where the bare server hangs."""
    server = serve(row, settings=CAPS)
    watch = Watch(server)
    outcome = reader(
        Upload(
            port=server.port,
            path=routes.REFUSE,
            body_size=64 * MIB,
            chunked=chunked,
            keep_sending=True,
            timeout=SLACK,
        )
    )
    assert outcome.status == 413, str(outcome)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.transcript.clean, str(outcome)
    assert watch.grown(CUT % "max_bytes"), watch.changes()
    watch.check()


@pytest.mark.parametrize("chunked", FRAMING)
@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_large_response_to_a_client_that_only_writes(
    serve: Serve, row: Stack, chunked: bool
) -> None:
    """The server waits for room to send, the client for room to write: both get it."""
    # On granian there is nothing behind the response: the body has to be drained before.
    settings: SettingsOptions = {} if row is GRANIAN else {"respond_after": 0.0}
    server = serve(row, settings=settings)
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.REFUSE_LARGE,
            body_size=64 * MIB,
            chunked=chunked,
            connection_close=True,
            timeout=SLACK,
        )
    )
    assert outcome.response is not None, str(outcome)
    assert outcome.response.body == routes.LARGE
    assert_clean([outcome])


@pytest.mark.negative_control
def test_bare_hypercorn_leaves_a_chunked_upload_hanging(serve: Serve) -> None:
    """Its queue is full, and what would empty it waits for what stands behind."""
    server = serve(HYPERCORN, wrapped=False)
    upload = Upload(
        port=server.port,
        path=routes.REFUSE,
        body_size=64 * MIB,
        chunked=True,
        keep_sending=True,
        timeout=4.0,
        # 48 KiB are more of these than the queue has places for.
        piece_size=4 * KIB,
    )
    with ThreadPoolExecutor() as pool:
        with stopped(server.pid):
            seen = pool.submit(reader, upload)
            # Else it might be quick enough to refuse before the queue is full.
            until(lambda: unread_at(server.port) > 48 * KIB)
        assert seen.result().closed_by == "timeout"


@pytest.mark.negative_control
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_a_stream_that_trio_never_ends(serve: Serve, wrapped: bool) -> None:
    """Hypercorn's trio worker tells Starlette of the end before it closes.

    Starlette then cancels what is being sent, and with it the closing. That is so for a GET,
    which no middleware of ours delays.
    """
    server = serve(HYPERCORN_TRIO, wrapped=wrapped)
    outcome = strict(
        Upload(
            port=server.port,
            method="GET",
            path=routes.REFUSE_STREAMING,
            connection_close=True,
            timeout=3.0,
        )
    )
    assert outcome.status == 413
    assert outcome.closed_by == "timeout", str(outcome)


ERRORS = [
    pytest.param(row, id=f"{row}-{app}")
    for row in ROWS
    for app, row in (("starlette", row), ("raw", raw(row)))
]


@pytest.mark.parametrize(("chunked", "pause"), [(True, 0.0), (False, 0.015)])
@pytest.mark.parametrize("row", ERRORS)
def test_a_500_made_outside_arrives(
    serve: Serve, tally: Tally, row: Stack, chunked: bool, pause: float
) -> None:
    """By Starlette's outermost middleware, or by the server: neither passes ours."""
    serve.allow_tracebacks()
    server = serve(row)
    logged = server.log_text().count("as this route promises")
    outcome = strict(
        Upload(
            port=server.port,
            path=routes.ERROR,
            body_size=3 * MIB if pause else 8 * MIB,
            chunked=chunked,
            pause=pause,
            connection_close=True,
        )
    )
    tally(f"{row} error", "strict", wrapped=True, delivered=int(outcome.status == 500), tries=1)
    assert outcome.status == 500, str(outcome)
    assert_clean([outcome])
    if row.name != GUNICORN.name:
        # gunicorn's worker says nothing of what comes behind a response, which Starlette sends.
        until_logged(server, "as this route promises", logged + 1)


@pytest.mark.parametrize("row", [HYPERCORN, HYPERCORN_TRIO], ids=str)
def test_a_500_made_outside_arrives_when_a_queue_has_had_time_to_fill(
    serve: Serve, row: Stack
) -> None:
    """The server waits with the end of an answer until there is room for one more piece."""
    serve.allow_tracebacks()
    server = serve(row, env={"TEST_SLOW_500": "0.5"})
    outcome = strict(Upload(port=server.port, path=routes.ERROR, body_size=16 * MIB, chunked=True))
    assert outcome.status == 500, str(outcome)
    assert_clean([outcome])


@pytest.mark.negative_control
@pytest.mark.parametrize("row", [each for each in ERRORS if "daphne" not in str(each.id)])
def test_without_the_middleware_the_500_is_lost(serve: Serve, tally: Tally, row: Stack) -> None:
    server = serve(row, wrapped=False)
    outcome = strict(
        Upload(port=server.port, path=routes.ERROR, body_size=8 * MIB, connection_close=True)
    )
    tally(f"{row} error", "strict", wrapped=False, delivered=int(outcome.status == 500), tries=1)
    assert outcome.status is None, str(outcome)


@pytest.mark.parametrize("row", EDGES, ids=str)
def test_a_failure_in_front_of_too_much_is_not_held_up_for_ever(serve: Serve, row: Stack) -> None:
    """At a cap the exception goes on, and the server does with the rest what it does bare."""
    serve.allow_tracebacks()
    server = serve(row, settings=CAPS)
    watch = Watch(server)
    outcome = strict(
        Upload(port=server.port, path=routes.ERROR, body_size=8 * MIB, timeout=SLACK / 2)
    )
    check_no_confusion(outcome)
    assert watch.grown(CUT % "max_bytes"), watch.changes()
    watch.check()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("size", [8 * MIB, 64 * MIB], ids=["8-MiB", "64-MiB"])
@pytest.mark.parametrize("row", TLS_ROWS, ids=str)
def test_a_refusal_arrives_through_tls(
    serve: Serve, tally: Tally, signed: Certificate, row: Stack, size: int
) -> None:
    server = serve(with_certificate(row, signed))
    outcomes = [
        tls_upload(server.port, signed, routes.REFUSE, size, close=close)
        for close in (False, True)
        for _ in range(FEW)
    ]
    delivered = sum(outcome.body == routes.REFUSAL for outcome in outcomes)
    tally(f"{row} {size // MIB}", "tls", wrapped=True, delivered=delivered, tries=len(outcomes))
    assert delivered == len(outcomes), outcomes
    # The end of a connection is what the server makes of it: see what it does without us.
    accepted = tls_upload(server.port, signed, routes.ACCEPT, KIB, close=True)
    assert {each.ended_by for each in outcomes if each.closes} == {accepted.ended_by}


@pytest.mark.negative_control
# uvicorn waits for the client's close_notify, as asyncio's TLS has it, and reads until then.
@pytest.mark.parametrize("row", [row for row in TLS_ROWS if row is not UVICORN], ids=str)
def test_without_the_middleware_it_is_lost_through_tls(
    serve: Serve, tally: Tally, signed: Certificate, row: Stack
) -> None:
    server = serve(with_certificate(row, signed), wrapped=False)
    outcomes = [
        tls_upload(server.port, signed, routes.REFUSE, 64 * MIB, close=True, timeout=4.0)
        for _ in range(FEW)
    ]
    delivered = sum(outcome.body == routes.REFUSAL for outcome in outcomes)
    tally(f"{row} 64", "tls", wrapped=False, delivered=delivered, tries=len(outcomes))
    assert delivered < len(outcomes)


def early_responses(server: ServerProcess) -> dict[str, int]:
    counts = get_counts(server)
    return {name: count for name, count in counts.items() if "early_responses" in name}


def get_counts(server: ServerProcess) -> dict[str, int]:
    outcome = strict(
        Upload(port=server.port, method="GET", path=routes.COUNTERS, connection_close=True)
    )
    assert outcome.response is not None, str(outcome)
    counts: dict[str, int] = json.loads(outcome.response.body)
    return counts


def until_logged(server: ServerProcess, text: str, times: int) -> None:
    until(lambda: server.log_text().count(text) >= times, lambda: server.log_text()[-4000:])
