"""Packages that the tests install beside the environment's own: other versions, or no wheels."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["folder_of_run", "install_beside"]


def folder_of_run(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of this test run have in common.

    Args:
        factory: pytest's.
        name: What the folder is to be called.
    """
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


def install_beside(packages: Sequence[str], site: Path, *, seconds: float) -> Path:
    """Install packages into a folder of their own; whoever comes first does it.

    Args:
        packages: What pip is to install, without what it depends on. The first one names it.
        site: The folder. Its parent may exist, and is the same one for every process of a test
            run.
        seconds: How long pip may take.

    Returns:
        The folder: what has to be on the path of a Python that is to import them.

    Raises:
        RuntimeError: They could not be installed; the message ends with what pip wrote.
    """
    site.parent.mkdir(parents=True, exist_ok=True)
    unfinished = site.with_name(f"unfinished-{site.name}")
    with site.with_name(f"lock-{site.name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if site.exists():
            return site
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
                *("--no-deps", "--target", str(unfinished), *packages),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{packages[0]} could not be installed:\n{done.stdout[-4000:]}")
        unfinished.rename(site)
    return site
