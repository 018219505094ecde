"""Behind ten proxies: the application's answer, whole, and no 502, no 503 and no cut connection.

Every client here is one of two: `strict` writes all of its upload before it reads, and gives up at
the first failed write; `reader` reads while it sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final

import pytest

from cleanclose.doctor import Outcome, Upload, reader, strict
from cleanclose.doctor.wire import Fault
from tests.harness.apps import routes
from tests.harness.processes import ServerProcess
from tests.harness.proxies import FROM_PACKAGES, PROXIES, CaddyProxy, HaproxyProxy
from tests.harness.scenarios import GUARD, KIB, MIB
from tests.harness.servers_asgi import ROWS as ASGI_ROWS
from tests.harness.servers_wsgi import ROWS as WSGI_ROWS
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import SERVERS, Stack, gunicorn, stack
from tests.harness.stopping import with_keep_alive
from tests.harness.verdicts import Client, assert_clean
from tests.harness.watching import DRAINED, Watch, smuggled

pytestmark = pytest.mark.timeout(GUARD)

PIECES: Final = 32
"""So many pieces has an upload of 8 MiB that takes its time."""

CLIENTS: Final = (strict, reader)


def named(*names: str) -> list[object]:
    """Proxies for a test, marked where a package brings them."""
    marks = {name: [pytest.mark.stacks] if name in FROM_PACKAGES else [] for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


ALL: Final = named(*PROXIES)


def threaded(threads: int) -> Stack:
    """A gunicorn with so many threads, half of which may wait for a proxy."""
    name = f"gunicorn-gthread-{threads}"
    options = ("--worker-class=gthread", f"--threads={threads}", "--keep-alive=30")
    return gunicorn(name, "raw_wsgi", *options, threads=True)


THREE: Final = (stack("uvicorn-httptools"), threaded(16), stack("tornado"))

OTHERS: Final = tuple(with_keep_alive(row, 60) for row in (*ASGI_ROWS, *WSGI_ROWS))
"""A proxy sends its next request on a connection that it has kept. If a busy machine pauses between
them for as long as the server keeps one, that request is lost, with us or without."""


def upload(seconds: float = 0.0, *, size: int = 8 * MIB, chunked: bool = False) -> Upload:
    """A refused upload that takes so long."""
    found = Upload(
        port=0, path=routes.REFUSE, body_size=size, chunked=chunked, listen=0.02, timeout=60.0
    )
    if seconds:
        found = replace(found, piece_size=size // PIECES, pause=seconds / (PIECES - 1))
    return found


def at_once(tries: Sequence[tuple[Client, Upload]]) -> list[Outcome]:
    """What came of uploads that were sent at the same time."""
    with ThreadPoolExecutor(len(tries)) as pool:
        running = [pool.submit(client, one) for client, one in tries]
    return [each.result() for each in running]


def each_way(port: int, one: Upload) -> list[tuple[Client, Upload]]:
    """The same upload by both clients, in both framings."""
    return [
        (client, replace(one, port=port, chunked=chunked))
        for client in CLIENTS
        for chunked in (False, True)
    ]


def what_came(outcomes: Iterable[Outcome], body: bytes = routes.REFUSAL) -> dict[object, int]:
    """How often each status came; an answer that is cut or another one counts by what it is."""
    found: list[object] = []
    for outcome in outcomes:
        response = outcome.response
        if response is None:
            found.append("reset" if outcome.reset_seen else "cut")
        else:
            found.append(response.status if response.body == body else (response.status, "other"))
    return {what: found.count(what) for what in dict.fromkeys(found)}


def check(serve: Serve, tally: Tally, row: Stack, proxy: str, one: Upload) -> None:
    """Both clients get the answer whole in both framings, and no body became a request."""
    server = serve(row)
    port = serve.behind(server, proxy).port
    outcomes = at_once(each_way(port, one))
    expected = (401, routes.LARGE) if one.path == routes.REFUSE_LARGE else (413, routes.REFUSAL)
    seen = what_came(outcomes, expected[1])
    seconds = round(one.pause * (PIECES - 1))
    delivered = seen.get(expected[0], 0)
    tally(f"{row} {proxy}", f"{seconds} s", wrapped=True, delivered=delivered, tries=len(outcomes))
    assert seen == {expected[0]: len(outcomes)}, [str(outcome) for outcome in outcomes]
    assert_clean(outcomes)
    assert not smuggled(server)


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("row", SERVERS, ids=str)
def test_the_refusal_arrives_at_full_speed(
    serve: Serve, tally: Tally, row: Stack, proxy: str
) -> None:
    """One after the other: half of four threads are not all."""
    server = serve(row)
    port = serve.behind(server, proxy).port
    outcomes = [client(one) for client, one in each_way(port, upload())]
    seen = what_came(outcomes)
    tally(f"{row} {proxy}", "0 s", wrapped=True, delivered=seen.get(413, 0), tries=len(outcomes))
    assert seen == {413: len(outcomes)}, [str(outcome) for outcome in outcomes]
    assert_clean(outcomes)
    assert not smuggled(server)


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("seconds", [2, 6])
@pytest.mark.parametrize("row", THREE, ids=str)
def test_a_slow_upload(serve: Serve, tally: Tally, row: Stack, proxy: str, seconds: int) -> None:
    check(serve, tally, row, proxy, upload(seconds))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.stacks
@pytest.mark.parametrize(
    "row", [stack("uvicorn-httptools"), threaded(160), stack("tornado")], ids=str
)
def test_an_upload_of_twenty_seconds(serve: Serve, tally: Tally, row: Stack) -> None:
    """Through all of the proxies at once: they wait, and so does the server."""
    server = serve(row)
    tries = {name: each_way(serve.behind(server, name).port, upload(20)) for name in PROXIES}
    outcomes = at_once([each for uploads in tries.values() for each in uploads])
    for number, name in enumerate(tries):
        mine = outcomes[4 * number : 4 * number + 4]
        delivered = what_came(mine).get(413, 0)
        tally(f"{row} {name}", "20 s", wrapped=True, delivered=delivered, tries=len(mine))
    assert what_came(outcomes) == {413: len(outcomes)}, [
        (name, str(outcome))
        for number, name in enumerate(tries)
        for outcome in outcomes[4 * number : 4 * number + 4]
        if outcome.status != 413
    ]
    assert_clean(outcomes)
    assert not smuggled(server)


@pytest.mark.negative_control
@pytest.mark.parametrize("proxy", named(*(name for name in PROXIES if name != "lighttpd")))
def test_without_the_middleware_the_refusal_is_lost(serve: Serve, tally: Tally, proxy: str) -> None:
    """A race between the proxy's writing and the server's reset: run until it is lost.

    lighttpd with its buffering is left out: it writes its 8 MiB from a file, and finds an answer
    that has come before the reset.
    """
    server = serve(stack("tornado"), wrapped=False)
    port = serve.behind(server, proxy).port
    # lighttpd's buffers hold more, so that a reset comes later.
    seconds = 6 if proxy == "lighttpd-streaming" else 0 if "nginx" in proxy else 2
    one = replace(upload(seconds, chunked=True), port=port)
    passed = tries = 0
    for tries in range(1, 41):
        passed += what_came([strict(one)]) == {413: 1}
        if passed < tries:
            break
    tally(f"tornado {proxy}", f"{seconds} s", wrapped=False, delivered=passed, tries=tries)
    assert passed < tries


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("row", THREE, ids=str)
def test_a_large_answer(serve: Serve, tally: Tally, row: Stack, proxy: str) -> None:
    check(serve, tally, row, proxy, replace(upload(), path=routes.REFUSE_LARGE))


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("row", THREE, ids=str)
def test_a_connection_that_is_used_on(serve: Serve, row: Stack, proxy: str) -> None:
    """Uploads and GETs in turns: no answer is another request's, whichever connection it took."""
    server = serve(row)
    port = serve.behind(server, proxy).port
    before = smuggled(server)
    mixed = [
        replace(
            upload(size=size, chunked=chunked),
            port=port,
            path=path,
            follow_up="after",
            follow_up_path=routes.INDEX,
        )
        for size in (200 * KIB, MIB, 3 * MIB)
        for path in (routes.REFUSE, routes.REFUSE_AFTER, routes.INDEX)
        for chunked in (False, True)
    ]
    outcomes = at_once([(reader, one) for one in mixed[:2]])
    for number in range(2, len(mixed), 2):
        outcomes += at_once([(reader, one) for one in mixed[number : number + 2]])
    for one, outcome in zip(mixed, outcomes, strict=True):
        expected = (200, routes.OK_BODY) if one.path == routes.INDEX else (413, routes.REFUSAL)
        response = outcome.response
        assert response is not None, (one, str(outcome))
        assert (response.status, response.body) == expected
        if outcome.followed_up:
            assert outcome.second is not None, (one, str(outcome))
            assert (outcome.second.status, outcome.second.body) == (200, routes.OK_BODY)
    assert_clean(outcomes)
    assert smuggled(server) == before


