"""The fuzzing's WSGI app under the name that `tests.harness.apps.serve_wsgi` looks for."""

from __future__ import annotations

from tests.harness.apps.fuzzed import wsgi_app as app

__all__ = ["app"]
