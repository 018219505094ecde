"""The status page: the same on three interfaces, true, and readable at any width."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Generator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, Final

import pytest

from cleanclose.core import (
    Cause,
    ClientDeparted,
    DepartureSurge,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    Side,
    UploadDrained,
    Verdict,
    Witness,
    snapshot,
)
from cleanclose.integrations.status import StatusPage
from example_apps.staging import ServerProcess
from tests.support.leavers import leave_at, request
from tests.support.surge_servers import COMMANDS, ROOT
from tests.support.tap import PATH_VARIABLE

BROWSER: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WIDTHS: Final = (320, 400, 700, 1400)
FACTS: Final = Facts(framework="asgi", server="uvicorn", method="GET", client="192.0.2.9")
NASTY: Final = "<script>document.title='!'</script>&\"'"


def departed(phase: Phase = Phase.HANDLER) -> ClientDeparted:
    verdict = Verdict(
        side=Side.CLIENT, phase=phase, mechanism=Mechanism.RESET, witnesses=(Witness.RECEIVE,)
    )
    return ClientDeparted(facts=FACTS, age_ms=1.0, verdict=verdict)


def drained(outcome: Outcome) -> UploadDrained:
    return UploadDrained(facts=FACTS, age_ms=1.0, outcome=outcome)


SURGE: Final = DepartureSurge(
    facts=dataclasses.replace(FACTS, client=None, route=NASTY),
    age_ms=1.0,
    cause=Cause.ONE_CLIENT,
    count=38,
    of=40,
    share=0.95,
    usual_share=0.04,
    seconds=12.0,
    network="192.0.2.0/24",
    likely_cause=NASTY,
)


class Page:
    """A page, on a clock of its own, asked through its WSGI application."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_795_280_000.0
        self.page = StatusPage(clock=lambda: self.now, **options)

    def get(
        self, accept: str = "text/html", method: str = "GET"
    ) -> tuple[str, dict[str, str], str]:
        answers: list[tuple[str, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            answers.append((status, dict(headers)))

        environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept}
        body = b"".join(self.page.wsgi(environ, start_response))
        ((status, headers),) = answers
        return status, headers, body.decode()

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.get("application/json")[2])
        return figures


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


def test_head_and_other_methods() -> None:
    status, headers, body = Page().get(method="HEAD")
    assert status == "200 OK"
    assert int(headers["Content-Length"]) > 1000
    assert body == ""
    status, headers, body = Page().get(method="POST")
    assert (status, headers["Allow"], body) == ("405 Method Not Allowed", "GET, HEAD", "")


def test_the_last_hour_in_bars() -> None:
    page = Page(kernel=False)
    for phase in (Phase.HANDLER, Phase.HANDLER, Phase.REQUEST_BODY, Phase.TLS_HANDSHAKE):
        page.page(departed(phase))
    page.now += 600
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
    page.now += 3600
    for part in ("departures", "early_responses"):
        assert not any(map(any, page.figures()["series"][part].values()))


def test_no_more_is_kept_than_is_shown() -> None:
    page = Page(minutes=2)
    for _ in range(500):
        page.now += 1
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


# Real servers.


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[ServerProcess]:
    path = tmp_path_factory.mktemp("status") / "tap.jsonl"
    with ServerProcess(
        COMMANDS[request.param], env={PATH_VARIABLE: str(path)}, cwd=ROOT, ready_path="/"
    ) as process:
        yield process


def ask(
    server: ServerProcess, accept: str, method: str = "GET"
) -> tuple[int, Message, str]:  # fmt: skip
    asked = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/status/", headers={"Accept": accept}, method=method
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return answer.status, answer.headers, answer.read().decode()


def test_it_agrees_with_what_has_happened(server: ServerProcess) -> None:
    before = json.loads(ask(server, "application/json")[2])
    for _ in range(3):
        leave_at(server.port, request("GET", "/a?wait=20"), "rst", after=0.3)
    cut = request("POST", "/upload", length=100_000)
    for _ in range(2):
        leave_at(server.port, cut, "rst", body=b"x" * 5000, after=0.3)
    figures = json.loads(ask(server, "application/json")[2])
    series = figures["series"]["departures"]
    wanted = departures_in(before["counters"]) + 5
    for _ in range(50):
        # The counters come first, and the page may be asked in between.
        if departures_in(figures["counters"]) == sum(map(sum, series.values())) == wanted:
            break
        figures = json.loads(ask(server, "application/json")[2])
        series = figures["series"]["departures"]
    assert departures_in(figures["counters"]) == wanted
    assert sum(map(sum, series.values())) == departures_in(figures["counters"])
    assert sum(series["request_body"]) == 2
    assert figures["process"]["pid"] == before["process"]["pid"] != 0
    status, headers, text = ask(server, "text/html")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert f'<div>departures</div><div class="number">{departures_in(figures["counters"])}' in text
    assert ask(server, "text/html", "HEAD")[2] == ""


def departures_in(counters: Mapping[str, float]) -> int:
    return int(
        sum(value for key, value in counters.items() if key.startswith("cleanclose_departures_"))
    )


# In a browser.


@pytest.fixture
def browse(require_program: Callable[[str], str], tmp_path: Path) -> Callable[..., str]:
    """Run Chromium without a window; what it prints."""
    program = require_program("chromium")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        return done.stdout

    return run


def full_page() -> str:
    page = Page(title="a-long-name-without-any-place-to-break.internal.example.org")
    for phase in Phase:
        page.page(departed(phase))
    for outcome in Outcome:
        page.page(drained(outcome))
    page.page(SURGE)
    return page.get()[2]


@pytest.mark.slow
def test_nothing_sticks_out_at_any_width(browse: Callable[..., str], tmp_path: Path) -> None:
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(full_page())}"></iframe>'
        for width in WIDTHS
    )
    script = (
        "document.title = [...document.querySelectorAll('iframe')].map(frame => {"
        " const inner = frame.contentDocument, width = frame.contentWindow.innerWidth;"
        " inner.querySelector('details').open = true;"
        " const out = [...inner.body.querySelectorAll('*')].filter("
        "  each => each.getBoundingClientRect().right > width + 1).length;"
        " return inner.documentElement.scrollWidth + '/' + width + '/' + out; }).join(' ');"
    )
    file = tmp_path / "widths.html"
    file.write_text(
        f"<!doctype html><style>iframe{{border:0}}</style>{frames}"
        f"<script>onload = () => {{ {script} }}</script>",
        "utf-8",
    )
    titles = re.findall(r"<title>([\d/ ]+)</title>", browse("--dump-dom", file.as_uri()))
    seen = [tuple(map(int, each.split("/"))) for each in titles[0].split()]
    assert seen == [(width, width, 0) for width in WIDTHS]


@pytest.mark.slow
def test_it_is_shown_with_its_own_policy(browse: Callable[..., str], server: ServerProcess) -> None:
    """The policy lets the page's own style in, and it is one document: nothing else is loaded."""
    dom = browse("--dump-dom", f"http://127.0.0.1:{server.port}/status/")
    assert "&lt;here&gt;" in dom
    assert "<svg" in dom
    assert not re.search(r"""<(script|link|img|iframe)|https?://|url[(]""", dom)
