"""What an extra brings is used: some file of the product imports it."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

from tests.harness.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NO_PACKAGES_OF_THE_PRODUCT = {"all", "demo"}
MODULES = {
    "opentelemetry-api": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "sentry-sdk": "sentry_sdk",
}
BROUGHT = [
    (extra, re.split(r"[>\[;]", requirement)[0])
    for extra, requirements in PROJECT["optional-dependencies"].items()
    if extra not in NO_PACKAGES_OF_THE_PRODUCT
    for requirement in requirements
]


@functools.cache
def imported() -> frozenset[str]:
    found: set[str] = set()
    files: list[Path] = []
    for root in ("middleware", "integrations"):
        files += (ROOT / root).rglob("*.py")
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Import(names=names):
                    found |= {each.name.partition(".")[0] for each in names}
                case ast.ImportFrom(module=str() as module, level=0):
                    found.add(module.partition(".")[0])
                case _:
                    pass
    return frozenset(found)


@pytest.mark.parametrize(("extra", "package"), BROUGHT)
def test_what_an_extra_brings_is_imported(extra: str, package: str) -> None:
    assert MODULES.get(package, package) in imported(), f"[{extra}] brings {package} for nothing"
