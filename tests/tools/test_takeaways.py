"""The rules for Prometheus, as promtool has them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.harness.dashboard import FOLDER, RULES
from tests.harness.prometheus import PROMTOOL

TESTS: Final = FOLDER / "prometheus" / "rules_test.yml"


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments],
        cwd=RULES.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(require_program: Callable[[str], str]) -> None:
    assert "SUCCESS" in run(require_program(PROMTOOL), "check", "rules", RULES.name)


def test_the_rules_own_tests_pass(require_program: Callable[[str], str]) -> None:
    assert "SUCCESS" in run(require_program(PROMTOOL), "test", "rules", TESTS.name)


def test_each_alert_is_missed_by_the_rules_own_tests(
    require_program: Callable[[str], str], tmp_path: Path
) -> None:
    program = require_program(PROMTOOL)
    alert = re.compile(r"(- alert: (\w+)\n +)expr: (?:\|\n(?: {10}.*\n)+|.*\n)")
    text = RULES.read_text("utf-8")
    alerts = {name for _, name in alert.findall(text)}
    assert len(alerts) == text.count("alert: ")
    # None of them is ever raised.
    (tmp_path / RULES.name).write_text(alert.sub(r"\1expr: vector(0) > 1\n", text))
    (tmp_path / TESTS.name).write_text(TESTS.read_text("utf-8"))
    done = subprocess.run(
        [program, "test", "rules", str(tmp_path / TESTS.name)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert {name for name in alerts if name not in done.stdout + done.stderr} == set()
