"""The rules and the dashboard: promtool accepts them, and they name what there is."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from cleanclose.core.counters import COUNTED, MEASURED
from tests.support import dashboard
from tests.support.prometheus import PROMTOOL

FOLDER: Final = dashboard.DASHBOARD.parents[1]
RULES: Final = FOLDER / "prometheus" / "rules.yml"
TESTS: Final = FOLDER / "prometheus" / "rules_test.yml"
KERNEL: Final = frozenset(
    {"cleanclose_kernel_events_total", "cleanclose_accept_queue", "cleanclose_accept_queue_limit"}
)
KNOWN: Final = (
    {counted.full_name for counted in COUNTED}
    | {f"{each.full_name}_{end}" for each in MEASURED for end in ("bucket", "count", "sum")}
    | KERNEL
)


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def named(text: str) -> set[str]:
    """The metrics of cleanclose that expressions name, but for those that rules record."""
    return set(re.findall(r"(?<![:\w])cleanclose_\w+", text))


def expressions_of_rules() -> str:
    return re.sub(r"(?m)^ *#.*|^ *(summary|description):.*", "", RULES.read_text("utf-8"))


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
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert {name for name in alerts if name not in done.stdout + done.stderr} == set()


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
