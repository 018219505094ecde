"""The WSGI servers in turn, and what one of them needs to be built."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import mod_wsgi
from tests.harness.servers_wsgi import HTTPD, MOD_WSGI_ROWS, ROWS
from tests.harness.stacks import Stack

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


@pytest.fixture(scope="module", params=(*ROWS, *MOD_WSGI_ROWS), ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each of the other WSGI servers in turn, so that it is started once for a file."""
    chosen: Stack = request.param
    if chosen.name in HTTPD:
        folder: Path = request.getfixturevalue("mod_wsgi_folder")
        chosen = replace(chosen, env={"TEST_MOD_WSGI": str(folder)})
    return chosen


@pytest.fixture(params=[False, True], ids=["length", "chunked"])
def chunked(request: pytest.FixtureRequest, stack: Stack) -> bool:
    """Both framings, where the server has both."""
    framing: bool = request.param
    if framing and not stack.chunked:
        pytest.skip(f"{stack} shows the application no chunked bodies")
    return framing
