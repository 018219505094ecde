"""Serve `cleanclose.doctor.application.served` on servers that have no command line.

``python -m cleanclose.doctor.application.serve NAME PORT``
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from cleanclose.servers import ROOMS

__all__ = ["serve"]

_HOST: Final = "127.0.0.1"


def _app() -> Any:
    return importlib.import_module("cleanclose.doctor.application.served").app


def serve(name: str, port: int) -> None:
    """Serve on loopback, until the process ends.

    Args:
        name: The server's name.
        port: The port.
    """
    (program,) = (room.program for room in ROOMS if room.package == name)
    assert program is not None
    assert program.serve is not None
    program.serve(_app, _HOST, port)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
