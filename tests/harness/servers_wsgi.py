"""The WSGI servers besides gunicorn's sync and gthread, each with the plain app.

What each of them does bare stands on its page in ``docs/servers``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final, Literal

from tests.harness.stacks import Stack, gunicorn

__all__ = ["HTTPD", "MOD_WSGI_ROWS", "ROWS", "row"]


def _python(
    name: str,
    server: str,
    *,
    loses: Literal["always", "on_close", "never"],
    keeps_alive: bool,
    concurrent: bool = True,
    chunked: bool = True,
    **env: str,
) -> Stack:
    return Stack(
        name=name,
        interface="wsgi",
        command=(sys.executable, "-m", "tests.harness.apps.serve_wsgi", server, "{port}"),
        env=env,
        loses=loses,
        keeps_alive=keeps_alive,
        concurrent=concurrent,
        chunked=chunked,
    )


_UWSGI: Final = (
    sys.executable,
    "-c",
    "import pyuwsgi; pyuwsgi.run()",
    "--module=tests.harness.apps.raw_wsgi:app",
    "--master",
    "--enable-threads",
    "--threads=4",
    "--need-app",
    "--die-on-term",
    "--disable-logging",
)

ROWS: Final[tuple[Stack, ...]] = (
    replace(
        gunicorn("gunicorn-gevent", "raw_wsgi", "--worker-class=gevent", threads=True),
        # It drains what has arrived by the time of its answer, and on a connection that it keeps
        # more.
        loses="on_close",
    ),
    _python("waitress", "waitress", loses="never", keeps_alive=True),
    _python("cheroot", "cheroot", loses="always", keeps_alive=True),
    _python("gevent", "gevent", loses="never", keeps_alive=True),
    _python("gevent-patched", "gevent-patched", loses="never", keeps_alive=True),
    # It says nothing of wsgi.input_terminated, so that an application takes it for no body.
    _python("eventlet", "eventlet", loses="on_close", keeps_alive=True, chunked=False),
    _python("werkzeug", "werkzeug", loses="never", keeps_alive=False),
    _python(
        "werkzeug-unthreaded",
        "werkzeug-unthreaded",
        loses="never",
        keeps_alive=False,
        concurrent=False,
    ),
    _python(
        "wsgiref", "wsgiref", loses="always", keeps_alive=False, concurrent=False, chunked=False
    ),
    _python("wsgiref-http11", "wsgiref-http11", loses="always", keeps_alive=False, chunked=False),
    Stack(
        name="uwsgi",
        interface="wsgi",
        command=(*_UWSGI, "--http-socket=127.0.0.1:{port}"),
        loses="always",
        keeps_alive=False,
        chunked=False,
    ),
    Stack(
        name="uwsgi-router",
        interface="wsgi",
        command=(*_UWSGI, "--http=127.0.0.1:{port}"),
        loses="always",
        keeps_alive=False,
        chunked=False,
    ),
    Stack(
        name="granian-wsgi",
        interface="wsgi",
        command=(
            sys.executable,
            "-m",
            "granian",
            "--interface=wsgi",
            "--host=127.0.0.1",
            "--port={port}",
            "--workers=1",
            "--blocking-threads=4",
            "tests.harness.apps.raw_wsgi:app",
        ),
        loses="always",
    ),
)
"""Every one of them, as a table like `tests.harness.stacks.SERVERS`."""

_MOD_WSGI: Final = Stack(
    name="mod_wsgi",
    interface="wsgi",
    command=(sys.executable, "-m", "tests.harness.apps.serve_mod_wsgi", "{port}"),
    loses="never",
)

MOD_WSGI_ROWS: Final = (
    _MOD_WSGI,
    replace(_MOD_WSGI, name="mod_wsgi-embedded", command=(*_MOD_WSGI.command, "--embedded-mode")),
)
"""httpd with mod_wsgi, in daemon mode and in embedded mode.

Each needs ``TEST_MOD_WSGI`` in its environment, a folder that `tests.harness.mod_wsgi` builds.
"""


def row(name: str) -> Stack:
    """The row with this name."""
    return next(candidate for candidate in ROWS if candidate.name == name)


HTTPD: Final = frozenset(stack.name for stack in MOD_WSGI_ROWS)
"""Read on by themselves; when they let go of a client, httpd's own time-outs say."""
