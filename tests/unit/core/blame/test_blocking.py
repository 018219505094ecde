"""What a blocking server's errors, readings and closings say of its client, without a server."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from cleanclose.core import Facts, Mechanism, Phase, Side, TruncatedBodyError, Verdict, Witness
from cleanclose.core.blame.blocking import (
    BlockingWatch,
    Closing,
    broken_off,
    broken_pipe,
    is_loss,
)
from cleanclose.core.blame.judge import marked
from cleanclose.core.conduct import CUT_SHORT, answer_of
from cleanclose.core.server import Continue, Server

RESET = ConnectionResetError(errno.ECONNRESET, "reset")
MIB = 1024 * 1024
BARE = OSError("error during read(1000)")
OWN = LookupError("the application's")
STOPPED = SystemExit()
BAD_CHUNK = ValueError("bad chunk size: b''")
SERVER = Server(
    "any", Continue.LAZY, hides=lambda error: True, breaks_off=lambda error: error is BAD_CHUNK
)
GONE = Verdict(
    side=Side.CLIENT,
    phase=Phase.RESPONSE_BODY,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.WRITE,),
)


class PlainWatch(BlockingWatch):
    """A shim's watch, with nothing around it."""

    def __init__(self, *, left: int | None = 10, code: int | None = None) -> None:
        super().__init__(100.0)
        self.left = self.expected_in = left
        self.body_complete = False
        self.code = code
        self.declared: int | None = None
        self.gone: Mechanism | None = None
        self.taken = False

    @property
    def status(self) -> int | None:
        return self.code

    @property
    def server(self) -> Server:
        return SERVER

    @property
    def known_server(self) -> Server | None:
        return SERVER

    def facts(self) -> Facts:
        return Facts(framework="wsgi", server="any", method="POST")

    def how_gone(self) -> Mechanism | None:
        return self.gone

    def has_server_read(self) -> bool:
        return self.taken

    def declared_out(self) -> int | None:
        return self.declared


def end(watch: PlainWatch, **more: Any) -> None:
    known: dict[str, Any] = {"size": 0, "asked": None, "reader": "app", "failing": False}
    watch.body_ended(101.0, **{**known, **more})


@pytest.mark.parametrize(
    ("size", "left", "at_end", "complete", "short"),
    [
        (4, 10, False, False, False),
        (10, 10, False, True, False),
        (10, 10, True, True, False),
        (4, 10, True, False, True),
        (4, None, False, False, False),
        (0, None, True, True, False),
    ],
)
def test_where_a_body_ends(
    size: int, left: int | None, at_end: bool, complete: bool, short: bool
) -> None:
    watch = PlainWatch(left=left)
    assert watch.body_read(size, 101.0, at_end=at_end) is short
    assert (watch.body_complete, watch.bytes_in) == (complete, size)
    assert watch.left == (None if left is None else left - size)


def test_what_the_server_itself_has_read_is_not_missing() -> None:
    watch = PlainWatch()
    watch.taken = True
    assert not watch.body_read(4, 101.0, at_end=True)
    assert watch.body_complete


@pytest.mark.parametrize(("end", "whole"), [(b"0\r\n\r\n", True), (b"hello", False)])
def test_chunks_that_nobody_decodes_say_themselves_where_they_end(end: bytes, whole: bool) -> None:
    watch = PlainWatch(left=None)
    assert watch.body_read(0, 101.0, at_end=True, chunks_end=end) is not whole
    assert (watch.body_complete, watch.half_closed) == (whole, whole)


def test_an_end_that_nobody_else_would_notice_raises() -> None:
    watch = PlainWatch()
    assert watch.body_read(4, 101.0, at_end=True)
    with pytest.raises(TruncatedBodyError) as caught:
        end(watch, size=4)
    assert (caught.value.received, caught.value.expected) == (4, 10)
    assert marked(caught.value) is not None
    assert watch.departure is not None
    assert watch.departure.mechanism is Mechanism.EOF
    assert watch.refusal(200) is None


def test_who_counts_gets_the_end_and_must_not_take_it_for_a_success() -> None:
    watch = PlainWatch()
    assert watch.body_read(4, 101.0, at_end=True)
    end(watch, size=4, asked=10)
    assert (watch.ended_unnoticed, watch.refused) == (True, False)
    assert watch.refusal(400) is None
    assert not watch.refused
    assert watch.refusal(201) == answer_of(CUT_SHORT)
    assert watch.refused


