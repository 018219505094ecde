"""The tests of one server come one after the other: its processes are started once.

And what one of these servers needs to be built.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import mod_wsgi

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


@pytest.fixture(scope="session")
def mod_wsgi_folder(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Path:
    """mod_wsgi, built once for all processes of this run; a skip where it cannot be."""
    mod_wsgi.require(require_program)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return mod_wsgi.build(folder / "mod_wsgi")
