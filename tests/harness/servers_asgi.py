"""The other ASGI servers, with the Starlette app, as rows for tests that ask the whole field.

``loses`` says, as in `tests.harness.stacks`, when the bare server loses an early response to a
client which gives up at the first send error.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.harness.stacks import Stack

if TYPE_CHECKING:
    from tests.harness.tls import Certificate

__all__ = [
    "DAPHNE",
    "GRANIAN",
    "GUNICORN",
    "HTTP_2_ROWS",
    "HYPERCORN",
    "HYPERCORN_TRIO",
    "OTHERS",
    "ROWS",
    "TLS_ROWS",
    "UVICORN",
    "UVICORN_H11",
    "raw",
    "with_certificate",
]

_APP: Final = "tests.harness.apps.starlette_app:app"
_PYTHON: Final = (sys.executable, "-m")
_HYPERCORN: Final = (
    *_PYTHON,
    "hypercorn",
    # In the process that is forked: a worker would be a Python of its own.
    "--workers=0",
    "--bind=127.0.0.1:{port}",
    "--graceful-timeout=1",
    # It waits for so long behind the end of a client's sending, too.
    "--keep-alive=1",
)
_GRANIAN: Final = (
    *_PYTHON,
    "granian",
    "--interface=asgi",
    "--host=127.0.0.1",
    "--port={port}",
    "--workers-kill-timeout=2",
)
_GUNICORN: Final = (
    *_PYTHON,
    "gunicorn",
    "--bind=127.0.0.1:{port}",
    "--workers=1",
    "--timeout=120",
    "--graceful-timeout=2",
    "--keep-alive=2",
    "--no-control-socket",
)
_UVICORN: Final = (
    *_PYTHON,
    "uvicorn",
    "--host=127.0.0.1",
    "--port={port}",
    "--no-access-log",
    "--timeout-graceful-shutdown=2",
)


UVICORN: Final = Stack(
    name="asgi-uvicorn",
    interface="asgi",
    command=(*_UVICORN, "--http=httptools", _APP),
    loses="on_close",
    spared=frozenset({"streaming-close"}),
)
UVICORN_H11: Final = Stack(
    name="asgi-uvicorn-h11",
    interface="asgi",
    command=(*_UVICORN, "--http=h11", "--loop=asyncio", _APP),
    loses="on_close",
    spared=frozenset({"streaming-close"}),
)
UVICORN_UNDER_GUNICORN: Final = Stack(
    name="asgi-uvicorn-gunicorn",
    interface="asgi",
    command=(*_GUNICORN, "--worker-class=uvicorn.workers.UvicornWorker", _APP),
    loses="on_close",
    spared=frozenset({"streaming-close"}),
)
HYPERCORN: Final = Stack(
    name="asgi-hypercorn",
    interface="asgi",
    command=(*_HYPERCORN, _APP),
    loses="always",
)
HYPERCORN_TRIO: Final = Stack(
    name="asgi-hypercorn-trio",
    interface="asgi",
    command=(*_HYPERCORN, "--worker-class=trio", _APP),
    loses="always",
)
DAPHNE: Final = Stack(
    name="asgi-daphne",
    interface="asgi",
    command=(*_PYTHON, "daphne", "-b", "127.0.0.1", "-p", "{port}", _APP),
    loses="never",
)
GRANIAN: Final = Stack(
    name="asgi-granian",
    interface="asgi",
    command=(*_GRANIAN, _APP),
    loses="always",
)
GUNICORN: Final = Stack(
    name="asgi-gunicorn",
    interface="asgi",
    command=(*_GUNICORN, "--worker-class=asgi", _APP),
    loses="always",
)

ROWS: Final = (
    UVICORN,
    UVICORN_H11,
    UVICORN_UNDER_GUNICORN,
    HYPERCORN,
    HYPERCORN_TRIO,
    DAPHNE,
    GRANIAN,
    GUNICORN,
)
"""Every ASGI server, over HTTP/1.1 without TLS."""

TLS_ROWS: Final = (UVICORN, HYPERCORN, GRANIAN)
"""Those that are asked over TLS as well, each with what `with_certificate` adds."""


def raw(row: Stack) -> Stack:
    """The same server with the app that has no framework."""
    command = tuple(each.replace("starlette_app", "raw_asgi") for each in row.command)
    return replace(row, name=f"{row.name}-raw", command=command)


def with_certificate(row: Stack, signed: Certificate) -> Stack:
    """The same server over TLS.

    Args:
        row: One of `TLS_ROWS`, or gunicorn's worker.
        signed: Its certificate.
    """
    key, chain = {
        UVICORN.name: ("--ssl-keyfile", "--ssl-certfile"),
        UVICORN_H11.name: ("--ssl-keyfile", "--ssl-certfile"),
        GRANIAN.name: ("--ssl-keyfile", "--ssl-certificate"),
    }.get(row.name, ("--keyfile", "--certfile"))
    app = row.command[-1]
    options = (f"{key}={signed.key}", f"{chain}={signed.chain}")
    return replace(
        row, name=f"{row.name}-tls", command=(*row.command[:-1], *options, app), tls=True
    )


GUNICORN_HTTP_2: Final = replace(
    GUNICORN,
    name="asgi-gunicorn-http2",
    command=(*GUNICORN.command[:-1], "--http-protocols=h2,h1", _APP),
)

HTTP_2_ROWS: Final = (HYPERCORN, GRANIAN, GUNICORN_HTTP_2)
"""Those that speak HTTP/2 over TLS, with what `with_certificate` adds."""

OTHERS: Final = tuple(row for row in ROWS if row not in (UVICORN, UVICORN_H11))
"""Those that have no tests of their own."""
