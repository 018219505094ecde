"""The console script `cleanclose`: it ends with one of three statuses, and never by a traceback.

click and rich come with the extra ``doctor``. Without it the script is installed all the same,
so this module imports neither before it knows that they are there.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

_NEEDED = frozenset({"click", "rich"})
_TROUBLE = 2
"""`cleanclose.doctor.output.EXIT_TROUBLE`, which cannot be imported without click."""


def main() -> NoReturn:
    """Run the command line, and end the process.

    Exit statuses: 0 nothing was found, 1 something was found, 2 it could not be found out, also
    when it was stopped (SIGINT, SIGTERM, SIGHUP) before it was done.
    """
    try:
        from cleanclose.doctor.group import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        print(
            f"The command line needs {error.name}, which comes with an extra: "
            "pip install 'cleanclose[doctor]'.",
            file=sys.stderr,
        )
        sys.exit(_TROUBLE)
    # Whatever stops us unwinds the stack: no server and no trace is left behind.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    sys.exit(run(sys.argv[1:]))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
