"""What the newest servers and frameworks have made of what we use of them: ``make newest``.

Run in an environment with their newest versions, pre-releases too. It prints which versions are
not the pinned ones, and which attributes of the table (`cleanclose.servers.PRIVATE`) are gone, with
what is no more without each; then it runs the tests about them.

An attribute counts as there if the class has it, or if the sources of the class, of one of its
bases or of their modules name it: most are set on the object.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Final

from cleanclose.core.private import Private
from cleanclose.servers import PRIVATE
from tests.harness.paths import ROOT

_TESTS: Final = (
    "tests/unit/servers",
    "tests/promises/left_alone/test_private_attributes.py",
    "tests/promises/left_alone/test_tornado_renamed.py",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what has changed; 1 if an attribute is gone or a test fails.

    Args:
        arguments: What pytest gets besides.
    """
    for name, pinned, installed in _upgrades():
        print(f"{name} {pinned} -> {installed}")
    gone = [row for row in PRIVATE if not _is_there(row)]
    for row in gone:
        print(f"GONE {row.owner}.{row.attribute}: {row.without}")
    print(f"{len(PRIVATE) - len(gone)} of {len(PRIVATE)} private attributes are there", flush=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-m", "not negative_control"),
            # What somebody will take away some day is not what is asked here.
            *("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"),
            *_TESTS,
            *(sys.argv[1:] if arguments is None else arguments),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    print("the tests about them " + ("pass" if done.returncode == 0 else "FAIL"))
    return 1 if gone or done.returncode else 0


def _upgrades() -> Iterator[tuple[str, str, str]]:
    """Packages whose version is not the pinned one: name, pinned, installed."""
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        name, _, pinned = line.partition("==")
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "none"
        if installed not in (pinned, "none"):
            yield name, pinned, installed


def _is_there(row: Private) -> bool:
    owner = _owner(row.owner)
    if owner is None:
        return False
    if hasattr(owner, row.attribute):
        return True
    named = re.compile(rf"\b{re.escape(row.attribute)}\b")
    return any(named.search(source) for source in _sources(owner))


def _owner(path: str) -> object | None:
    """The class or module of that name; None if there is none."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
    try:
        owner: object = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return owner


def _sources(owner: object) -> Iterator[str]:
    modules: list[ModuleType | None] = [owner] if isinstance(owner, ModuleType) else []
    if isinstance(owner, type):
        modules = [inspect.getmodule(each) for each in inspect.getmro(owner)]
    for module in modules:
        try:
            yield inspect.getsource(module) if module is not None else ""
        except (OSError, TypeError):
            # Compiled: the tests have to tell.
            yield ""


if __name__ == "__main__":
    sys.exit(main())
