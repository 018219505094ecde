"""Take the picture of ``cleanclose doctor``: ``python -m docs.doctor_picture``.

It is of a real run: the example service on gunicorn, without its own middleware. Where tracefs is
mounted and root runs it, the kernel's words are in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent


def main() -> None:
    """Take it."""
    subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-c",
            "from cleanclose.doctor.main import main; main()",
            f"--picture={FOLDER / 'doctor.svg'}",
            "doctor",
            "example_apps.uploads_flask:make_app()",
            "--path=/files",
            "--method=PUT",
            "--fail-on=never",
        ],
        cwd=ROOT,
        env={**os.environ, "CLEANCLOSE": "0"},
        check=True,
    )


if __name__ == "__main__":
    main()
