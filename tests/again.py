"""Run the same tests again and again, every second time beside programs that keep all cores busy.

A test that fails once in twenty runs fails somebody every day. ``make test-again`` shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from typing import Final

from tests.harness.paths import ROOT

_BUSY: Final = "while True: pass"
_SAID: Final = re.compile(r"^(?:FAILED|ERROR) .*|^=*\s*(.*\d+ (?:passed|failed|error).*?)\s*=*$")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; 1 if any run was red.

    Args:
        arguments: The command line; behind ``--``, what pytest gets.
    """
    parser = argparse.ArgumentParser(prog="tests.again", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=4, help="loops beside (default: %(default)s)")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest")
    options = parser.parse_args(arguments)
    red = 0
    for number in range(1, options.runs + 1):
        loops = options.busy if number % 2 == 0 else 0
        began = time.monotonic()
        with _busy(loops):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *options.pytest],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        said = [line for line in done.stdout.splitlines() if _SAID.match(line)]
        red += done.returncode != 0
        word = "green" if done.returncode == 0 else f"RED ({done.returncode})"
        seconds = time.monotonic() - began
        print(
            f"run {number}/{options.runs}, {loops} busy loops: {word}, {seconds:.0f} s; "
            f"{said[-1].strip('= ') if said else 'it said nothing'}",
            flush=True,
        )
        if done.returncode:
            print(*(f"  {line}" for line in said[:-1]), sep="\n", flush=True)
            log = ROOT / f"test-again-{number}.log"
            log.write_text(done.stdout)
            print(f"  all of it: {log.name}", flush=True)
    print(f"{options.runs - red} of {options.runs} runs green")
    return 1 if red else 0


@contextlib.contextmanager
def _busy(count: int) -> Generator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            loop = subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY])
            stack.callback(loop.wait)
            stack.callback(loop.kill)
        yield


if __name__ == "__main__":
    sys.exit(main())
