"""The tutorial's files do on a real gunicorn what the tutorial says."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess
from tests.harness.waiting import until

FILE = re.compile(
    r"<!-- run by tests/tools/test_tutorial\.py: (.+?) -->\n```python\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def files() -> dict[str, str]:
    page = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    return dict(FILE.findall(page))


def served(folder: Path, app: str) -> ServerProcess:
    (folder / "app.py").write_text(files()[app], "utf-8")
    return ServerProcess(
        [sys.executable, "-m", "gunicorn", "app:app", "--bind=127.0.0.1:{port}"],
        cwd=folder,
        ready_path="/",
    )


def said_by(client: str, server: ServerProcess, folder: Path) -> str:
    """What a client of the tutorial prints, which has the port of gunicorn's default in it."""
    text = files()[client]
    assert text.count("8000") == 1
    (folder / client).write_text(text.replace("8000", str(server.port)), "utf-8")
    done = subprocess.run(
        [sys.executable, client],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bare_the_answer_is_lost(tmp_path: Path) -> None:
    with served(tmp_path, "app.py, bare") as server:
        assert said_by("upload.py", server, tmp_path).startswith("no answer: ")


def test_the_line_saves_it_and_tells_who_left(tmp_path: Path) -> None:
    with served(tmp_path, "app.py, wrapped") as server:
        assert said_by("upload.py", server, tmp_path) == "413 too large"
        until(lambda: "outcome='delivered'" in server.log_text(), server.log_text)
        assert said_by("leave.py", server, tmp_path) == ""
        until(lambda: "event='truncated_upload'" in server.log_text(), server.log_text)
        url = f"http://127.0.0.1:{server.port}/counters"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"cleanclose_truncated_uploads_total" in answer.read()
