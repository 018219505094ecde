"""Take the pictures of the status page: ``python docs/status_pictures.py``. Needs Chromium.

The page shows an hour that was made up, told to a real `StatusPage` on a clock of its own.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from cleanclose.core import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    Side,
    UploadDrained,
    UpstreamReset,
    Verdict,
    reset,
)
from cleanclose.core.tell.reporter import Reporter
from cleanclose.integrations.status import StatusPage, render

FOLDER: Final = Path(__file__).parent
HEIGHTS: Final = {400: 4100, 1400: 1890}
"""Of the pictures, by their width."""
FACTS: Final = Facts(framework="asgi", server="uvicorn", method="GET")
PHASES: Final = (
    Phase.REQUEST_BODY,
    Phase.HANDLER,
    Phase.HANDLER,
    Phase.RESPONSE_START,
    Phase.RESPONSE_BODY,
)
KERNEL: Final = {
    "counters": {
        "ListenOverflows": 0,
        "ListenDrops": 3,
        "TCPAbortOnClose": 41,
        "TCPAbortOnData": 212,
        "TCPAbortOnTimeout": 7,
        "EstabResets": 1284,
        "OutRsts": 2051,
    },
    "listeners": [
        {"address": "0.0.0.0", "port": 8000, "queue": 2, "limit": 2048},  # noqa: S104
        {"address": "::1", "port": 9100, "queue": 0, "limit": 4096},
    ],
}


def figures() -> dict[str, Any]:
    """An hour of an upload service behind a proxy whose patience has been shortened."""
    now = start = 1_795_280_000.0
    rng = random.Random(4)  # noqa: S311 - traffic that is made up
    page = StatusPage(
        title="uploads.example.org", kernel=False, clock=lambda: now, monotonic=lambda: now
    )
    reset()
    reporter = Reporter([page])
    while now < start + 3600:
        is_surge = 2400 < now - start < 3000
        now += rng.expovariate(0.35 if is_surge else 0.08)
        staged = is_surge and rng.random() < 0.8
        verdict = Verdict(
            side=Side.CLIENT,
            phase=Phase.HANDLER if staged else rng.choice(PHASES),
            mechanism=rng.choice((Mechanism.RESET, Mechanism.UNKNOWN)),
        )
        reporter.report(
            ClientDeparted(facts=FACTS, age_ms=1.0, verdict=verdict, wasted_seconds=0.3)
        )
        if rng.random() < 0.4:
            outcome = rng.choices(list(Outcome), (94, 3, 2, 1))[0]
            cap = Cap.MAX_SECONDS if outcome is Outcome.CUT else None
            size = rng.randrange(1 << 23)
            reporter.report(
                UploadDrained(facts=FACTS, age_ms=1.0, outcome=outcome, cap=cap, drained=size)
            )
        if rng.random() < 0.02:
            verdict = Verdict(side=Side.UPSTREAM, phase=Phase.HANDLER)
            reporter.report(
                UpstreamReset(facts=FACTS, age_ms=1.0, verdict=verdict, error="OSError")
            )
    end, now = now, start + 2512
    reporter.report(
        DepartureSurge(
            facts=FACTS,
            age_ms=112_000.0,
            cause=Cause.SAME_AGE,
            count=37,
            of=44,
            share=0.841,
            usual_share=0.02,
            seconds=112.0,
            seconds_each=30.0,
            likely_cause="a time-out in front of this process; 30 s: Heroku's router; Google "
            "Cloud's backend service; the default of many clients",
        )
    )
    now = end
    return {**page.figures(), "kernel": KERNEL}


def main() -> int:
    """Run from the command line."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("there is no chromium on this machine\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(render(figures()), "utf-8")
        for width, height in HEIGHTS.items():
            subprocess.run(  # noqa: S603 - the browser, with a file of our own
                [
                    chromium,
                    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                    *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
                    *("--disable-component-update", "--disable-sync"),
                    f"--user-data-dir={folder}/profile",
                    f"--window-size={width},{height}",
                    f"--screenshot={FOLDER / f'status-{width}.png'}",
                    file.as_uri(),
                ],
                check=True,
                capture_output=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
