"""Work for a websocket ends when its client has left, with a close frame or without."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from tests.harness.asgi_noise import leave_websocket, say_goodbye
from tests.harness.leavers import How
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.stopping import ASGI, Observed
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

NOT_TOLD: Final = frozenset({"stopping-asgi-granian", "stopping-asgi-hypercorn-trio"})
"""Servers that tell only who waits in ``receive()`` that a websocket is over."""
NO_GOODBYE: Final = frozenset({"stopping-asgi-gunicorn"})
"""The same for close frames: the connection stays open until the application returns."""


def is_running(server: Observed, name: str) -> bool:
    return name in server.state()["running"]


@pytest.mark.parametrize("row", [row for row in ASGI if row.name not in NOT_TOLD], ids=str)
def test_its_work_ends(serve: Serve, row: Stack, tmp_path: Path) -> None:
    tap = tmp_path / "tap"
    server = Observed(serve(row, env={PATH_VARIABLE: str(tap)}), tap)
    hows: tuple[How, ...] = ("rst", "fin")
    for how in hows:
        leave_websocket(server.port, "/socket", how, how, once=partial(is_running, server, how))
    goodbyes = () if row.name in NO_GOODBYE else ("1000", "1001")
    for code in goodbyes:
        Thread(target=say_goodbye, args=(server.port, "/socket", code, int(code))).start()
    names = {*hows, *goodbyes}
    until(lambda: names <= set(server.state()["ends"]), server.state)
    until(lambda: server.happened("cleaned") == len(names), server.state)
    assert server.happened("socket stopped") == len(names)
    assert server.loud() == []
