"""The status page on real servers and in a real browser."""

from __future__ import annotations

import html
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Generator, Mapping
from email.message import Message
from pathlib import Path
from typing import Final

import pytest

from cleanclose.core import (
    Outcome,
    Phase,
)
from tests.harness.leavers import leave_at, request
from tests.harness.made import departed, drained
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.status import SURGE, Page
from tests.harness.surge_servers import COMMANDS
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import LIMIT, until

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
    with urllib.request.urlopen(asked, timeout=LIMIT) as answer:
        return answer.status, answer.headers, answer.read().decode()


def test_it_agrees_with_what_has_happened(server: ServerProcess) -> None:
    before = json.loads(ask(server, "application/json")[2])
    for _ in range(3):
        leave_at(server.port, request("GET", "/a?wait=20"), "rst")
    cut = request("POST", "/upload", length=100_000)
    for _ in range(2):
        leave_at(server.port, cut, "rst", body=b"x" * 5000)
    wanted = departures_in(before["counters"]) + 5

    def counted() -> tuple[int, int]:
        """By the counters, and by the page: the counters come first."""
        figures = json.loads(ask(server, "application/json")[2])
        series = figures["series"]["departures"]
        return departures_in(figures["counters"]), sum(map(sum, series.values()))

    until(lambda: counted() == (wanted, wanted), counted)
    figures = json.loads(ask(server, "application/json")[2])
    series = figures["series"]["departures"]
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
            stdin=subprocess.DEVNULL,
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
