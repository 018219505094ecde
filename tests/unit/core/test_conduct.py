"""The one end of an exchange: what a server makes of an error, and what we make of it."""

from __future__ import annotations

import itertools

import pytest

from cleanclose.core import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.conduct import (
    CONDUCT,
    TOO_LARGE,
    Conduct,
    Treatment,
    answer_of,
    asgi_treatment,
    breaks_off,
    ends_quietly,
    is_lost_midway,
    is_unanswered,
    wsgi_treatment,
)
from cleanclose.core.server import UNKNOWN, Continue, Server

HIDING = Server("hiding", Continue.LAZY, hides=lambda error: isinstance(error, ConnectionError))
SILENT = Server("silent", Continue.LAZY, hides=lambda error: False, answers=False)
SILENT_BEHIND = Server("silent-behind", Continue.LAZY, hides_after_end=True)


def test_every_case_has_a_row() -> None:
    assert set(CONDUCT) == set(itertools.product(Side, Treatment))


@pytest.mark.parametrize("treatment", Treatment)
@pytest.mark.parametrize("side", Side)
def test_quiet_is_nobodys_error_but_the_peers(side: Side, treatment: Treatment) -> None:
    conduct = CONDUCT[side, treatment]
    assert conduct.quiet == (side in (Side.CLIENT, Side.SERVER))
    assert not (conduct.quiet and conduct.told)


@pytest.mark.parametrize("treatment", Treatment)
def test_an_upstreams_reset_is_always_an_event(treatment: Treatment) -> None:
    assert CONDUCT[Side.UPSTREAM, treatment].told


@pytest.mark.parametrize("side", [Side.UPSTREAM, Side.UNKNOWN])
def test_what_a_server_hides_is_answered_and_told(side: Side) -> None:
    assert CONDUCT[side, Treatment.HIDDEN] == Conduct(told=True, restored=True, status=500)


@pytest.mark.parametrize("treatment", [each for each in Treatment if each is not Treatment.HIDDEN])
def test_a_bug_that_the_server_shows_is_the_servers_to_see(treatment: Treatment) -> None:
    assert CONDUCT[Side.UNKNOWN, treatment] == Conduct()


@pytest.mark.parametrize(
    ("server", "error", "answerable", "treatment"),
    [
        (HIDING, ConnectionResetError(), True, Treatment.HIDDEN),
        (HIDING, ConnectionResetError(), False, Treatment.HIDDEN),
        (HIDING, FileNotFoundError(), True, Treatment.SHOWN),
        (HIDING, ValueError(), True, Treatment.SHOWN),
        (SILENT, ConnectionResetError(), True, Treatment.UNANSWERED),
        (SILENT, ConnectionResetError(), False, Treatment.SHOWN),
        (UNKNOWN, ConnectionResetError(), True, Treatment.UNCERTAIN),
        (None, ConnectionResetError(), True, Treatment.UNCERTAIN),
        (None, ValueError(), True, Treatment.SHOWN),
    ],
)
def test_what_a_wsgi_server_makes_of_an_error(
    server: Server | None, error: Exception, answerable: bool, treatment: Treatment
) -> None:
    assert wsgi_treatment(server, error, answerable=answerable, lost=False) is treatment


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("answerable", [False, True])
def test_a_server_that_writes_to_a_lost_client_masks_any_error(
    lost: bool, answerable: bool
) -> None:
    server = Server("masking", Continue.LAZY, hides=lambda error: False, masks=True)
    treatment = wsgi_treatment(server, KeyError(), answerable=answerable, lost=lost)
    assert treatment is (Treatment.HIDDEN if lost else Treatment.SHOWN)


