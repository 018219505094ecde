"""What `.ci/run` says of a step that fails: neither a failing test nor a failing tool is lost."""

from __future__ import annotations

import re
import subprocess
from typing import Final

import pytest

from tests.harness.paths import ROOT

RUN: Final = (ROOT / ".ci" / "run").read_text("utf-8")
FUNCTIONS: Final = "".join(
    match[0] for match in re.finditer(r"^[a-z_]+\(\) \{\n.*?^\}\n", RUN, re.MULTILINE | re.DOTALL)
)


def run(line: str, make: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the script with its functions, and another ``make``."""
    script = f"set -euo pipefail\n{FUNCTIONS}\nmake() {{ {make}; }}\n{line}\necho went on\n"
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


LINES: Final = (
    "step make lint",
    "side_by_side lint docs",
    "tested test",
    "begin bench\nfinished bench",
)


@pytest.mark.parametrize("line", LINES)
def test_what_fails_ends_the_run(line: str) -> None:
    ran = run(line, "return 2")
    assert ran.returncode != 0
    assert "went on" not in ran.stdout


@pytest.mark.parametrize("line", LINES)
def test_what_does_not_fail_goes_on(line: str) -> None:
    assert run(line, "return 0").stdout.endswith("went on\n")


def test_what_fails_beside_others_is_looked_at_again() -> None:
    ran = run("tested test", '[[ "$*" == *--last-failed* ]]')
    assert ran.returncode == 0
    assert "=== failed (1)" in ran.stdout
    assert ran.stdout.endswith("went on\n")


def test_what_was_begun_is_shown_where_it_is_waited_for() -> None:
    ran = run("begin bench\necho meanwhile\nfinished bench", 'echo "made $1"')
    assert ran.returncode == 0
    said = ran.stdout.splitlines()
    assert said.index("meanwhile") < said.index("made bench") < said.index("went on")
