"""Frameworks' own suites: what came of a run is read rightly, and the page has each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.paths import ROOT
from tests.suites import __main__ as suites
from tests.suites import rows, wrapping

PAGE = (ROOT / "docs" / "frameworks-suites.md").read_text("utf-8")


def test_each_suite_has_its_place_to_wrap() -> None:
    assert set(rows.SUITES) == set(wrapping.WRAPPING)


def test_the_page_names_no_suite_that_is_not_run() -> None:
    named = re.findall(r"^\| (\w+) [\d.]+ \|", PAGE, re.MULTILINE)
    assert named
    assert {name.lower() for name in named} <= set(rows.SUITES)


def test_a_report_of_pytest(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="a" name="good"/>'
        '<testcase classname="a" name="bad"><failure/></testcase>'
        '<testcase classname="a" name="torn"/>'
        '<testcase classname="a" name="torn"><error/></testcase>'
        '<testcase classname="a" name="left_out"><skipped/></testcase>'
        "</testsuite></testsuites>",
        "utf-8",
    )
    outcome = suites.outcome_of_pytest(report, "")
    assert outcome.passed == {"a::good"}
    assert outcome.failed == {"a::bad", "a::torn"}


def test_a_run_that_has_not_come_to_an_end_is_no_outcome(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no report"):
        suites.outcome_of_pytest(tmp_path / "none.xml", "Segmentation fault")
    with pytest.raises(SystemExit, match="not come to an end"):
        suites.outcome_of_django("test_one (wsgi.tests.One.test_one) ... ok\n")


def test_what_djangos_runner_writes() -> None:
    outcome = suites.outcome_of_django(
        "test_one (wsgi.tests.One.test_one) ... ok\n"
        "test_two (wsgi.tests.One.test_two)\n"
        "With a first line of its docstring. ... FAIL\n"
        "test_three (wsgi.tests.One.test_three) ... skipped 'no'\n"
        "======\n"
        "FAIL: test_two (wsgi.tests.One.test_two)\n"
        "Ran 3 tests in 0.1s\n"
    )
    assert outcome.passed == {"wsgi.tests.One.test_one"}
    assert outcome.failed == {"wsgi.tests.One.test_two"}
