"""The servers of the matrix: the rows of the tests, and what each of them needs."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import Final

from tests.harness import servers_asgi, servers_wsgi
from tests.harness.stacks import FRAMEWORKS, SERVERS, Stack

__all__ = ["ALL", "QUICK", "missing", "versions"]

ALL: Final = (*SERVERS, *FRAMEWORKS, *servers_asgi.ROWS, *servers_wsgi.ROWS)
"""Every row of the tests."""

_VARIANTS: Final = frozenset(
    {
        # The same server with another application, another loop, or fewer threads.
        *(stack.name for stack in FRAMEWORKS),
        "asgi-uvicorn",
        "asgi-uvicorn-h11",
        "uvicorn-uvloop",
        "gevent-patched",
        "werkzeug-unthreaded",
    }
)

QUICK: Final = tuple(stack for stack in ALL if stack.name not in _VARIANTS)
"""One row for each server and each kind of worker."""

_DISTRIBUTIONS: Final = (
    "cheroot",
    "daphne",
    "eventlet",
    "flask",
    "gevent",
    "granian",
    "gunicorn",
    "h11",
    "httptools",
    "hypercorn",
    "pyuwsgi",
    "starlette",
    "tornado",
    "trio",
    "uvicorn",
    "uvloop",
    "waitress",
    "werkzeug",
)


def _needed(stack: Stack) -> list[str]:
    words = set(re.findall(r"[a-z0-9]+", " ".join((stack.name, *stack.command)).lower()))
    return [name for name in _DISTRIBUTIONS if name in words]


def missing(stack: Stack) -> str | None:
    """Why this server cannot be started here, or None."""
    for name in _needed(stack):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return f"{name} is not installed"
    return None


def versions(stacks: tuple[Stack, ...]) -> dict[str, str]:
    """The versions of everything that these servers are made of."""
    found: dict[str, str] = {}
    for name in sorted({name for stack in stacks for name in _needed(stack)}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if any("wsgiref" in stack.name for stack in stacks):
        found["wsgiref"] = f"Python {platform.python_version()}"
    return found