@pytest.mark.parametrize(
    ("error", "asked", "mechanism"),
    [
        (RESET, Mechanism.EOF, Mechanism.RESET),
        (TimeoutError(), Mechanism.EOF, Mechanism.TIMEOUT),
        # What neither has a number nor a class of its own: the socket tells.
        (BARE, Mechanism.EOF, Mechanism.EOF),
        (BARE, None, None),
        (BAD_CHUNK, Mechanism.EOF, Mechanism.EOF),
        (BAD_CHUNK, None, None),
        (ValueError("bad chunk size: b'zz'"), Mechanism.EOF, None),
    ],
)
def test_what_a_reading_raises(
    error: Exception, asked: Mechanism | None, mechanism: Mechanism | None
) -> None:
    assert broken_off(error, SERVER, lambda: asked) is mechanism
    watch = PlainWatch()
    watch.gone = asked
    watch.body_failed(error, 101.0)
    assert watch.read_error is error
    assert (watch.departure and watch.departure.mechanism) is mechanism


def test_an_error_that_came_through_somebody_elses_code_is_not_the_connections() -> None:
    with pytest.raises(ConnectionResetError) as caught:
        raise ConnectionResetError(errno.ECONNRESET, "an upstream's")
    assert not is_loss(caught.value, "any")
    assert broken_off(caught.value, SERVER, lambda: Mechanism.EOF) is None
    assert is_loss(RESET, "any")
    assert not is_loss(FileNotFoundError(errno.ENOENT, "a file"), "any")


@pytest.mark.parametrize(
    ("declared", "sent", "error", "left"),
    [
        (None, 5, None, True),
        (10, 5, None, True),
        (10, 10, None, False),
        (0, 0, None, False),
        (10, 5, RESET, True),
        (10, 10, RESET, True),
        (10, 5, SystemExit(), False),
        (10, 5, LookupError(), False),
    ],
)
def test_what_a_closing_says(
    declared: int | None, sent: int, error: BaseException | None, left: bool
) -> None:
    watch = PlainWatch(code=200)
    watch.declared = declared
    watch.response_piece(sent)
    watch.response_closed(error, 101.0)
    assert (watch.departure is not None) is left
    if watch.departure is not None:
        assert watch.departure.witnesses == (Witness.CLOSE,)


@pytest.mark.parametrize(
    ("declared", "sent", "witness", "left"),
    [
        (10, 10, Witness.SOCKET, False),
        (10, 9, Witness.SOCKET, True),
        (None, 10, Witness.SOCKET, True),
        # The head waits for the first byte.
        (0, 0, Witness.SOCKET, True),
        (10, 10, Witness.SERVER, False),
        # A server that sends in a thread of its own may hold some of it.
        (MIB, MIB, Witness.SERVER, True),
        (MIB, MIB, Witness.SOCKET, False),
    ],
)
def test_who_leaves_with_the_last_byte_has_not_departed(
    declared: int | None, sent: int, witness: Witness, left: bool
) -> None:
    watch = PlainWatch(code=200)
    watch.body_complete = True
    watch.declared = declared
    watch.response_piece(sent)
    watch.seen_gone(witness, Mechanism.EOF, 101.0)
    assert (watch.departure is not None) is left
    assert (watch.goodbye is not None) is not left
    assert watch.may_stop() is left


def test_a_last_byte_that_could_not_be_sent_is_a_departure() -> None:
    watch = PlainWatch(code=200)
    watch.body_complete = True
    watch.declared = 10
    watch.response_piece(10)
    watch.response_closed(RESET, 101.0)
    assert watch.departure is not None


def test_a_line_that_is_written_before_the_end_knows_the_servers_error() -> None:
    watch = PlainWatch()
    assert not watch.has_left()
    assert watch.has_left(RESET)
    assert not watch.has_left(LookupError())
    watch.ended = True
    assert not watch.has_left(RESET)


@pytest.mark.parametrize("departure", [None, GONE])
def test_a_broken_pipe_stands_for_the_applications_error(departure: Verdict | None) -> None:
    own = LookupError("the bug")
    broken = broken_pipe(own, departure)
    assert broken.__cause__ is own
    assert (marked(broken) is not None) is (departure is not None)


@pytest.mark.parametrize(
    ("complete", "error", "through", "closing"),
    [
        (True, None, None, Closing()),
        (True, RESET, None, Closing(open=True)),
        # Out of a file that the server has sent by itself.
        (True, OWN, 1, Closing(failed=OWN)),
        (False, OWN, 1, Closing(open=True)),
        (False, None, None, Closing(open=True)),
        (False, STOPPED, None, Closing(open=True, outside=STOPPED)),
    ],
)
def test_what_is_left_to_report_when_a_server_closes(
    complete: bool, error: BaseException | None, through: int | None, closing: Closing
) -> None:
    watch = PlainWatch(code=200)
    watch.body_complete = True
    if complete:
        watch.response_completed()
    assert watch.server_closes(error, 101.0, through) == closing
    assert watch.closing
