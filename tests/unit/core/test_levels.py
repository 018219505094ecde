"""How loud a departure is: the table, its grades, and a user's own rows."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from cleanclose.core import (
    Cap,
    Cause,
    DepartureSurge,
    Event,
    Levels,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Settings,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
)
from cleanclose.core.levels import DEFAULT, GRADED, row_of, row_of_departure
from tests.harness.made import FACTS, departed, verdict

MIDWAY = {Phase.REQUEST_BODY, Phase.HANDLER, Phase.RESPONSE_START, Phase.RESPONSE_BODY}


EVENTS: dict[str, Event] = {
    "upload_drained": UploadDrained(facts=FACTS, age_ms=1.0, outcome=Outcome.DELIVERED),
    "upload_drained.max_lingering": UploadDrained(
        facts=FACTS, age_ms=1.0, outcome=Outcome.CUT, cap=Cap.MAX_LINGERING
    ),
    "client_departed": departed(phase=Phase.WEBSOCKET),
    "client_departed.midway": departed(),
    "client_departed.server": departed(side=Side.SERVER),
    "client_departed.overdue": dataclasses.replace(departed(), stopped=True, overdue=True),
    "truncated_upload": TruncatedUpload(facts=FACTS, age_ms=1.0, verdict=verdict()),
    "truncated_upload.accepted": TruncatedUpload(
        facts=FACTS, age_ms=1.0, verdict=verdict(), accepted=True
    ),
    "response_undelivered": ResponseUndelivered(facts=FACTS, age_ms=1.0, verdict=verdict()),
    "departure_surge": DepartureSurge(
        facts=FACTS, age_ms=1.0, cause=Cause.ROUTE, count=9, of=10, share=0.9
    ),
    "upstream_reset": UpstreamReset(
        facts=FACTS, age_ms=1.0, verdict=verdict(Side.UPSTREAM), error="builtins.OSError"
    ),
}


def test_there_is_an_event_for_each_row() -> None:
    assert set(EVENTS) == set(DEFAULT)
    assert set(GRADED) <= set(DEFAULT)


@pytest.mark.parametrize("row", DEFAULT)
def test_each_event_has_its_row_and_its_level(row: str) -> None:
    event = EVENTS[row]
    assert row_of(event) == row
    assert Levels().of(event) == Levels().of_row(row) == DEFAULT[row]


@pytest.mark.parametrize("phase", Phase)
def test_work_was_lost_in_the_middle_of_an_exchange_only(phase: Phase) -> None:
    row = "client_departed.midway" if phase in MIDWAY else "client_departed"
    assert row_of(departed(phase=phase)) == row
    assert row_of_departure(verdict(phase=phase)) == row


@pytest.mark.parametrize("phase", Phase)
def test_what_this_process_cut_is_a_row_of_its_own(phase: Phase) -> None:
    assert row_of_departure(verdict(Side.SERVER, phase)) == "client_departed.server"


def test_an_upload_that_was_too_slow_for_the_server_is_no_warning() -> None:
    slow = dataclasses.replace(
        verdict(Side.SERVER, Phase.REQUEST_BODY), mechanism=Mechanism.TIMEOUT
    )
    assert row_of_departure(slow) == "client_departed.midway"
    assert Levels().of_row(row_of_departure(slow)) < Levels().of_row("client_departed.server")
    for other in (Phase.HANDLER, Phase.RESPONSE_BODY):
        cut = dataclasses.replace(slow, phase=other)
        assert row_of_departure(cut) == "client_departed.server"


def test_graded_levels_set_lost_work_apart() -> None:
    graded = Levels(graded=True)
    for row, event in EVENTS.items():
        wanted = logging.INFO if row in GRADED else DEFAULT[row]
        assert graded.of(event) == wanted


def test_nothing_that_is_not_the_clients_is_below_warning() -> None:
    for row in ("upstream_reset", "client_departed.server", "response_undelivered"):
        for graded in (False, True):
            assert Levels(graded=graded).of_row(row) >= logging.WARNING


def test_a_users_row_wins_over_grades() -> None:
    levels = Levels(graded=True, rows={"client_departed.midway": 25, "upstream_reset": 50})
    assert levels.of(EVENTS["client_departed.midway"]) == 25
    assert levels.of(EVENTS["upstream_reset"]) == 50
    assert levels.of(EVENTS["truncated_upload"]) == logging.INFO


def test_one_table_is_not_the_others() -> None:
    Levels(graded=True, rows={"upload_drained": 50})
    assert Levels().of_row("upload_drained") == DEFAULT["upload_drained"]


@pytest.mark.parametrize("rows", [{"client_gone": 10}, {"": 10}, {"client_departed.": 10}])
def test_an_unknown_row_is_named_with_the_known_ones(rows: dict[str, int]) -> None:
    (name,) = rows
    with pytest.raises(ValueError, match=r"^levels has a row") as caught:
        Settings(levels=rows)
    assert repr(name) in str(caught.value)
    for known in DEFAULT:
        assert known in str(caught.value)


@pytest.mark.parametrize("level", [-1, "DEBUG", None, True, 10.0, float("nan")])
def test_a_wrong_level_names_its_row(level: object) -> None:
    rows: dict[str, int] = {"client_departed": level}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"^levels\['client_departed'\] must be"):
        Settings(levels=rows)


@pytest.mark.parametrize("rows", ["client_departed", [("client_departed", 10)], 10])
def test_what_is_no_table_is_refused(rows: object) -> None:
    with pytest.raises(ValueError, match=r"^levels must be a mapping"):
        Settings(levels=rows)  # type: ignore[arg-type]
