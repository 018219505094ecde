"""Let pyright say how complete the types of the public names are: ``make verify-types``.

pyright looks for a ``py.typed`` beside the first part of a name. `cleanclose` is a namespace
over two roots and has none there, so both roots are joined in a copy that is a regular package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.harness.paths import ROOT

_ROOTS: Final = (ROOT / "middleware" / "cleanclose", ROOT / "integrations" / "cleanclose")


def main() -> int:
    """Print each name without a complete type; 1 if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        said = _asked(_joined(Path(folder)))
    symbols: list[dict[str, Any]] = said["symbols"]
    incomplete = [
        symbol
        for symbol in symbols
        if not symbol["isTypeKnown"] or (symbol["isTypeAmbiguous"] and symbol["referenceCount"])
    ]
    for symbol in incomplete:
        print(symbol["name"])
        for diagnostic in symbol["diagnostics"]:
            print(f"  {diagnostic['message']}")
    score: float = said["completenessScore"]
    counted = sum(said["exportedSymbolCounts"].values())
    print(f"{score:.2%} of {counted} public names have a complete type")
    return 1 if score < 1 or not counted else 0


def _joined(folder: Path) -> Path:
    package = folder / "cleanclose"
    for root in _ROOTS:
        shutil.copytree(
            root, package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    (package / "__init__.py").touch()
    (package / "py.typed").touch()
    return folder


def _asked(folder: Path) -> dict[str, Any]:
    asked = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyright",
            f"--pythonpath={sys.executable}",
            "--verifytypes=cleanclose",
            "--ignoreexternal",
            "--outputjson",
        ],
        # It asks Python for its search path; a regular package before the namespace's roots wins.
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = json.loads(asked.stdout)
    found: dict[str, Any] = said["typeCompleteness"]
    return found


if __name__ == "__main__":
    sys.exit(main())
