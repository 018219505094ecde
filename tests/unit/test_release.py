"""A release says the same everywhere: the version, the Pythons, and where the project lives."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from cleanclose.core import version
from tests.harness.paths import ROOT


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_version_is_the_newest_of_the_changelog() -> None:
    """`Unreleased` may stand above it while changes are gathered."""
    headings = re.findall(r"^## \[(.+?)\]", changelog(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[0] == project()["version"]
    assert headings.index(released[0]) <= 1


def test_a_version_has_one_part_of_the_changelog() -> None:
    headings = re.findall(r"^## \[(.+?)\]", changelog(), re.MULTILINE)
    assert len(headings) == len(set(headings))


def test_the_version_can_be_looked_up() -> None:
    """An environment that was made before the version changed has to be made anew."""
    assert version() == project()["version"], "run `make venv`"


def test_the_claimed_pythons_are_those_of_the_workflow() -> None:
    claimed = {
        found[1]
        for line in project()["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    }
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    (row,) = re.findall(r"^ +python: \[(.+)\]$", workflow, re.MULTILINE)
    assert set(re.findall(r"3\.\d+", row)) == claimed
    assert f">={min(claimed, key=lambda text: int(text[2:]))}" == project()["requires-python"]


def test_no_system_is_claimed_that_the_workflow_does_not_run_on() -> None:
    claimed = [line for line in project()["classifiers"] if line.startswith("Operating System")]
    assert claimed == ["Operating System :: POSIX :: Linux"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert set(re.findall(r"runs-on: (\w+)", workflow)) == {"ubuntu"}
