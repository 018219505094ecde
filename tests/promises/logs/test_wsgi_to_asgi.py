"""asgiref's WsgiToAsgi has a plain ValueError for a client that leaves in mid-body."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.harness.asgi_noise import HOWS, Observed, module_stack, observed
from tests.harness.leavers import leave_at, request

pytestmark = pytest.mark.stacks

UVICORN: Final = module_stack("uvicorn-h11", "wsgi_to_asgi")


def cut_uploads(seen: Observed) -> None:
    for how in HOWS:
        head = request("POST", "/", length=1000, headers=(("X-Request-ID", how),))
        leave_at(seen.port, head, how, body=b"ab")


def test_nothing_is_said_of_a_client_that_left(tmp_path: Path) -> None:
    with observed(UVICORN, tmp_path, wrapped=True) as seen:
        cut_uploads(seen)
        seen.until(lambda: seen.events_now().keys() >= set(HOWS), "untold")
    assert seen.records == []


@pytest.mark.negative_control
def test_the_control_bare_it_is_a_traceback(tmp_path: Path) -> None:
    with observed(UVICORN, tmp_path, wrapped=False) as seen:
        cut_uploads(seen)
        seen.until(lambda: len(seen.records_now()) == len(HOWS), "no line")
    assert seen.errors() == [("uvicorn.error", "ValueError")] * len(HOWS)
