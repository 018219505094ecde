"""A unit test starts no process, and has no socket but a pair."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from cleanclose.core.blame.watch import CURRENT

WHY = "a unit test must not {}: its place is tests/promises or tests/tools (see tests/README.md)"


@pytest.fixture(autouse=True)
def neither_processes_nor_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would make a unit test slow, or dependent on its machine, fails it."""

    def forbid(owner: Any, name: str, what: str) -> None:
        def forbidden(*_: object, **__: object) -> NoReturn:
            pytest.fail(WHY.format(what))

        monkeypatch.setattr(owner, name, forbidden, raising=False)

    forbid(subprocess.Popen, "__init__", "start a program")
    forbid(os, "fork", "fork")
    forbid(os, "posix_spawn", "start a program")
    for name in ("bind", "listen", "connect", "connect_ex"):
        forbid(socket.socket, name, f"{name} a socket; socket.socketpair() is there for it")


@pytest.fixture(autouse=True)
def nobody_patches() -> Iterator[None]:
    """No test leaves the later ones of its process with another threading or http.server.

    eventlet's, which it puts there when somebody imports ``eventlet.wsgi``, waits in a hub.
    """
    yield
    assert "eventlet.green.threading" not in sys.modules


@pytest.fixture(autouse=True)
def outside_of_a_request() -> Iterator[None]:
    """No test finds the exchange of another one."""
    CURRENT.set(None)
    yield
    CURRENT.set(None)
