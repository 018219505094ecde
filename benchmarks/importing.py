"""What an import of each public module costs: ``python -m benchmarks.importing``.

Each module is imported in fresh interpreters, and its processor time counts: the lowest of several
runs, because whatever else the machine does can only add to it. Its own share is what it takes when
everything else that it loads is there already.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

NEEDS: Final[Mapping[str, str | None]] = {
    "core": None,
    "asgi": "anyio",
    "wsgi": None,
    "tornado": "tornado",
    "linger": None,
    "loops": "anyio",
    "stop": None,
    "quiet": None,
    "surge": None,
    "testing": None,
    "doctor": None,
    "integrations.gunicorn": "gunicorn",
    "integrations.ids": None,
    "integrations.opentelemetry": "opentelemetry",
    "integrations.prometheus": "prometheus_client",
    "integrations.queue": None,
    "integrations.schemas": None,
    "integrations.sentry": "sentry_sdk",
    "integrations.status": None,
    "integrations.stdlib": None,
    "integrations.structlog": "structlog",
    "integrations.tornado": "tornado",
    "integrations.uvicorn": "uvicorn",
}
"""Each public module, and the one library that it loads."""

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "import-time.md"
_TIMED: Final = """
import contextlib, importlib, sys, time
module, *before = sys.argv[1:]
for name in before:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
began = time.process_time()
importlib.import_module(module)
print(time.process_time() - began, *sys.modules)
"""


class Cost(NamedTuple):
    """The processor time of one import, in milliseconds."""

    everything: float
    """With all that Python had not loaded before."""
    own: float
    """The modules of cleanclose alone."""


def _import(module: str, before: Sequence[str] = ()) -> tuple[float, list[str]]:
    """Import a module in a fresh interpreter.

    Args:
        module: Its name.
        before: Modules to import first, whose time does not count.

    Returns:
        Seconds, and all modules that are there at the end.
    """
    done = subprocess.run(
        [sys.executable, "-c", _TIMED, module, *before], capture_output=True, text=True, check=True
    )
    seconds, *modules = done.stdout.split()
    return float(seconds), modules


def cost(module: str, runs: int) -> Cost:
    """Measure the import of a module.

    Args:
        module: Its name, without ``cleanclose.``.
        runs: How many interpreters to start for each of the two figures.
    """
    name = f"cleanclose.{module}"
    everything = [_import(name) for _ in range(runs)]
    others = [each for each in everything[0][1] if not each.startswith(("cleanclose", "__main__"))]
    own = [_import(name, others) for _ in range(runs)]
    return Cost(min(each for each, _ in everything) * 1000, min(each for each, _ in own) * 1000)


def table(costs: Mapping[str, Cost]) -> str:
    """Make the page's table.

    Args:
        costs: The cost of each module.
    """
    rows = [
        f"| `cleanclose.{module}` | {each.everything:.0f} | {each.own:.0f} |"
        f" {f'`{NEEDS[module]}`' if NEEDS[module] else 'nothing'} |"
        for module, each in costs.items()
    ]
    return "\n".join(("| module | all | own | needs |", "| --- | --- | --- | --- |", *rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.importing", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="of each module")
    parser.add_argument("--docs", action="store_true", help="write the table into the page")
    options = parser.parse_args(arguments)
    text = table({module: cost(module, options.runs) for module in NEEDS})
    print(f"Python {platform.python_version()}, the lowest of {options.runs} runs\n\n{text}")
    if options.docs:
        page = PAGE.read_text("utf-8")
        start = page.index("| module |")
        PAGE.write_text(f"{page[:start]}{text}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
