"""Take the pictures of ``cleanclose kernel``: ``python -m docs.kernel_pictures``, as root on Linux.

Both are of real runs: the example with the tiny backlog, and uploads that the example service on
gunicorn refuses, without the middleware, while the command traces. tracefs has to be mounted.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from cleanclose.doctor import Upload, strict
from example_apps.staging import ServerProcess

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent
MIB: Final = 1024 * 1024
UPLOADS: Final = 3


def main() -> None:
    """Take both."""
    subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-m",
            "example_apps.accept_queue",
            f"--picture={FOLDER / 'kernel.svg'}",
        ],
        cwd=ROOT,
        check=True,
    )
    with tempfile.TemporaryDirectory() as folder, _service(folder) as service:
        _trace(service)


def _service(folder: str) -> ServerProcess:
    return ServerProcess(
        (
            sys.executable,
            "-m",
            "gunicorn",
            "--bind=127.0.0.1:{port}",
            "--no-control-socket",
            "example_apps.uploads_flask:make_app()",
        ),
        cwd=ROOT,
        env={"CLEANCLOSE": "0", "UPLOADS_FOLDER": folder},
        ready_path="/healthz",
        name="gunicorn",
    )


def _trace(service: ServerProcess) -> None:
    command = subprocess.Popen(  # noqa: S603
        [
            sys.executable,
            "-c",
            "from cleanclose.doctor.main import main; main()",
            f"--picture={FOLDER / 'kernel-trace.svg'}",
            "kernel",
            "--trace",
            f"--port={service.port}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    with command:
        assert command.stderr is not None
        first = command.stderr.readline()
        if "Listening" not in first:
            raise SystemExit(first)
        for _ in range(UPLOADS):
            strict(Upload(port=service.port, path="/files", body_size=16 * MIB))
        command.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
