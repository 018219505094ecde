"""How much resident memory a real server needs to refuse large uploads, bare and wrapped."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cleanclose.doctor.clients import Upload, strict
from example_apps.demo import EXAMPLES, Example
from example_apps.uploads import MIB, UploadSettings
from tests.harness.processes import peak_rss_bytes, reset_peak_rss, rss_bytes

__all__ = ["CAN_MEASURE", "Growth", "measure_memory"]

CAN_MEASURE: Final = sys.platform == "linux"
"""Resident memory and its peak are read from /proc."""

UPLOAD_SIZE: Final = 16 * MIB
WARM_UP: Final = 4
# Event loops serve any number of uploads at once; a blocking server has as many as threads.
SERVERS: Final = ("uvicorn", "tornado")


@dataclass(frozen=True, slots=True)
class Growth:
    """What one server needed while the uploads ran."""

    server: str
    wrapped: bool
    peak: int
    """Bytes by which the resident memory grew at its highest."""
    left: int
    """Bytes by which it was larger afterwards."""
    delivered: int
    """How many of the clients, which give up at their first send error, got their answer."""


def measure_memory(*, uploads: int, at_once: int) -> Iterator[Growth]:
    """Refuse so many uploads of 16 MiB on each server, bare and wrapped."""
    for example in EXAMPLES:
        if example.package in SERVERS:
            for wrapped in (False, True):
                yield _measure(example, wrapped, uploads, at_once)


def _measure(example: Example, wrapped: bool, uploads: int, at_once: int) -> Growth:
    with tempfile.TemporaryDirectory(prefix="cleanclose-bench-") as folder:
        settings = UploadSettings(folder=Path(folder), secret=b"benchmark", cleanclose=wrapped)
        with example.server(settings) as server:
            # No token: refused with 401 from the headers alone.
            upload = Upload(
                port=server.port, method="PUT", path="/files", body_size=UPLOAD_SIZE, listen=0.0
            )
            _send([upload] * WARM_UP, at_once)
            before = rss_bytes(server.pid)
            reset_peak_rss(server.pid)
            delivered = _send([upload] * uploads, at_once)
            return Growth(
                server=example.package,
                wrapped=wrapped,
                peak=peak_rss_bytes(server.pid) - before,
                left=rss_bytes(server.pid) - before,
                delivered=delivered,
            )


def _send(uploads: Iterable[Upload], at_once: int) -> int:
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(strict, uploads))
    return sum(outcome.status == 401 for outcome in outcomes)
