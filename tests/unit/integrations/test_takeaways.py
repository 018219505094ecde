"""The rules and the dashboard: promtool accepts them, and they name what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

from cleanclose.core.counters import COUNTED, MEASURED
from tests.harness import dashboard
from tests.harness.dashboard import RULES

KERNEL: Final = frozenset(
    {"cleanclose_kernel_events_total", "cleanclose_accept_queue", "cleanclose_accept_queue_limit"}
)
KNOWN: Final = (
    {counted.full_name for counted in COUNTED}
    | {f"{each.full_name}_{end}" for each in MEASURED for end in ("bucket", "count", "sum")}
    | KERNEL
)


def named(text: str) -> set[str]:
    """The metrics of cleanclose that expressions name, but for those that rules record."""
    return set(re.findall(r"(?<![:\w])cleanclose_\w+", text))


def expressions_of_rules() -> str:
    return re.sub(r"(?m)^ *#.*|^ *(summary|description):.*", "", RULES.read_text("utf-8"))


def test_rules_and_dashboard_name_metrics_that_there_are() -> None:
    shown = json.dumps([panel["targets"] for panel in dashboard.panels()])
    for text in (expressions_of_rules(), shown):
        assert len(named(text)) > 5
        assert named(text) <= KNOWN


def test_everything_that_is_counted_is_on_the_dashboard() -> None:
    shown = named(json.dumps([panel["targets"] for panel in dashboard.panels()]))
    assert {counted.full_name for counted in COUNTED} | KERNEL <= shown


def all_of(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            if name == key:
                yield inner
            yield from all_of(inner, key)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from all_of(inner, key)


def test_the_dashboard_is_one_that_can_be_imported() -> None:
    loaded = dashboard.load()
    panels = loaded["panels"]
    assert loaded["title"]
    assert loaded["schemaVersion"] >= 36
    numbers = [panel["id"] for panel in panels]
    assert sorted(numbers) == sorted(set(numbers))
    variables = {variable["name"] for variable in loaded["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(panels)))
    assert used == variables
    # No data source of one installation.
    assert {source["uid"] for source in all_of(loaded, "datasource")} == {"${datasource}"}


def test_the_panels_stand_side_by_side() -> None:
    panels = dashboard.load()["panels"]
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_every_panel_says_what_it_shows() -> None:
    for panel in dashboard.panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        for target in panel["targets"]:
            assert "$job" in target["expr"]
