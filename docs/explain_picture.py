"""Take the picture of ``cleanclose explain``: ``python -m docs.explain_picture``. nginx is needed.

The log is that of a real run, without the middleware: the example service on gunicorn refuses
uploads behind nginx, clients leave, and the service before a language model loses its upstream.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Final

from cleanclose.doctor.output import EXIT_FINDINGS
from cleanclose.testing import Upload, leave, reader
from example_apps.staging import NginxProxy, ServerProcess

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent
MIB: Final = 1024 * 1024
REFUSED: Final = 8
LEFT: Final = 5


def main() -> None:
    """Stage it, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "shop.log"
        log.write_text(_uploads(folder) + _tokens(), "utf-8")
        taken = subprocess.run(  # noqa: S603
            [
                sys.executable,
                "-c",
                "from cleanclose.doctor.main import main; main()",
                f"--picture={FOLDER / 'explain.svg'}",
                "explain",
                log.name,
            ],
            cwd=folder,
            # It has its own folder, and would not find the checkout otherwise.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        if taken.returncode != EXIT_FINDINGS:
            raise SystemExit(f"it ended with {taken.returncode}")


def _uploads(folder: str) -> str:
    """What nginx and gunicorn write when uploads are refused, and when clients leave."""
    gunicorn = ServerProcess(
        (
            sys.executable,
            "-m",
            "gunicorn",
            "--bind=127.0.0.1:{port}",
            "--no-control-socket",
            "--log-level=debug",
            "example_apps.uploads_flask:make_app()",
        ),
        cwd=ROOT,
        env={"CLEANCLOSE": "0", "UPLOADS_FOLDER": folder},
        ready_path="/healthz",
        name="gunicorn",
    )
    with gunicorn, NginxProxy(gunicorn.port, request_buffering=False) as nginx:
        for _ in range(REFUSED):
            reader(Upload(port=nginx.port, path="/files", body_size=16 * MIB))
        return nginx.error_log() + gunicorn.log_text()


def _tokens() -> str:
    """What nginx and uvicorn write when clients leave, and when an upstream dies."""
    with (
        _uvicorn("upstream") as upstream,
        _uvicorn("app", LLM_MODE="bare", LLM_UPSTREAM=upstream.url) as service,
        NginxProxy(service.port) as nginx,
    ):
        request = Upload(port=nginx.port, path="/remote", method="GET", body_size=0)
        for _ in range(LEFT):
            # Those before are at work for somebody who has left.
            leave(request, when=lambda: _begun(service))
        waiting = [threading.Thread(target=reader, args=(request,)) for _ in range(LEFT)]
        for each in waiting:
            each.start()
        _begun(service, LEFT)
        os.killpg(upstream.pid, signal.SIGKILL)
        for each in waiting:
            each.join()
        return nginx.error_log() + service.log_text()


def _begun(service: ServerProcess, at_least: int = 1) -> None:
    """Wait until so many requests are being worked on."""
    while True:
        with urllib.request.urlopen(f"{service.url}/usage") as page:  # noqa: S310
            if json.load(page)["active"] >= at_least:
                return
        time.sleep(0.02)


def _uvicorn(app: str, **env: str) -> ServerProcess:
    return ServerProcess(
        (sys.executable, "-m", "uvicorn", "--port={port}", f"example_apps.llm:{app}"),
        cwd=ROOT,
        env=env,
        ready_path="/usage",
        name="uvicorn",
    )


if __name__ == "__main__":
    main()
