"""The parts of the documentation that the code makes."""

from __future__ import annotations

import subprocess
import sys

from tests.harness.paths import ROOT

GENERATOR = ROOT / "docs" / "generate.py"


def test_the_generated_parts_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, str(GENERATOR), "--check"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, (
        f"run `python docs/generate.py`\n{checked.stdout}{checked.stderr}"
    )