def clean_but_for_a_100(outcome: Outcome) -> bool:
    """Caddy says 100 by itself, and passes on what the server says: one more than was asked for."""
    return outcome.transcript.faults in ((), (Fault.UNASKED_CONTINUE,))


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("row", [*THREE, stack("uvicorn-h11")], ids=str)
def test_a_client_that_waits_for_a_100(serve: Serve, row: Stack, proxy: str) -> None:
    """Whoever answers its Expect, and whether the server sees it or not."""
    if (row.interface, proxy) == ("wsgi", "haproxy"):
        pytest.skip("HAProxy 2.6 may keep the last bytes of an answer behind a server's own 100")
    server = serve(row)
    one = replace(upload(), port=serve.behind(server, proxy).port, expect="patient")
    tries = [
        client(replace(one, chunked=chunked)) for client in CLIENTS for chunked in (False, True)
    ]
    assert what_came(tries) == {413: len(tries)}, [str(outcome) for outcome in tries]
    if proxy == "caddy":
        assert all(map(clean_but_for_a_100, tries))
    else:
        assert_clean(tries)
    assert not smuggled(server)


@pytest.mark.negative_control
@pytest.mark.stacks
def test_caddys_second_100_is_its_own(serve: Serve) -> None:
    """It comes without the middleware as well, and for an upload that is accepted.

    Not in every try.
    """
    port = serve.behind(serve(stack("uvicorn-httptools"), wrapped=False), "caddy").port
    for _ in range(20):
        outcome = strict(replace(upload(), port=port, path=routes.ACCEPT, expect="patient"))
        assert outcome.status == 200
        if outcome.transcript.faults == (Fault.UNASKED_CONTINUE,):
            return
    pytest.fail("it never did")


