"""What an event's fields say in a log line."""

from __future__ import annotations

import dataclasses

import pytest

from cleanclose.core import Cap, ClientDeparted, Outcome, Phase, Side, UploadDrained, Verdict
from cleanclose.core.events import Facts

FACTS = Facts(framework="asgi", server="uvicorn", method="POST")
LEFT = Verdict(side=Side.CLIENT, phase=Phase.HANDLER)


@pytest.mark.parametrize(
    ("wasted", "written"),
    [(9.4e-05, 0.0), (0.0004, 0.0), (0.0005001, 0.001), (1.23456, 1.235), (7200.0, 7200.0)],
)
def test_seconds_are_written_to_the_millisecond(wasted: float, written: float) -> None:
    event = ClientDeparted(facts=FACTS, age_ms=1.5, verdict=LEFT, wasted_seconds=wasted)
    assert event.fields()["wasted_seconds"] == written
    assert event.wasted_seconds == wasted


def test_a_client_that_left_before_the_response_was_sent() -> None:
    event = UploadDrained(facts=FACTS, age_ms=1, outcome=Outcome.UNKNOWN)
    assert event.fields()["note"] == "the client left first"
    sent = dataclasses.replace(event, status=413)
    assert "note" not in sent.fields()


def test_an_application_that_was_cancelled_says_nothing_about_its_client() -> None:
    event = UploadDrained(facts=FACTS, age_ms=1, outcome=Outcome.CUT, cap=Cap.APPLICATION)
    assert "note" not in event.fields()


def test_a_connection_without_a_place_says_what_that_means() -> None:
    event = UploadDrained(
        facts=FACTS, age_ms=1, outcome=Outcome.CUT, cap=Cap.MAX_LINGERING, status=413
    )
    assert "max_lingering" in str(event.fields()["note"])
    assert "may not have read" in str(event.fields()["note"])
