"""A status page with something on it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final
from wsgiref.util import setup_testing_defaults

from cleanclose.core import (
    Cause,
    DepartureSurge,
)
from cleanclose.integrations.status import StatusPage
from tests.harness.made import FACTS

NASTY: Final = "<script>document.title='!'</script>&\"'"


SURGE: Final = DepartureSurge(
    facts=dataclasses.replace(FACTS, client=None, route=NASTY),
    age_ms=1.0,
    cause=Cause.ONE_CLIENT,
    count=38,
    of=40,
    share=0.95,
    usual_share=0.04,
    seconds=12.0,
    network="192.0.2.0/24",
    likely_cause=NASTY,
)


class Page:
    """A page, on a clock of its own, asked through its WSGI application."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_795_280_000.0
        self.passed = 5_000.0
        self.page = StatusPage(clock=lambda: self.now, monotonic=lambda: self.passed, **options)

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
        self.passed += seconds

    def get(
        self, accept: str = "text/html", method: str = "GET"
    ) -> tuple[str, dict[str, str], str]:
        answers: list[tuple[str, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            answers.append((status, dict(headers)))

        environ: dict[str, Any] = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept}
        setup_testing_defaults(environ)
        body = b"".join(self.page.wsgi(environ, start_response))
        ((status, headers),) = answers
        return status, headers, body.decode()

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.get("application/json")[2])
        return figures
