"""The plain WSGI app on httpd with mod_wsgi.

Run as a program: ``python -m tests.harness.apps.serve_mod_wsgi 8000``, with more arguments for
``mod_wsgi-express start-server``. ``TEST_MOD_WSGI`` is a folder with the package ``mod_wsgi``;
next to it the configuration is written. ``TEST_APP`` names another module of this package.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path


def _unprivileged() -> list[str]:
    """The start of a command which httpd does not refuse.

    Neither httpd nor mod_wsgi runs an application as root. So another user does, who may still
    read what only root can: the checkout and the folder of the tests.
    """
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return [
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--",
    ]


def main(port: str, *arguments: str) -> None:
    """Become httpd, in the foreground."""
    site = Path(os.environ["TEST_MOD_WSGI"])
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(site), *([path] if path else [])))
    command = [
        *_unprivileged(),
        sys.executable,
        str(site / "bin" / "mod_wsgi-express"),
        "start-server",
        "--application-type=module",
        f"tests.harness.apps.{os.environ.get('TEST_APP', 'raw_wsgi')}",
        "--callable-object=app",
        f"--working-directory={Path.cwd()}",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--server-root={site.parent / port}",
        "--locale=C.UTF-8",
        "--log-to-terminal",
        "--threads=4",
        # The application's 413, and not httpd's.
        "--limit-request-body=0",
        "--chunked-request",
        *arguments,
    ]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
