"""Tiny runs of the matrix on real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.harness.nursery import VARIABLE
from tests.harness.paths import ROOT
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks


def arguments(out: Path) -> list[str]:
    chosen = ["--server=tornado", "--server=gunicorn-gthread", "--way=direct", "--case=length-8"]
    clients = ["--client=raw strict", "--client=http.client"]
    return [sys.executable, "-m", "tests.matrix", *chosen, *clients, f"--out={out}"]


def test_a_tiny_run(tmp_path: Path) -> None:
    run = subprocess.run(
        arguments(tmp_path),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = [json.loads(line) for line in (tmp_path / "matrix.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 2 * 2
    for line in lines:
        if line["wrapped"]:
            # So large an upload is answered at once, and its connection is not used again.
            assert line["kind"] == "delivered"
            assert line.get("next") in (None, "new connection")
    # What the strict client loses on these two without the middleware.
    assert "lost" in {line["kind"] for line in lines if not line["wrapped"]}
    picture = (tmp_path / "matrix.svg").read_text()
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert "@font-face" not in picture
    assert "| `tornado` | wrapped | 1/1 | 1/1 |" in (tmp_path / "matrix.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = f"MATRIX_TEST={uuid.uuid4()}"
    name, value = mark.split("=")
    # Its servers are to be its own: a forked one has the nursery's environment in /proc.
    environment = {key: held for key, held in os.environ.items() if key != VARIABLE}
    run = subprocess.Popen(
        [*arguments(tmp_path), "--tries=50"],
        cwd=ROOT,
        env={**environment, name: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: len(processes(mark)) > 4)
        run.send_signal(signal.SIGINT)
        assert run.wait(30) != 0
        until(lambda: not processes(mark))
    finally:
        run.kill()
        run.wait()


def processes(mark: str) -> list[str]:
    """The processes with this variable in their environment."""
    found: list[str] = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (each / "environ").read_bytes().split(b"\0"):
                found.append(each.name)
        except OSError:
            continue
    return found
