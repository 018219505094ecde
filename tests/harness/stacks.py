"""The servers that the tests run against, as one table.

``loses`` says when the bare server loses an early response to a client that gives up at the
first send error. It is what makes the negative controls: a scenario that cannot fail without
the middleware proves nothing with it. Measured: uvicorn reads on behind its response on a
connection that it keeps, and cuts the body off on one that it closes; gunicorn and tornado
cut it off always.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tests.harness.apps import routes
from tests.harness.paths import ROOT
from tests.harness.processes import ServerProcess

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

__all__ = ["FRAMEWORKS", "SERVERS", "STACKS", "TORNADO", "Stack", "gunicorn", "stack"]


_UVICORN: Final = (
    sys.executable,
    "-m",
    "uvicorn",
    "--host=127.0.0.1",
    "--port={port}",
    "--no-access-log",
    "--timeout-graceful-shutdown=2",
)
_GUNICORN: Final = (
    sys.executable,
    "-m",
    "gunicorn",
    "--bind=127.0.0.1:{port}",
    "--workers=1",
    # Above everything that a test waits for: a worker that is killed for being slow would
    # look like one that lost a response.
    "--timeout=120",
    "--graceful-timeout=2",
    "--no-control-socket",
)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One server with one app on it."""

    name: str
    interface: Literal["asgi", "wsgi", "tornado"]
    command: tuple[str, ...]
    loses: Literal["always", "on_close", "never"]
    spared: frozenset[str] = frozenset()
    """Scenarios which it delivers all the same."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    keeps_alive: bool = True
    """Whether the server ever serves a second request on a connection."""
    concurrent: bool = True
    """Whether it serves a second connection while the first one is busy."""
    chunked: bool = True
    """Whether the application gets to see bodies without a Content-Length."""
    tls: bool = False
    """Whether it speaks TLS, so that only its port shows that it is ready."""

    def __str__(self) -> str:
        return self.name

    def process(
        self,
        *,
        wrapped: bool,
        settings: SettingsOptions | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """The server, not yet started."""
        return ServerProcess(
            self.command,
            env={
                **self.env,
                **(env or {}),
                "CLEANCLOSE": "1" if wrapped else "0",
                "CLEANCLOSE_SETTINGS": json.dumps(settings or {}),
            },
            cwd=ROOT,
            ready_path=None if self.tls else routes.INDEX,
            name=f"{self.name}-{'wrapped' if wrapped else 'bare'}",
        )


def _uvicorn(name: str, app: str, loop: str, http: str, **env: str) -> Stack:
    return Stack(
        name=name,
        interface="asgi",
        command=(*_UVICORN, f"--loop={loop}", f"--http={http}", f"tests.harness.apps.{app}:app"),
        env=env,
        loses="on_close",
        # While a StreamingResponse streams, Starlette listens for a disconnect, and so reads the
        # body without wanting to.
        spared=frozenset({"streaming-close"} if app == "starlette_app" else ()),
    )


def gunicorn(name: str, app: str, *arguments: str, threads: bool) -> Stack:
    """A gunicorn with one of the apps, and more arguments."""
    return Stack(
        name=name,
        interface="wsgi",
        command=(*_GUNICORN, *arguments, f"tests.harness.apps.{app}:app"),
        keeps_alive=threads,
        concurrent=threads,
        loses="always",
    )


TORNADO: Final = Stack(
    name="tornado",
    interface="tornado",
    command=(sys.executable, "-m", "tests.harness.apps.tornado_app", "{port}"),
    loses="always",
)

SERVERS: Final = (
    _uvicorn("uvicorn-h11", "raw_asgi", "asyncio", "h11"),
    _uvicorn("uvicorn-httptools", "raw_asgi", "asyncio", "httptools"),
    _uvicorn("uvicorn-uvloop", "raw_asgi", "uvloop", "httptools"),
    gunicorn("gunicorn-sync", "raw_wsgi", "--worker-class=sync", threads=False),
    gunicorn(
        "gunicorn-gthread",
        "raw_wsgi",
        "--worker-class=gthread",
        "--threads=4",
        "--keep-alive=30",
        threads=True,
    ),
    TORNADO,
)
"""Every server that the middleware is promised to work on, with a plain app."""

FRAMEWORKS: Final = (
    _uvicorn("starlette", "starlette_app", "uvloop", "httptools"),
    _uvicorn("starlette-base-http", "starlette_app", "asyncio", "h11", TEST_BASE_HTTP="1"),
    gunicorn(
        "flask",
        "flask_app",
        "--worker-class=gthread",
        "--threads=4",
        "--keep-alive=30",
        threads=True,
    ),
)
"""The same with frameworks between the server and the routes."""

STACKS: Final = (*SERVERS, *FRAMEWORKS)


def stack(name: str) -> Stack:
    """The stack with this name."""
    return next(candidate for candidate in STACKS if candidate.name == name)
