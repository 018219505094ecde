"""The dashboard's panels, and their expressions as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.harness.paths import ROOT

__all__ = ["DASHBOARD", "FOLDER", "RULES", "expression", "load", "panels"]

FOLDER: Final = ROOT / "integrations"
DASHBOARD: Final = FOLDER / "grafana" / "cleanclose.json"
RULES: Final = FOLDER / "prometheus" / "rules.yml"


def load() -> Mapping[str, Any]:
    """The dashboard."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return loaded


def panels() -> Iterator[Mapping[str, Any]]:
    """Its panels, without those that are headings."""
    yield from (panel for panel in load()["panels"] if panel["type"] != "row")


def expression(
    target: Mapping[str, Any], *, job: str = ".+", interval: str = "1m", span: str = "1m"
) -> str:
    """A target's expression, with the values of the variables in it.

    Args:
        target: One of a panel's.
        job: What is chosen for the job.
        interval: ``$__rate_interval``.
        span: The time that is shown.
    """
    text: str = target["expr"]
    for variable in load()["templating"]["list"]:
        if variable["type"] == "textbox":
            text = text.replace(f"${variable['name']}", variable["query"])
    for name, value in (("$__rate_interval", interval), ("$__range", span), ("$job", job)):
        text = text.replace(name, value)
    assert "$" not in text, text
    return text
