"""The status page: the same on three interfaces, true, and readable at any width."""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any

import pytest

from cleanclose.core import (
    Outcome,
    Phase,
    snapshot,
)
from cleanclose.core.counters import PROCESS
from cleanclose.integrations.status import StatusPage
from tests.harness.made import departed, drained
from tests.harness.status import NASTY, SURGE, Page


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json;q=0.9, */*;q=0.1", True),
        ("text/html;q=0.5, application/json", True),
        ("text/html, application/json", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_json_for_those_who_ask_for_it(accept: str, is_json: bool) -> None:
    _, headers, body = Page().get(accept)
    assert headers["Content-Type"].startswith("application/json" if is_json else "text/html")
    assert body.startswith("{" if is_json else "<!doctype html>")
    assert headers["Vary"] == "Accept"


def test_how_often_work_was_stopped() -> None:
    page = Page()
    before = snapshot()['cleanclose_stopped_total{overdue="false"}']
    PROCESS.count(departed(stopped=True))
    text = page.get("text/html")[2]
    assert f"{before + 1:,.0f} times it was stopped" in text


def test_head_and_other_methods() -> None:
    status, headers, body = Page().get(method="HEAD")
    assert status == "200 OK"
    assert int(headers["Content-Length"]) > 1000
    assert body == ""
    status, headers, body = Page().get(method="POST")
    assert (status[:3], headers["Allow"], body) == ("405", "GET, HEAD", "")


def test_the_last_hour_in_bars() -> None:
    page = Page(kernel=False)
    for phase in (Phase.HANDLER, Phase.HANDLER, Phase.REQUEST_BODY, Phase.TLS_HANDSHAKE):
        page.page(departed(phase))
    page.wait(600)
    page.page(drained(Outcome.RESET))
    series = page.figures()["series"]
    assert series["seconds_each"] == 30
    assert series["departures"]["handler"][-21] == 2
    assert series["departures"]["request_body"][-21] == 1
    assert series["early_responses"]["reset"][-1] == 1
    assert sum(map(sum, series["departures"].values())) == 3
    text = page.get()[2]
    assert "left while the handler worked: 2 in 60 minutes, at most 2 in one bar" in text
    # Forgotten.
    page.wait(3600)
    for part in ("departures", "early_responses"):
        assert not any(map(any, page.figures()["series"][part].values()))


@pytest.mark.parametrize("jump", [-3600, -10, 10, 3600, 86400])
def test_a_clock_that_jumps_moves_nothing(jump: float) -> None:
    page = Page(kernel=False)
    for _ in range(20):
        page.page(departed(Phase.HANDLER))
    page.page(SURGE)
    page.now += jump
    for _ in range(30):
        page.page(departed(Phase.HANDLER))
    page.wait(60)
    figures = page.figures()
    assert sum(figures["series"]["departures"]["handler"]) == 50
    seen, now = (
        datetime.fromisoformat(each)
        for each in (figures["surges"][0]["at"], figures["process"]["now"])
    )
    assert (now - seen).total_seconds() == 60
    assert figures["process"]["since"] == figures["surges"][0]["at"]


def test_no_more_is_kept_than_is_shown() -> None:
    page = Page(minutes=2)
    for _ in range(500):
        page.wait(1)
        page.page(departed())
        page.page(SURGE)
    figures = page.figures()
    assert len(figures["surges"]) == 20
    assert len(figures["series"]["departures"]["handler"]) == 120
    assert sum(figures["series"]["departures"]["handler"]) == 120


def test_clients_are_shown_on_demand_only() -> None:
    hidden, shown = Page(), Page(show_clients=True)
    for page in (hidden, shown):
        page.page(SURGE)
        page.page(departed())
    assert shown.figures()["surges"][0]["network"] == "192.0.2.0/24"
    assert "192.0.2.0/24" in shown.get()[2]
    for accept in ("text/html", "application/json"):
        assert "192.0.2" not in hidden.get(accept)[2]


def test_everything_is_escaped() -> None:
    page = Page(title=NASTY)
    page.page(SURGE)
    text = page.get()[2]
    assert "<script" not in text
    assert text.count(html.escape(NASTY)) == 4


def test_it_is_told_whose_figures_they_are() -> None:
    page = Page()
    figures = page.figures()
    assert f"process {figures['process']['pid']}," in page.get()[2]
    assert figures["counters"] == snapshot()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 1}, "minutes must be a whole number from 2 to 1440"),
        ({"minutes": 60.0}, "minutes"),
        ({"title": None}, "title must be a string"),
        ({"show_clients": 1}, "show_clients must be True or False"),
        ({"kernel": None}, "kernel must be True or False"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StatusPage(**options)
