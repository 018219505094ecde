"""What a server's calls show: when a response is complete, what it still holds, whose errors."""

from __future__ import annotations

import errno
from typing import Any, Final

import pytest

from cleanclose.core.blame.calls import (
    LastPiece,
    Shows,
    held_after,
    is_aftermath_of,
    is_late,
    raised_by_calls,
)
from cleanclose.core.server import UNKNOWN, Continue
from cleanclose.core.server import Server as Row

KNOWN: Final = Row("known", Continue.LAZY)
LARGE: Final = 64 * 1024
NAMES: Final = frozenset({"send"})


@pytest.mark.parametrize(
    ("shows", "before", "behind", "waits", "watches"),
    [
        (Shows.NOTHING, False, False, True, False),
        (Shows.MESSAGES, True, False, True, True),
        (Shows.STATE, True, False, True, True),
        (Shows.SETTLED, True, True, False, False),
    ],
)
def test_what_a_sign_is_good_for(
    shows: Shows, before: bool, behind: bool, waits: bool, watches: bool
) -> None:
    assert shows.counts(complete=False) is before
    assert shows.counts(complete=True) is behind
    assert shows.waits is waits
    assert shows.watches_each_piece is watches


@pytest.mark.parametrize("size", [0, LARGE - 1, LARGE])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("shows", Shows)
def test_when_the_last_piece_completes_a_response(shows: Shows, streaming: bool, size: int) -> None:
    expected = {
        Shows.NOTHING: LastPiece.WHEN_HANDED_OVER,
        Shows.MESSAGES: LastPiece.WHEN_HANDED_OVER,
        Shows.STATE: LastPiece.WHEN_SENT,
        Shows.SETTLED: LastPiece.WHEN_SENT,
    }[shows]
    if shows is Shows.MESSAGES and streaming and size == LARGE:
        expected = LastPiece.IN_TWO_STEPS
    assert shows.last_piece(size, streaming=streaming) is expected


@pytest.mark.parametrize(
    ("size", "waits", "held"),
    [(LARGE, False, 0), (LARGE + 1, False, LARGE + 1), (LARGE + 1, True, 0)],
)
def test_what_a_server_holds_when_its_send_has_returned(size: int, waits: bool, held: int) -> None:
    assert held_after(size, waits=waits) == held


def test_what_comes_at_once_was_there_before() -> None:
    assert is_late(1.0, 1.0001)
    assert not is_late(1.0, 1.001)


class Server:
    """Its callables are methods of one object."""

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        self._error = error
        self._cause = cause

    def send(self, message: object) -> None:
        try:
            if self._cause is not None:
                raise self._cause
        except OSError:
            raise self._error from None
        raise self._error

    def reads(self) -> None:
        raise self._error


def raised(call: Any, *arguments: object) -> Exception:
    try:
        call(*arguments)
    except (OSError, RuntimeError, ValueError) as error:
        return error
    raise AssertionError


def reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("kind", [reset, lambda: RuntimeError("…; the handler is closed")])
def test_what_a_servers_own_call_raises_is_the_connections(kind: Any) -> None:
    server = Server(kind())
    error = raised(server.send, None)
    assert list(raised_by_calls(error, KNOWN, (server.send,), NAMES)) == [error]


def test_and_so_is_what_the_server_was_handling() -> None:
    cause = reset()
    server = Server(reset(), cause)
    error = raised(server.send, None)
    assert list(raised_by_calls(error, KNOWN, (server.send,), NAMES)) == [error, cause]


def test_another_objects_another_methods_and_another_kinds_errors_are_not() -> None:
    server = Server(reset())
    other = Server(reset())
    assert not list(raised_by_calls(raised(other.send, None), KNOWN, (server.send,), NAMES))
    assert not list(raised_by_calls(raised(server.reads), KNOWN, (server.send,), NAMES))
    assert not list(raised_by_calls(raised(server.send, None), UNKNOWN, (server.send,), NAMES))
    wrong = Server(ValueError())
    assert not list(raised_by_calls(raised(wrong.send, None), KNOWN, (wrong.send,), NAMES))


def test_only_a_servers_own_trouble_is_its_aftermath() -> None:
    server = Server(reset())
    error = raised(server.reads).with_traceback(None)
    assert not is_aftermath_of(error, server.send), "it has passed no frame of the server's"
    server = Server(ValueError())
    assert not is_aftermath_of(raised(server.reads), server.send)
