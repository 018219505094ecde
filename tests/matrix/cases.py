"""What is sent: the refused uploads of the delivery tests, as jobs for any client."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.harness.apps import routes
from tests.harness.scenarios import CORE, KIB, MIB, Scenario

__all__ = ["ALL", "LINE", "QUICK", "QUICK_FOR_ALL", "Case"]

LINE: Final = b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\nX:".ljust(60, b"x") + b"\r\n\r\n"
"""What bodies consist of, the same as those of `cleanclose.doctor.clients`: a server that takes a
piece of one for a request betrays itself."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One refused upload."""

    name: str
    title: str
    scenario: Scenario

    def __str__(self) -> str:
        return self.name

    @property
    def large(self) -> bool:
        """Whether it takes its time on any server."""
        return self.scenario.upload.body_size > 16 * MIB

    @property
    def chunked(self) -> bool:
        """Whether the server has to hand out chunked bodies."""
        return self.scenario.upload.chunked

    @property
    def digest(self) -> str:
        """The SHA-256 of the response that is due."""
        return hashlib.sha256(self.scenario.body).hexdigest()

    def job(self, client: str, port: int, timeout: float, *, tls: bool = False) -> dict[str, Any]:
        """The upload as the processes with the clients take it."""
        upload = self.scenario.upload
        return {
            "client": client,
            "port": port,
            "tls": tls,
            "path": upload.path,
            "next": routes.INDEX,
            "size": upload.body_size,
            "piece": upload.piece_size,
            "chunked": upload.chunked,
            "close": upload.connection_close,
            "expect": upload.expect,
            "pause": upload.pause,
            "timeout": timeout,
        }


_CORE: Final = {scenario.name: scenario for scenario in CORE}


def _of(name: str, title: str) -> Case:
    return Case(name=name, title=title, scenario=_CORE[name])


def _expect(name: str, title: str, base: str) -> Case:
    scenario = _CORE[base]
    upload = replace(scenario.upload, expect="patient")
    return Case(name=name, title=title, scenario=replace(scenario, name=name, upload=upload))


def _long() -> Case:
    """Twice as long as a response is kept back on top of what the socket buffers take."""
    base = _CORE["slow"]
    upload = replace(base.upload, body_size=8 * MIB, piece_size=256 * KIB, pause=0.06)
    return Case(
        name="slow-8", title="slow 8 MiB", scenario=replace(base, name="slow-8", upload=upload)
    )


ALL: Final = (
    _of("length-8", "length 8 MiB"),
    _of("chunked-8", "chunked 8 MiB"),
    _of("close-8", "close 8 MiB"),
    _of("large-8", "1 MiB answer"),
    _expect("expect-8", "Expect 8 MiB", "length-8"),
    _of("slow", "slow 3 MiB"),
    _long(),
    _of("slow-chunked", "slow chunked"),
    _of("length-64", "length 64 MiB"),
    _of("chunked-64", "chunked 64 MiB"),
    _of("large-close-64", "close 64 MiB, 1 MiB answer"),
)
"""Every case, in the order of the table's columns."""

QUICK: Final = tuple(
    case for case in ALL if not case.large and case.name not in ("slow", "slow-chunked")
)
"""What the strict client sends in a quick run."""

QUICK_FOR_ALL: Final = ("length-8", "chunked-8")
"""What every other client sends in a quick run."""
