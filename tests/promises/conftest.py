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
