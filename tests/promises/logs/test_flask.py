"""Flask under gunicorn: uploads that are cut off, and an upstream that resets behind one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.leavers import leave_at, request
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.tap import PATH_VARIABLE, read_tap
from tests.harness.waiting import until

COMMAND: Final = (
    sys.executable,
    "-m",
    "gunicorn",
    "--worker-class=gthread",
    "--threads=2",
    "--bind=127.0.0.1:{port}",
    "--no-control-socket",
    "tests.harness.apps.quiet_flask:app",
)
LOGGER: Final = "tests.harness.apps.quiet_flask"


def errors_of_cut_uploads(tmp_path: Path, path: str, settings: Mapping[str, Any]) -> list[Any]:
    """What Flask logs at ERROR about a reset, and then a FIN, in the middle of a chunk."""
    tap = tmp_path / "tap"
    with ServerProcess(
        COMMAND,
        env={PATH_VARIABLE: str(tap), "CLEANCLOSE_SETTINGS": json.dumps(settings)},
        cwd=ROOT,
        ready_path="/",
    ) as server:
        head = request("POST", path, headers=(("Transfer-Encoding", "chunked"),))
        leave_at(server.port, head, "rst", body=b"10\r\n12345")
        leave_at(server.port, head, "fin", body=b"10\r\n12345")
        until(lambda: [e["event"] for e in read_tap(tap)[1]].count("client_departed") >= 2)
    found = [record for record in read_tap(tap)[0] if record["logger"] == LOGGER]
    # Two threads serve the two clients, and either may be quicker.
    return sorted(record["error"] for record in found if record["level"] == logging.ERROR)


@pytest.mark.parametrize("quiet", [False, True])
def test_its_lines_about_cut_uploads_are_quiet(tmp_path: Path, quiet: bool) -> None:
    errors = errors_of_cut_uploads(tmp_path, "/body", {"quiet_logs": quiet})
    assert errors == ([] if quiet else ["ConnectionResetError", "NoMoreData"])


def test_its_lines_about_an_upstream_are_not(tmp_path: Path) -> None:
    errors = errors_of_cut_uploads(tmp_path, "/upstream", {})
    assert errors == ["ConnectionResetError"] * 2
