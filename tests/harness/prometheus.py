"""A real Prometheus, and what it says."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.harness.processes import ServerProcess, find_program

__all__ = ["PROGRAM", "PROMTOOL", "Prometheus"]

PROGRAM: Final = "prometheus"
PROMTOOL: Final = "promtool"
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


class Prometheus:
    """A Prometheus with a database of its own that scrapes one target, as a context manager.

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
        folder = Path(self._folder.name)
        configuration = folder / "prometheus.yml"
        configuration.write_text(
            _CONFIGURATION.format(
                interval=interval, rules=json.dumps(str(rules)) if rules else "", job=job, port=port
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
        self.server.start()
        deadline = time.monotonic() + 30
        # It answers 503 before it has loaded its database.
        while not self._is_ready():
            assert time.monotonic() < deadline, self.server.log_text()
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.stop()
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
            with urllib.request.urlopen(url, timeout=30) as answer:  # pyright: ignore[reportUnknownVariableType]
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

    def wait_for(self, expression: str, value: float, seconds: float = 30) -> None:
        """Wait until an expression has a value.

        Raises:
            AssertionError: It has another one at the end of this time.
        """
        deadline = time.monotonic() + seconds
        while (found := self.value(expression)) != value:
            assert time.monotonic() < deadline, (
                f"{expression} is {found}, not {value}, of {self.query(_COUNTED)}"
            )
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.server.url}/-/ready", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False
