"""What a public module imports: its own framework or library, and no other."""

from __future__ import annotations

import re

import pytest

from tests.harness.paths import ROOT
from tests.harness.processes import run_python

pytestmark = pytest.mark.stacks

NEEDS: dict[str, str | None] = {
    "core": None,
    "asgi": "anyio",
    "wsgi": None,
    "tornado": "tornado",
    "linger": None,
    "stop": None,
    "quiet": None,
    "surge": None,
    "testing": None,
    "doctor": None,
    "integrations.gunicorn": "gunicorn",
    "integrations.ids": None,
    "integrations.opentelemetry": "opentelemetry",
    "integrations.prometheus": "prometheus_client",
    "integrations.queue": None,
    "integrations.schemas": None,
    "integrations.sentry": "sentry_sdk",
    "integrations.status": None,
    "integrations.stdlib": None,
    "integrations.structlog": "structlog",
    "integrations.tornado": "tornado",
    "integrations.uvicorn": "uvicorn",
}
"""Each public module, and the one library that it may load."""

OTHERS = {
    "aiohttp",
    "anyio",
    "cheroot",
    "click",
    "django",
    "fastapi",
    "flask",
    "gevent",
    "granian",
    "gunicorn",
    "hypercorn",
    "opentelemetry",
    "prometheus_client",
    "rich",
    "sentry_sdk",
    "starlette",
    "structlog",
    "tornado",
    "trio",
    "twisted",
    "uvicorn",
    "waitress",
    "werkzeug",
}
"""All of these are installed where the tests run, so that their absence proves something."""


def test_every_public_module_has_a_row() -> None:
    packages = {
        path.parent.name
        for root in ("middleware", "integrations")
        for path in (ROOT / root / "cleanclose").glob("*/__init__.py")
    } - {"integrations"}
    outlets = {
        f"integrations.{path.stem}"
        for path in (ROOT / "integrations" / "cleanclose" / "integrations").iterdir()
        if path.stem[0] != "_" and (path.suffix == ".py" or path.is_dir())
    }
    assert set(NEEDS) == packages - {"servers"} | outlets


@pytest.mark.parametrize("module", NEEDS)
def test_a_module_imports_no_library_that_it_does_not_need(module: str) -> None:
    done = run_python(
        f"""
        import sys
        before = set(sys.modules)
        import cleanclose.{module}
        print(*{{name.split(".")[0] for name in set(sys.modules) - before}})
        """
    )
    loaded = set(done.stdout.split())
    needed = NEEDS[module]
    if needed is not None:
        assert needed in loaded
        # What that library loads by itself, where it finds it, is its own.
        alone = run_python(f"import sys, {needed}; print(*sys.modules)").stdout.split()
        loaded -= {name.split(".")[0] for name in alone} | {needed}
    assert not loaded & OTHERS


def test_the_page_of_import_times_has_every_module() -> None:
    page = (ROOT / "docs" / "reference" / "import-time.md").read_text("utf-8")
    rows = re.findall(r"^\| `cleanclose\.([\w.]+)` \| \d+ \| \d+ \| (.+) \|$", page, re.MULTILINE)
    told = {module: None if needs == "nothing" else needs.strip("`") for module, needs in rows}
    assert told == NEEDS
