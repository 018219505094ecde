"""gunicorn in the versions that people run: each parses a request, and closes, in its own way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.harness.beside import install_beside
from tests.harness.stacks import Stack, gunicorn

__all__ = ["INSTALLED", "OLDER", "install", "of_version"]

OLDER: Final = ("20.1.0", "22.0.0", "23.0.0", "25.3.0", "26.2.0")
"""Versions that are installed beside this environment's."""

INSTALLED: Final = "installed"
"""This environment's own."""

_SECONDS: Final = 120.0
"""Far above what pip takes: 3 s, and 1 s where it has kept the wheel."""

_NEW_OPTIONS: Final = frozenset({"--no-control-socket"})
"""What gunicorn 20 to 24 do not know."""


def install(version: str, folder: Path) -> Path:
    """Install a version beside the environment's own; whoever comes first does it.

    Args:
        version: One of `OLDER`.
        folder: One that every process of a test run gives; it may exist.

    Returns:
        What has to be on the path of a Python that is to import it.

    Raises:
        RuntimeError: It could not be installed; the message ends with what pip wrote.
    """
    # gunicorn 20 imports pkg_resources, which later ones of setuptools do not have.
    more = ("setuptools<81",) if version.startswith("20.") else ()
    return install_beside((f"gunicorn=={version}", *more), folder / version, seconds=_SECONDS)


def of_version(version: str, app: str, worker: str, folder: Path) -> Stack:
    """A gunicorn of this version, with one of the apps.

    Args:
        version: One of `OLDER`, or `INSTALLED`.
        app: The module of ``tests.harness.apps``.
        worker: ``gthread`` or ``gevent``.
        folder: Where older versions are installed (`install`).
    """
    arguments = ["--keep-alive=30", f"--worker-class={worker}"]
    if worker == "gthread":
        arguments.append("--threads=24")
    stack = gunicorn(f"gunicorn-{version}-{worker}-{app}", app, *arguments, threads=True)
    if version == INSTALLED:
        return stack
    path = os.pathsep.join((str(install(version, folder)), os.environ.get("PYTHONPATH", "")))
    return replace(
        stack,
        command=tuple(part for part in stack.command if part not in _NEW_OPTIONS),
        env={**stack.env, "PYTHONPATH": path.rstrip(os.pathsep)},
    )
