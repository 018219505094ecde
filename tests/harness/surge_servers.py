"""The servers that clients leave for a reason: one of each interface, with the same routes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["COMMANDS"]

APPS: Final = "tests.harness.apps"
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn": (
        *(sys.executable, "-m", "uvicorn", "--host=127.0.0.1", "--port={port}"),
        *("--no-access-log", "--timeout-graceful-shutdown=1", f"{APPS}.surge_asgi:app"),
    ),
    "gunicorn": (
        *(sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1"),
        *("--worker-class=gthread", "--threads=40", "--keep-alive=30", "--timeout=120"),
        *("--graceful-timeout=2", "--no-control-socket", f"{APPS}.surge_wsgi:app"),
    ),
    "tornado": (sys.executable, "-m", f"{APPS}.surge_tornado", "{port}"),
}