@pytest.mark.negative_control
@pytest.mark.stacks
def test_caddy_takes_the_rest_of_a_body_for_requests(serve: Serve) -> None:
    """2.11.7 does, where the answer comes early; what it takes for one gets to the server.

    Why all the others here ask the server what it has seen.
    """
    server = serve(stack("uvicorn-httptools"), wrapped=False)
    port = serve.behind(server, "caddy").port
    for _ in range(20):
        reader(replace(upload(2), port=port, timeout=5.0))
        if smuggled(server):
            return
    pytest.fail("it never did")


@pytest.mark.full
@pytest.mark.stacks
@pytest.mark.parametrize("row", THREE, ids=str)
def test_caddy_may_end_what_would_be_beyond_the_limits(serve: Serve, row: Stack) -> None:
    """As its page advises: then nothing of the body is taken for a request."""
    server = serve(row, settings={"max_seconds": 4.0})
    make = partial(CaddyProxy, read_body=1)
    port = serve.behind(server, "caddy read_body", make).port
    # Whoever gets no answer waits for one until its own time-out.
    outcomes = at_once(each_way(port, replace(upload(6), timeout=15.0)))
    assert 413 not in what_came(outcomes)
    assert all(len(outcome.transcript.responses) <= 1 for outcome in outcomes)
    assert not smuggled(server)


def beyond(serve: Serve, row: Stack, proxy: str) -> Upload:
    """64 MiB, of which the server takes 256 KiB."""
    server = serve(row, settings={"max_bytes": 256 * KIB})
    return replace(upload(size=64 * MIB), port=serve.behind(server, proxy).port)


