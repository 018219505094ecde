"""`cleanclose` as a command; ``python -m tests.harness.command`` is the same one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from cleanclose.doctor.main import main
from tests.harness import nursery
from tests.harness.paths import ROOT
from tests.harness.waiting import LIMIT

__all__ = ["cleanclose", "cleanclose_bytes"]

_COMMAND = (sys.executable, "-m", nursery.COMMAND)


def cleanclose_bytes(
    *arguments: str | os.PathLike[str],
    stdin: bytes = b"",
    seconds: float = LIMIT,
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, forked from a process that has imported it if that is as real.

    Args:
        *arguments: Its arguments.
        stdin: What it reads.
        seconds: How long it may take.
        more: Variables for its environment.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    command = (*_COMMAND, *(os.fspath(each) for each in arguments))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "80", **(more or {})}
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        streams = (given.fileno(), out.fileno(), err.fileno())
        process = nursery.forked(command, environment, os.fspath(ROOT), streams)
        if process is None:
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=given,
                capture_output=True,
                check=False,
                timeout=seconds,
            )
        try:
            status = process.wait(seconds)
        finally:
            process.terminate()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def cleanclose(
    *arguments: str | os.PathLike[str],
    stdin: bytes = b"",
    seconds: float = LIMIT,
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same, with its output as text."""
    ran = cleanclose_bytes(*arguments, stdin=stdin, seconds=seconds, more=more)
    return subprocess.CompletedProcess(
        ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode()
    )


if __name__ == "__main__":
    main()
