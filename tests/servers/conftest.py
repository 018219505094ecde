"""The tests of one server come one after the other: its processes are started once."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def _stack_of(item: pytest.Item) -> str:
    spec: object = getattr(item, "callspec", None)
    params: dict[str, object] = getattr(spec, "params", {})
    return str(params.get("row", ""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests of each module in this folder by the server that they ask."""
    places = [place for place, item in enumerate(items) if _HERE in item.path.parents]
    ordered = sorted(
        (items[place] for place in places), key=lambda item: (str(item.path), _stack_of(item))
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item
