"""The servers of the matrix: the rows of the tests, and what each of them needs."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.harness import servers_asgi, servers_wsgi
from tests.harness.stacks import FRAMEWORKS, SERVERS, Stack, stack
from tests.harness.tls import Certificate

__all__ = ["ALL", "QUICK", "TLS", "certified", "missing", "versions"]

_PLACES: Final = Certificate(Path("{chain}"), Path("{key}"), Path("{authority}"))
_TLS_OPTIONS: Final = ("--certfile={chain}", "--keyfile={key}")


def _over_tls(row: Stack) -> Stack:
    """A WSGI server over TLS: gunicorn by its options, the others by what serves them."""
    if row.name.startswith("gunicorn"):
        command = (*row.command[:-1], *_TLS_OPTIONS, row.command[-1])
        return replace(row, name=f"{row.name}-tls", command=command, tls=True)
    env = {**row.env, "TEST_TLS": "{both}"}
    return replace(row, name=f"{row.name}-tls", env=env, tls=True)


TLS: Final = (
    *(
        servers_asgi.with_certificate(row, _PLACES)
        for row in (
            servers_asgi.UVICORN,
            servers_asgi.UVICORN_H11,
            servers_asgi.HYPERCORN,
            servers_asgi.HYPERCORN_TRIO,
            servers_asgi.GUNICORN,
            servers_asgi.GRANIAN,
        )
    ),
    *(_over_tls(stack(name)) for name in ("gunicorn-sync", "gunicorn-gthread")),
    *(
        _over_tls(servers_wsgi.row(name))
        for name in ("gunicorn-gevent", "cheroot", "gevent", "werkzeug")
    ),
)
"""Those that speak TLS, with places for a certificate: `certified` fills them in."""

ALL: Final = (*SERVERS, *FRAMEWORKS, *servers_asgi.ROWS, *servers_wsgi.ROWS, *TLS)
"""Every row of the tests, and those over TLS."""

_VARIANTS: Final = frozenset(
    {
        # The same server with another application, another loop, or fewer threads.
        *(stack.name for stack in FRAMEWORKS),
        "asgi-uvicorn",
        "asgi-uvicorn-h11",
        "uvicorn-uvloop",
        "gevent-patched",
        "werkzeug-unthreaded",
        # The same over TLS.
        *(stack.name for stack in TLS),
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


def certified(stack: Stack, signed: Certificate) -> Stack:
    """A server with its certificate; one without TLS stays as it is.

    Args:
        stack: The row.
        signed: The certificate. A file with key and chain, ``both.pem``, stands beside it.
    """
    if not stack.tls:
        return stack
    places = {
        "{chain}": str(signed.chain),
        "{key}": str(signed.key),
        "{both}": str(signed.key.with_name("both.pem")),
    }

    def filled(text: str) -> str:
        for place, path in places.items():
            text = text.replace(place, path)
        return text

    return replace(
        stack,
        command=tuple(map(filled, stack.command)),
        env={name: filled(value) for name, value in stack.env.items()},
    )


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
    for name in sorted({name for each in stacks for name in _needed(each)}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if any("wsgiref" in each.name for each in stacks):
        found["wsgiref"] = f"Python {platform.python_version()}"
    return found
