"""A real Prometheus, and what it says."""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.harness.asking import get
from tests.harness.processes import ServerProcess, find_program
from tests.harness.waiting import LIMIT, until

__all__ = ["PROGRAM", "PROMTOOL", "Prometheus"]

PROGRAM: Final = "prometheus"
PROMTOOL: Final = "promtool"
_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
_COUNTED: Final = '{__name__=~"cleanclose_.*_total"} > 0'

_CONFIGURATION: Final = """
global:
  scrape_interval: {interval}
  evaluation_interval: {interval}
rule_files: [{rules}]
scrape_configs:
  - job_name: {job}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class _Patient(http.server.BaseHTTPRequestHandler):
    """Fetches what is asked for to its end, whoever has hung up meanwhile."""

    port: int

    def do_GET(self) -> None:
        status, body = get(self.port, self.path)
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", _EXPOSITION)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


class Prometheus:
    """A Prometheus with a database of its own that scrapes one target, as a context manager.

    It gives up a scrape after its interval, and so would depart. Somebody in between does not: the
    target's counters know of nobody but its clients.

    Args:
        port: The target's port.
        rules: A file of rules to evaluate.
        interval: How often to scrape and to evaluate.
        job: The target's job.
    """

    def __init__(
        self, port: int, *, rules: Path | None = None, interval: str = "1s", job: str = "metered"
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="cleanclose-prometheus-", ignore_cleanup_errors=True
        )
        handler = type("_PatientWithOne", (_Patient,), {"port": port})
        self._between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        folder = Path(self._folder.name)
        configuration = folder / "prometheus.yml"
        configuration.write_text(
            _CONFIGURATION.format(
                interval=interval,
                rules=json.dumps(str(rules)) if rules else "",
                job=job,
                port=self._between.server_port,
            )
        )
        self.server = ServerProcess(
            (
                find_program(PROGRAM) or PROGRAM,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ),
            ready_path="/-/ready",
            name=PROGRAM,
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._between.serve_forever, daemon=True).start()
        self.server.start()
        # It answers 503 before it has loaded its database.
        until(self._is_ready, self.server.log_text)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.stop()
        self._between.shutdown()
        self._between.server_close()
        self._folder.cleanup()

    def get(self, path: str, **parameters: str | float) -> Any:
        """The ``data`` of an answer of its HTTP API.

        Args:
            path: The path below ``/api/v1/``.
            **parameters: The parameters.
        """
        query = urllib.parse.urlencode(parameters)
        url = f"{self.server.url}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT) as answer:  # pyright: ignore[reportUnknownVariableType]
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        return json.loads(body)["data"]

    def query(self, expression: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """What an expression is now: the labels and the value of each series."""
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector", data
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str) -> float | None:
        """The value of an expression that has one; None while there is none."""
        found = self.query(expression)
        return found[0][1] if found else None

    def wait_for(self, expression: str, value: float) -> None:
        """Wait until an expression has a value.

        Raises:
            AssertionError: It has another one.
        """
        until(
            lambda: self.value(expression) == value,
            lambda: f"{expression} is not {value}, of {self.query(_COUNTED)}",
        )

    def wait_for_scrapes(self, number: int) -> None:
        """Wait until it has scraped so many times more."""
        before = self._scrapes()
        until(lambda: self._scrapes() >= before + number, self.server.log_text)

    def _scrapes(self) -> float:
        return self.value("max(count_over_time(up[1h]))") or 0

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.server.url}/-/ready", timeout=LIMIT):
                return True
        except urllib.error.HTTPError:
            return False
