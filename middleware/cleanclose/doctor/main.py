"""The console script `cleanclose`: it exits with one of three statuses, and never with a traceback.

click and rich come with the extra ``doctor``. pip installs the script even without that extra, so
this module imports neither before it knows that both are there.
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
    """Run the command line, and exit.

    The statuses: 0 the command found nothing, 1 it found something, 2 it could not do its work, or
    a signal (SIGINT, SIGTERM, SIGHUP) stopped it first.
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
    # Signals unwind the stack too, so that no server and no trace stays behind.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    sys.exit(run(sys.argv[1:]))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