@pytest.mark.parametrize(
    ("server", "error", "side", "complete", "treatment"),
    [
        (SILENT_BEHIND, ConnectionResetError(), Side.UPSTREAM, True, Treatment.HIDDEN),
        (SILENT_BEHIND, RuntimeError(), Side.UPSTREAM, True, Treatment.HIDDEN),
        (SILENT_BEHIND, OSError(), Side.UNKNOWN, True, Treatment.HIDDEN),
        (SILENT_BEHIND, ValueError(), Side.UNKNOWN, True, Treatment.SHOWN),
        (SILENT_BEHIND, ConnectionResetError(), Side.UPSTREAM, False, Treatment.SHOWN),
        (UNKNOWN, ConnectionResetError(), Side.UPSTREAM, True, Treatment.SHOWN),
    ],
)
def test_what_an_asgi_server_makes_of_an_error(
    server: Server, error: Exception, side: Side, complete: bool, treatment: Treatment
) -> None:
    assert asgi_treatment(server, error, side, complete=complete) is treatment


@pytest.mark.parametrize("facts", list(itertools.product([False, True], repeat=3)))
def test_a_failed_application_is_answered_for_while_its_body_is_incomplete(
    facts: tuple[bool, bool, bool],
) -> None:
    begun, body_complete, stopped = facts
    unanswered = is_unanswered(
        ValueError(), begun=begun, body_complete=body_complete, stopped=stopped
    )
    assert unanswered == (not any(facts))
    assert not is_unanswered(KeyboardInterrupt(), begun=False, body_complete=False)


@pytest.mark.parametrize(
    ("mechanism", "begun", "closing", "lost"),
    [
        (Mechanism.RESET, True, False, True),
        (Mechanism.EOF, True, False, False),
        (Mechanism.RESET, False, False, False),
        (Mechanism.RESET, True, True, False),
        (None, True, False, False),
    ],
)
def test_a_response_is_lost_midway_by_a_reset(
    mechanism: Mechanism | None, begun: bool, closing: bool, lost: bool
) -> None:
    departure = None
    if mechanism is not None:
        departure = Verdict(
            side=Side.CLIENT,
            phase=Phase.RESPONSE_BODY,
            mechanism=mechanism,
            witnesses=(Witness.SOCKET,),
        )
    assert is_lost_midway(departure, begun=begun, closing=closing) is lost


@pytest.mark.parametrize(
    ("quiet", "begun", "wants_answer", "ends"),
    [
        (True, False, False, True),
        (True, True, True, True),
        (True, False, True, False),
        (False, True, False, False),
    ],
)
def test_who_wants_an_answer_gets_the_error(
    quiet: bool, begun: bool, wants_answer: bool, ends: bool
) -> None:
    conduct = Conduct(quiet=quiet)
    assert ends_quietly(conduct, begun=begun, wants_answer=wants_answer) is ends


@pytest.mark.parametrize(
    "status", {TOO_LARGE, *(each.status for each in CONDUCT.values() if each.status)}
)
def test_each_answer_of_ours_says_how_long_it_is(status: int) -> None:
    line, headers, body = answer_of(status)
    assert line.startswith(str(status))
    assert dict(headers)["Content-Length"] == str(len(body))


class ServersOwn(Exception):
    """As a server would have it."""


ServersOwn.__module__ = "hiding.errors"


@pytest.mark.parametrize(
    ("error", "quiet", "breaks"),
    [
        (ConnectionResetError(), True, False),
        (ServersOwn(), True, False),
        (LookupError(), True, True),
        (ConnectionResetError(), False, True),
        (ServersOwn(), False, True),
    ],
)
def test_a_response_that_has_begun_breaks_off_by_an_error_that_every_server_knows(
    error: Exception, quiet: bool, breaks: bool
) -> None:
    assert breaks_off(error, Conduct(quiet=quiet), HIDING) is breaks


def test_an_answer_behind_pieces_of_another_one_names_no_length() -> None:
    line, headers, body = answer_of(500)
    assert answer_of(500, alone=False) == (
        line,
        [pair for pair in headers if pair[0] != "Content-Length"],
        body,
    )
