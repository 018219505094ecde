"""Passes an upstream's response through as it comes: by requests or httpx, as the path says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import requests

from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness import tap
from tests.harness.apps import routes
from tests.harness.proxying import URL


def with_requests(url: str) -> Iterator[bytes]:
    with requests.get(url, stream=True, timeout=30) as upstream:
        yield from upstream.iter_content(None)


def with_httpx(url: str) -> Iterator[bytes]:
    with httpx.stream("GET", url, trust_env=False, timeout=30) as upstream:
        yield from upstream.iter_raw()


def bare(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    match environ["PATH_INFO"]:
        case "/pass/requests":
            return with_requests(os.environ[URL])
        case "/pass/httpx":
            return with_httpx(os.environ[URL])
        case _:
            return [b"ok"]


tap.tap_logging()
app: Any = CleanCloseMiddleware(bare, outlets=tap.outlets()) if routes.wrapped() else bare
