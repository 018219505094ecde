"""The benchmarks run. What they measure is not judged here: this machine has other work to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import Effort, main
from benchmarks.memory import CAN_MEASURE, SERVERS

LEAST = Effort(
    rounds=2,
    requests=10,
    tornado_rounds=1,
    tornado_requests=8,
    uploads=1,
    uploads_at_once=1,
)


@pytest.mark.slow
@pytest.mark.full
def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "QUICK", LEAST)
    file = tmp_path / "figures.json"
    # 1 is no failure here: nothing is known about the load while two rounds ran.
    assert main(["--quick", "--json", str(file)]) in (0, 1)
    figures = json.loads(file.read_text())
    assert [row["what"] for row in figures["costs"]] == [
        "ASGI GET, in process",
        "ASGI POST, in process",
        "WSGI GET, in process",
        "WSGI POST, in process",
        "Tornado GET, by the clock",
        "Tornado GET, server's CPU",
        "Tornado POST, by the clock",
        "Tornado POST, server's CPU",
    ]
    assert len(figures["garbage"]) == 6
    assert len(figures["memory"]) == (2 * len(SERVERS) if CAN_MEASURE else 0)
    assert all(row["delivered"] == 1 for row in figures["memory"] if row["wrapped"])
    tornado = [row for row in figures["garbage"] if row["what"].startswith("Tornado")]
    assert all(row["cleanclose"] == 0 for row in tornado)
