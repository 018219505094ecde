"""docs/architecture.md: every file and every name on its walks is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.harness.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
STEPS = re.findall(r"^\d+\. `([\w/]+\.py)`, `([\w.]+)`:", PAGE, re.MULTILINE)
MIDDLEWARE = ROOT / "middleware" / "cleanclose"


def names_in(body: list[ast.stmt], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for each in body:
        match each:
            case ast.ClassDef(name=name):
                found |= {prefix + name, *names_in(each.body, f"{prefix}{name}.")}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(prefix + name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(prefix + name)
            case _:
                pass
    return found


def test_the_page_has_six_walks() -> None:
    walks = [part for part in PAGE.split("\n## ") if re.search(r"^1\. `", part, re.MULTILINE)]
    assert len(walks) == 6
    # Every numbered line is a step that the test below can read.
    assert len(re.findall(r"^\d+\. ", PAGE, re.MULTILINE)) == len(STEPS)


@pytest.mark.parametrize(("file", "name"), sorted(set(STEPS)))
def test_a_step_is_there(file: str, name: str) -> None:
    tree = ast.parse((MIDDLEWARE / file).read_text("utf-8"))
    assert name in names_in(tree.body)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", PAGE))))
def test_a_room_is_there(path: str) -> None:
    if path != "middleware/cleanclose/":
        assert (MIDDLEWARE / path).exists()
