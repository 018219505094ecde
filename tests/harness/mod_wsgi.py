"""mod_wsgi, which no wheel brings: it is compiled against the httpd and the Python of a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.harness.beside import install_beside
from tests.harness.processes import find_program

__all__ = ["VERSION", "build", "require"]

VERSION: Final = "6.1.1"

_SECONDS: Final = 300.0
"""Far above what a build takes: 13 s on two idle cores, and 1 s where pip has kept the wheel."""


def require(require_program: Callable[[str], str]) -> None:
    """Skip where something is missing that compiles it or runs it."""
    for program in ("gcc", "apxs"):
        require_program(program)
    # As everybody but Debian calls it.
    if find_program("httpd") is None:
        require_program("apache2")
    if os.geteuid() == 0:
        require_program("setpriv")


def build(folder: Path) -> Path:
    """The folder with the package in it, which is built by whoever comes first.

    Args:
        folder: One that every process of a test run gives; it may exist.

    Returns:
        What has to be on the path of a Python that is to import it.

    Raises:
        RuntimeError: It could not be built; the message ends with what pip wrote.
    """
    return install_beside((f"mod_wsgi=={VERSION}",), folder / "site", seconds=_SECONDS)
