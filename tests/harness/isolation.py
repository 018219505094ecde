"""Programs of the tests start alike, however the tests were started themselves.

A child inherits ignored signals, the signal mask, the umask and the environment. A shell's
background job and nohup ignore SIGINT or SIGHUP, CI sets proxies, a developer PYTHONWARNINGS: none
of that is for the servers and clients under test.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from typing import Final

__all__ = ["as_started", "shed_what_was_inherited"]

_OURS: Final = re.compile(r"PYTEST_|COV|CLEANCLOSE_")
_THEIRS: Final = re.compile(
    r"PYTHON|(http|https|ftp|all|no)_proxy$|(HTTP|HTTPS|FTP|ALL|NO)_PROXY$"
    r"|(GUNICORN|UVICORN|HYPERCORN|GRANIAN|FLASK|WERKZEUG|DJANGO|QUART|LITESTAR)_"
    r"|(WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|PORT|SSLKEYLOGFILE|CURL_HOME|NODE_OPTIONS)$"
    r"|(OTEL|SENTRY|PROMETHEUS|RABBITMQ|PG|MYSQL|MARIADB|REDIS|JAVA|JDK_JAVA|TEST)_?"
)
_SHED: Final = "CLEANCLOSE_TESTS_SHED"
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD")


def shed_what_was_inherited() -> None:
    """Leave nothing to the children of this process that its own parent has left to it.

    Takes servers' and interpreters' variables out of the environment, sets the umask to 022,
    unblocks all signals, and puts a handler that does nothing in place of ignored ones: the process
    ignores them as before, and `execve` gives its children the default (execve(2)).
    """
    shed = {name: value for name, value in os.environ.items() if _is_theirs(name)}
    for name in shed:
        del os.environ[name]
    # The workers of pytest-xdist inherit it: they have nothing to shed, and know what was.
    os.environ[_SHED] = json.dumps({**json.loads(os.environ.get(_SHED, "{}")), **shed})
    os.umask(0o022)
    if threading.current_thread() is not threading.main_thread():
        return
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def as_started() -> dict[str, str]:
    """The environment that the tests were started with: for what talks to a package index."""
    shed: dict[str, str] = json.loads(os.environ.get(_SHED, "{}"))
    return {**os.environ, **shed}


def _is_theirs(name: str) -> bool:
    return bool(_THEIRS.match(name)) and not _OURS.match(name) and name != "JAVA_HOME"


def _do_nothing(number: int, frame: object) -> None: ...
