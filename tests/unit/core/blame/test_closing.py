"""Who has closed a connection, and what that says of its exchange."""

from __future__ import annotations

import errno
import itertools

import pytest

from cleanclose.core import Mechanism, Phase, Side, Witness
from cleanclose.core.blame.closing import Closed, Closer, idle_verdict, left_by, read_closing

RESET = ConnectionResetError(errno.ECONNRESET, "reset")
LIMIT = ValueError("a line that is too long")


def read(
    closer: Closer,
    error: object = None,
    *,
    whole: bool = False,
    said_goodbye: bool = False,
    mechanism: Mechanism | None = None,
) -> Closed:
    return read_closing(closer, error, whole=whole, said_goodbye=said_goodbye, mechanism=mechanism)


def test_the_streams_own_end_is_the_peers() -> None:
    seen = read(Closer.STREAM)
    assert seen == Closed(witness=Witness.STREAM, mechanism=Mechanism.EOF)
    assert left_by(Closer.STREAM, None) is Mechanism.EOF


def test_an_error_of_the_socket_is_the_peers() -> None:
    assert read(Closer.STREAM, RESET) == Closed(witness=Witness.STREAM, error=RESET)
    assert left_by(Closer.STREAM, RESET) is Mechanism.RESET


def test_behind_a_whole_response_it_is_no_departure() -> None:
    seen = read(Closer.STREAM, RESET, whole=True)
    assert seen == Closed(error=RESET, idle=True)
    verdict = idle_verdict(RESET)
    assert (verdict.side, verdict.phase) == (Side.CLIENT, Phase.KEEPALIVE_IDLE)
    assert verdict.mechanism is Mechanism.RESET


def test_a_limit_of_the_streams_own_is_no_departure() -> None:
    assert read(Closer.STREAM, LIMIT) == Closed()
    assert left_by(Closer.STREAM, LIMIT) is None


def test_who_has_said_goodbye_had_finished() -> None:
    assert read(Closer.STREAM, said_goodbye=True).completed
    assert not read(Closer.STREAM).completed


@pytest.mark.parametrize("mechanism", [Mechanism.ABORTED, Mechanism.TIMEOUT])
def test_a_server_that_closes_is_the_servers_side(mechanism: Mechanism) -> None:
    seen = read(Closer.SERVER, mechanism=mechanism)
    assert seen == Closed(witness=Witness.SERVER, mechanism=mechanism, stopping=True)


def test_an_applications_own_close_says_nothing() -> None:
    assert read(Closer.APPLICATION, RESET) == Closed()


def test_what_nobody_can_know_is_no_departure() -> None:
    assert read(Closer.UNSEEN, RESET) == Closed(completed=True)


@pytest.mark.parametrize(
    ("closer", "error"),
    list(itertools.product(sorted(set(Closer) - {Closer.STREAM}, key=str), [None, RESET, LIMIT])),
)
def test_only_the_stream_itself_shows_how_the_peer_left(closer: Closer, error: object) -> None:
    assert left_by(closer, error) is None
