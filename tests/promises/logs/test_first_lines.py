"""The lines of docs/logging.md that turn events on: they print on plain uvicorn and gunicorn."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from cleanclose.testing import Upload, strict
from tests.harness import waiting
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess

PAGE = (ROOT / "docs" / "logging.md").read_text("utf-8")
MARK = "<!-- run by tests/promises/logs/test_first_lines.py -->\n```python\n"
LINES = PAGE.partition(MARK)[2].partition("\n```")[0]

APPS = {
    "uvicorn": """
        from cleanclose.asgi import CleanCloseMiddleware

        async def refuse(scope, receive, send):
            if scope["type"] == "http":
                length = [(b"content-length", b"3")]
                await send({"type": "http.response.start", "status": 413, "headers": length})
                await send({"type": "http.response.body", "body": b"no\\n"})

        app = CleanCloseMiddleware(refuse)
        """,
    "gunicorn": """
        from cleanclose.wsgi import CleanCloseMiddleware

        def refuse(environ, start_response):
            start_response("413 Content Too Large", [("Content-Length", "3")])
            return [b"no\\n"]

        app = CleanCloseMiddleware(refuse)
        """,
}
COMMANDS = {
    "uvicorn": ("uvicorn", "--lifespan", "off", "--port", "{port}", "app:app"),
    "gunicorn": ("gunicorn", "--bind", "127.0.0.1:{port}", "app:app"),
}


def refuse_one_upload(server: str, lines: str, folder: Path) -> ServerProcess:
    (folder / "app.py").write_text(lines + textwrap.dedent(APPS[server]), "utf-8")
    command = (sys.executable, "-m", *COMMANDS[server])
    return ServerProcess(command, cwd=folder, ready_path="/", env={"PYTHONPATH": str(folder)})


@pytest.mark.parametrize("server", APPS)
def test_the_lines_print_each_event(server: str, tmp_path: Path) -> None:
    assert LINES
    with refuse_one_upload(server, LINES, tmp_path) as process:
        assert strict(Upload(port=process.port, body_size=8 << 20)).status == 413
        waiting.until(
            lambda: process.log_text().count("event='upload_drained'") == 1, process.log_text
        )


@pytest.mark.negative_control
@pytest.mark.parametrize("server", APPS)
def test_the_control_a_level_alone_prints_nothing(server: str, tmp_path: Path) -> None:
    without_handler = "\n".join(line for line in LINES.splitlines() if "addHandler" not in line)
    with refuse_one_upload(server, without_handler, tmp_path) as process:
        assert strict(Upload(port=process.port, body_size=8 << 20)).status == 413
    assert "upload_drained" not in process.log_text()