@pytest.mark.parametrize("proxy", ["nginx", "nginx-unbuffered", "nginx-forwarded", "lighttpd"])
@pytest.mark.parametrize("row", THREE, ids=str)
def test_beyond_a_limit_some_proxies_find_the_refusal(
    serve: Serve, tally: Tally, row: Stack, proxy: str
) -> None:
    """The hold: unread, they stop sending, and look at what they can read."""
    one = beyond(serve, row, proxy)
    outcomes = [
        client(replace(one, chunked=chunked)) for client in CLIENTS for chunked in (False, True)
    ]
    seen = what_came(outcomes)
    tally(f"{row} {proxy}", "beyond", wrapped=True, delivered=seen.get(413, 0), tries=4)
    assert seen == {413: 4}
    assert_clean(outcomes)


@pytest.mark.parametrize(
    "proxy", named("haproxy", "haproxy-forwarded", "traefik", "envoy", "squid")
)
@pytest.mark.parametrize("row", THREE, ids=str)
def test_beyond_a_limit_others_pass_it_to_a_client_that_reads(
    serve: Serve, tally: Tally, row: Stack, proxy: str
) -> None:
    """They pass the end of the connection on as well."""
    one = beyond(serve, row, proxy)
    outcomes = [reader(replace(one, chunked=chunked)) for chunked in (False, True)]
    seen = what_came(outcomes)
    tally(f"{row} {proxy}", "beyond, reader", wrapped=True, delivered=seen.get(413, 0), tries=2)
    assert seen == {413: 2}


@pytest.mark.parametrize("proxy", named("traefik"))
@pytest.mark.parametrize("row", THREE, ids=str)
def test_what_such_a_proxy_may_have_thrown_away_is_not_called_delivered(
    serve: Serve, row: Stack, proxy: str
) -> None:
    """Beyond the limits it cuts its client, and closes towards the server in good order."""
    server = serve(row, settings={"max_seconds": 0.5})
    port = serve.behind(server, proxy).port
    for chunked in (False, True):
        watch = Watch(server)
        seen = strict(replace(upload(4), port=port, chunked=chunked))
        assert seen.status is None, str(seen)
        assert watch.grown(*(DRAINED % outcome for outcome in ("unknown", "cut", "reset")))
        assert watch.same(DRAINED % "delivered"), watch.changes()


@pytest.mark.stacks
def test_half_of_the_threads_wait_for_one_proxy(serve: Serve) -> None:
    """All of its clients have its address, and there are four threads."""
    port = serve.behind(serve(stack("gunicorn-gthread")), "caddy").port
    one = replace(upload(2), port=port)
    assert what_came(at_once([(strict, one), (strict, one)])) == {413: 2}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(HaproxyProxy, request_buffering=True), id="buffered"),
        pytest.param(partial(HaproxyProxy, keep_alive=False), id="close"),
    ],
)
@pytest.mark.parametrize("row", SERVERS, ids=str)
def test_other_settings_of_haproxy(
    serve: Serve,
    request: pytest.FixtureRequest,
    row: Stack,
    make: Callable[[int], HaproxyProxy],
) -> None:
    port = serve.behind(serve(row), f"haproxy {request.node.callspec.id}", make).port
    outcomes = [strict(replace(upload(), port=port)) for _ in range(2)]
    assert what_came(outcomes) == {413: 2}
    assert_clean(outcomes)


@pytest.mark.stacks
@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "caddy", "squid"])
@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_other_servers(serve: Serve, tally: Tally, row: Stack, proxy: str) -> None:
    server: ServerProcess = serve(row)
    port = serve.behind(server, proxy).port
    outcomes = [strict(replace(upload(), port=port)) for _ in range(2)]
    seen = what_came(outcomes)
    tally(f"{row} {proxy}", "0 s", wrapped=True, delivered=seen.get(413, 0), tries=2)
    assert seen == {413: 2}
    assert_clean(outcomes)


@pytest.mark.stacks
@pytest.mark.parametrize("row", [row for row in OTHERS if "granian" not in row.name], ids=str)
def test_other_servers_beyond_the_cap(serve: Serve, tally: Tally, row: Stack) -> None:
    """The hold: unread, nginx stops sending and finds the response.

    Nothing can hold a connection that granian keeps to itself.
    """
    one = beyond(serve, row, "nginx")
    outcomes = [strict(one) for _ in range(2)]
    seen = what_came(outcomes)
    tally(f"{row} nginx", "beyond", wrapped=True, delivered=seen.get(413, 0), tries=2)
    assert seen == {413: 2}
