"""Take the pictures of ``cleanclose doctor``: ``python -m docs.doctor_picture``. nginx is needed.

Both are of real runs, without the example services' own middleware: the one on gunicorn, and the
address of an nginx with the one on Tornado behind it. Where tracefs is mounted and root runs it,
the kernel's words are in the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from cleanclose.doctor.output import EXIT_FINDINGS
from example_apps.staging import NginxProxy, ServerProcess

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent


def main() -> None:
    """Take both."""
    _take("doctor.svg", "example_apps.uploads_flask:make_app()", "--path=/files")
    tornado = ServerProcess(
        (sys.executable, "-m", "example_apps.uploads_tornado", "--port={port}"),
        cwd=ROOT,
        env={"CLEANCLOSE": "0"},
        ready_path="/healthz",
        name="tornado",
    )
    with tornado, NginxProxy(tornado.port, request_buffering=False) as nginx:
        _take("doctor-address.svg", f"{nginx.url}/files")


def _take(picture: str, target: str, *options: str) -> None:
    taken = subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-c",
            "from cleanclose.doctor.main import main; main()",
            f"--picture={FOLDER / picture}",
            "doctor",
            target,
            *options,
            "--method=PUT",
        ],
        cwd=ROOT,
        env={**os.environ, "CLEANCLOSE": "0"},
        check=False,
    )
    # There are findings, or it is not worth a picture.
    if taken.returncode != EXIT_FINDINGS:
        raise SystemExit(f"{target} ended with {taken.returncode}")


if __name__ == "__main__":
    main()
