"""The example with the tiny backlog: the reading shows it, and a longer queue is clean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from example_apps.namespaces import namespace_command

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures"),
    # It is an example: of the figures themselves tests/promises/counting has a quicker one.
    pytest.mark.slow,
    pytest.mark.full,
]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((), "try again after a second"), (("--abort",), "get a reset")],
    ids=["turned-away", "reset"],
)
def test_the_reading_shows_the_tiny_backlog(arguments: tuple[str, ...], word: str) -> None:
    if namespace_command() is None:
        pytest.skip("no network namespace can be made here, so others would be counted too")
    shown = subprocess.run(
        [sys.executable, "-m", "example_apps.accept_queue", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout
    _, tiny, usual = shown.split("gunicorn --backlog ")
    # Where it stands depends on the width.
    tiny, usual = (" ".join(part.split()) for part in (tiny, usual))
    assert "! ListenOverflows" in tiny
    assert word in tiny
    assert "Raise the server's backlog" in tiny
    assert "! " not in usual
    assert "Nothing was reset or turned away" in usual
    for part in (tiny, usual):
        assert "answered" in part.rpartition("The clients: ")[2]
