"""Django with its protection of forms, as WSGI or, with ``TEST_INTERFACE=asgi``, as ASGI."""

from __future__ import annotations

import importlib
import os
from typing import Any

from tests.harness import tap
from tests.harness.apps import routes


def _made() -> Any:
    load = importlib.import_module
    response: Any = load("django.http").HttpResponse
    path: Any = load("django.urls").path

    def form(request: Any) -> Any:
        return response("ok")

    settings: Any = load("django.conf").settings
    settings.configure(
        ROOT_URLCONF=(path("", form), path("form", form)),
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        # The tests' own handlers stay.
        LOGGING_CONFIG=None,
    )
    load("django").setup()
    tap.tap_logging()
    interface = os.environ.get("TEST_INTERFACE", "wsgi")
    handler: Any = load(f"django.core.handlers.{interface}")
    bare = handler.ASGIHandler() if interface == "asgi" else handler.WSGIHandler()
    if not routes.wrapped():
        return bare
    middleware: Any = load(f"cleanclose.{interface}").CleanCloseMiddleware
    return middleware(bare, outlets=tap.outlets())


app: Any = _made()
