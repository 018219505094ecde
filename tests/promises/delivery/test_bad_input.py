"""Uploads that break the rules, and clients that leave: nothing crashes, hangs or is confused.

Every body here is made of small requests for a path that no client asks for, so a server that
takes a byte of a body for a request shows it, on the wire or in the app's own count.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
import tornado

from cleanclose.doctor import Outcome, Upload, body_pieces, reader, strict
from tests.harness.apps import routes
from tests.harness.scenarios import GUARD, KIB, MIB, TRIES
from tests.harness.serving import Serve
from tests.harness.stacks import SERVERS, Stack
from tests.harness.verdicts import assert_clean, repeat

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

from tests.harness.watching import CUT, DRAINED, SLACK, Watch, check_no_confusion

pytestmark = pytest.mark.timeout(GUARD)

CAPS: Final[SettingsOptions] = {
    "max_seconds": 3.0,
    "idle_seconds": 0.8,
    "hold_seconds": 0.3,
    "respond_after": 0.3,
}

PACED: Final[SettingsOptions] = {**CAPS, "max_seconds": 60.0, "idle_seconds": 30.0}
"""For clients that send and pause: a busy machine stretches that, and no cap is to end it."""
DRIBBLED: Final[SettingsOptions] = {**PACED, "max_seconds": CAPS["max_seconds"]}

UPLOAD = Upload(port=0, path=routes.REFUSE, body_size=8 * MIB, timeout=60.0)

BODY = b"".join(bytes(piece) for piece in body_pieces(64 * KIB))
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)

LENGTHS = [
    ("letters", [("Content-Length", "abc")]),
    ("empty", [("Content-Length", "")]),
    ("negative", [("Content-Length", "-1")]),
    ("plus", [("Content-Length", "+65536")]),
    ("hexadecimal", [("Content-Length", "0x10000")]),
    ("fraction", [("Content-Length", "65536.0")]),
    ("underscore", [("Content-Length", "65_536")]),
    ("huge", [("Content-Length", "9" * 40)]),
    ("list", [("Content-Length", "65536, 5")]),
    ("two", [("Content-Length", "65536"), ("Content-Length", "5")]),
    ("with-chunks", [("Content-Length", "65536"), ("Transfer-Encoding", "chunked")]),
    ("chunks-first", [("Transfer-Encoding", "chunked"), ("Content-Length", "65536")]),
    ("two-codings", [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity")]),
    ("unknown-coding", [("Transfer-Encoding", "xchunked")]),
]

BAD_CHUNKS = {
    "no-number": CHUNK + b"zzz\r\n" + BODY,
    "negative": CHUNK + b"-5\r\n" + BODY,
    "huge": CHUNK + b"f" * 40 + b"\r\n" + BODY,
    "no-line-end": CHUNK + b"10" + BODY,
    "longer-than-said": CHUNK + b"5\r\n" + BODY,
    "endless-extension": CHUNK + b"5;" + b"x" * (256 * KIB),
    "no-chunk-at-all": BODY,
}


def check_end(outcome: Outcome) -> None:
    """The server ended the connection, in a bounded time."""
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.seconds < SLACK, str(outcome)


@pytest.mark.parametrize(
    "headers", [pytest.param(tuple(headers), id=name) for name, headers in LENGTHS]
)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_length_that_is_none(
    serve: Serve, stack: Stack, headers: tuple[tuple[str, str], ...]
) -> None:
    """Servers refuse these themselves, or read them in their own way: never as two requests."""
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    upload = replace(UPLOAD, port=server.port, headers=headers, body_size=64 * KIB)
    outcome = reader(replace(upload, keep_sending=True, timeout=SLACK))
    check_no_confusion(outcome)
    assert outcome.closed_by != "timeout", str(outcome)
    watch.check()


@pytest.mark.parametrize("path", [routes.REFUSE, routes.ACCEPT, routes.REFUSE_AFTER])
@pytest.mark.parametrize("kind", BAD_CHUNKS)
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_chunks_that_are_none(serve: Serve, stack: Stack, kind: str, path: str) -> None:
    refused = path == routes.REFUSE
    if not refused:
        # The app reads these bodies itself, and meets the server's own error; or it waits with
        # the server for the rest of an endless line, which is no business of ours.
        serve.allow_tracebacks()
    if stack.name == "tornado" and tornado.version_info < (6, 6):
        # Its own `assert` about the end of a chunk, wrapped or not, which it logs and closes on.
        serve.allow_tracebacks()
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            path=path,
            headers=(("Transfer-Encoding", "chunked"),),
            raw_body=BAD_CHUNKS[kind],
            keep_sending=True,
            timeout=SLACK if refused else 3.0,
        )
    )
    check_no_confusion(outcome)
    if refused:
        assert outcome.closed_by != "timeout", str(outcome)
        assert outcome.status in (400, 413), str(outcome)
    watch.check()


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_chunked_body_cut_short(serve: Serve, stack: Stack, how: str) -> None:
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    upload = replace(UPLOAD, port=server.port, chunked=True, abort_after=5 * MIB + 77)
    if how == "half_close":
        outcome = reader(replace(upload, abort_how="half_close"))
        check_end(outcome)
        check_no_confusion(outcome)
        # While the response is kept back, uvicorn and tornado take the end of the sending for
        # the end of the connection, and close it themselves.
        assert outcome.status in (None, 413), str(outcome)
    else:
        outcome = strict(replace(upload, abort_how="close" if how == "close" else "reset"))
        assert outcome.send_error is None, str(outcome)
    watch.check()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_client_that_stalls(serve: Serve, stack: Stack, chunked: bool) -> None:
    """It gets its response, and then the end of the connection.

    The kernel says that the response has arrived; on other systems than Linux the counters say no
    more than that the client was idle.
    """
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            chunked=chunked,
            abort_after=5 * MIB,
            abort_how="stall",
            keep_sending=True,
        )
    )
    assert outcome.status == 413, str(outcome)
    check_end(outcome)
    assert_clean([outcome])
    if sys.platform == "linux":
        assert watch.grown(DRAINED % "delivered"), watch.changes()
    else:
        assert watch.grown(DRAINED % "cut"), watch.changes()
        assert watch.grown(CUT % "idle_seconds"), watch.changes()
    watch.check()


@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_client_that_dribbles(serve: Serve, stack: Stack) -> None:
    """Never idle and never done: the total cap ends it."""
    server = serve(stack, settings=DRIBBLED)
    watch = Watch(server)
    outcome = reader(
        replace(UPLOAD, port=server.port, piece_size=16, pause=0.1, keep_sending=True, timeout=40.0)
    )
    assert outcome.status == 413, str(outcome)
    assert outcome.closed_by in ("fin", "reset"), str(outcome)
    assert outcome.seconds < SLACK, str(outcome)
    assert outcome.transcript.clean, str(outcome)
    assert watch.grown(DRAINED % "cut"), watch.changes()
    watch.check()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_client_that_resets_in_the_drain(serve: Serve, stack: Stack, chunked: bool) -> None:
    server = serve(stack, settings=PACED)
    watch = Watch(server)
    # Slow enough that the response is on its way when the reset comes.
    outcome = strict(
        replace(
            UPLOAD,
            port=server.port,
            chunked=chunked,
            pause=0.02,
            abort_after=2 * MIB,
            abort_how="reset",
        )
    )
    assert outcome.send_error is None, str(outcome)
    watch.check()
    # Where no socket is in reach, nobody can tell a reset from another early end.
    assert watch.grown(DRAINED % "reset", DRAINED % "unknown"), watch.changes()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_client_that_half_closes_in_the_drain(serve: Serve, stack: Stack, chunked: bool) -> None:
    server = serve(stack, settings=PACED)
    watch = Watch(server)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            chunked=chunked,
            pause=0.02,
            abort_after=2 * MIB,
            abort_how="half_close",
            keep_sending=True,
        )
    )
    assert outcome.status == 413, str(outcome)
    check_end(outcome)
    assert_clean([outcome])
    watch.check()


@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_body_longer_than_declared(serve: Serve, stack: Stack) -> None:
    """What is behind the declared end is not part of the body; here it is no request either."""
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    outcome = reader(
        replace(
            UPLOAD,
            port=server.port,
            headers=(("Content-Length", str(MIB + 1)),),
            raw_body=b"\0" * (MIB + 1) + b"\xff\x00 no request\r\n\r\n" * 1000,
            keep_sending=True,
            timeout=SLACK,
        )
    )
    # The parser of uvicorn with httptools reads ahead, and answers with a 400 of its own before
    # the app's response has left.
    assert outcome.status in (400, 413), str(outcome)
    assert len(outcome.transcript.responses) == 1
    # A server that keeps the connection may say that the rest is no request.
    assert not outcome.transcript.stray or outcome.transcript.stray.startswith(b"HTTP/1.1 400")
    watch.check()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [MIB, 8 * MIB], ids=["1-MiB", "8-MiB"])
@pytest.mark.parametrize("path", [routes.REFUSE, routes.REFUSE_STREAMING, routes.REFUSE_AFTER])
@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_request_pipelined_behind_the_unread_body(
    serve: Serve, stack: Stack, path: str, size: int, chunked: bool
) -> None:
    """It is answered behind the refusal, or not at all where the connection ends with that."""
    server = serve(stack, settings=CAPS)
    watch = Watch(server)
    outcome = strict(
        replace(
            UPLOAD,
            port=server.port,
            path=path,
            body_size=size,
            chunked=chunked,
            follow_up="pipelined",
        )
    )
    assert outcome.followed_up, str(outcome)
    assert outcome.status == 413, str(outcome)
    assert_clean([outcome])
    response = outcome.response
    assert response is not None
    if outcome.second is None:
        assert not response.keeps_alive, str(outcome)
        assert outcome.closed_by in ("fin", "reset"), str(outcome)
    else:
        assert (outcome.second.status, outcome.second.body) == (200, routes.OK_BODY)
    watch.check()


@pytest.mark.parametrize("stack", SERVERS, ids=str)
def test_a_request_pipelined_behind_more_than_the_cap(serve: Serve, stack: Stack) -> None:
    """The body is never read to its end, so nothing behind it can have an answer."""
    server = serve(stack, settings={**CAPS, "max_bytes": 256 * KIB})
    watch = Watch(server)
    outcome = reader(replace(UPLOAD, port=server.port, follow_up="pipelined", keep_sending=True))
    assert outcome.status == 413, str(outcome)
    assert len(outcome.transcript.responses) == 1, str(outcome)
    assert outcome.transcript.clean, str(outcome)
    check_end(outcome)
    watch.check()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
@pytest.mark.parametrize(
    "stack",
    # With httptools, uvicorn takes such a body for requests, bare as well: that is left alone.
    [stack for stack in SERVERS if "uvicorn" not in stack.name or stack.name == "uvicorn-h11"],
    ids=str,
)
def test_a_refused_upload_that_asks_for_h2c_is_one_like_any_other(
    serve: Serve, stack: Stack, chunked: bool, close: bool
) -> None:
    """As Java's HttpClient sends it, unless it is told to speak HTTP/1.1."""
    upload = Upload(
        port=serve(stack).port,
        path=routes.REFUSE,
        body_size=8 * MIB,
        chunked=chunked,
        headers=(
            ("Connection", "Upgrade, HTTP2-Settings" + (", close" if close else "")),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
        ),
    )
    outcomes = repeat(strict, upload, TRIES)
    assert [outcome.status for outcome in outcomes] == [413] * TRIES
    assert_clean(outcomes)
