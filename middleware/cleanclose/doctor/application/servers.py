"""The servers that the doctor can start, and how."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cleanclose.doctor.application.target import Interface

__all__ = ["NAMES", "SERVERS", "Server", "pick"]

_APP: Final = "cleanclose.doctor.application.served:app"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One server.

    Args:
        name: What the user calls it.
        interfaces: What it serves.
        distribution: What has to be installed; None for the standard library's.
        command: Makes the arguments behind the interpreter, from the port, the interface and the
            user's own options.
        takes_options: Whether it has options of its own to pass on.
        runs_lifespan: Whether it runs an ASGI application's lifespan.
        hands_out_chunks: Whether a WSGI application gets bodies without a Content-Length.
    """

    name: str
    interfaces: frozenset[Interface]
    distribution: str | None
    command: Callable[[int, Interface, Sequence[str]], list[str]]
    takes_options: bool = True
    runs_lifespan: bool = True
    hands_out_chunks: bool = True

    @property
    def version(self) -> str | None:
        """The installed version; None if it is not installed."""
        if self.distribution is None:
            return f"Python {sys.version.split()[0]}"
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None


def _uvicorn(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    limits = ["--timeout-graceful-shutdown=1"]
    return ["-m", "uvicorn", *limits, *options, "--host=127.0.0.1", f"--port={port}", _APP]


def _hypercorn(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    own = ["--access-logfile=-", "--graceful-timeout=1"]
    return ["-m", "hypercorn", *own, *options, f"--bind=127.0.0.1:{port}", _APP]


def _gunicorn(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    given = any(option.startswith(("-k", "--worker-class", "-c", "--config")) for option in options)
    worker = ["--worker-class=asgi"] if interface == "asgi" and not given else []
    own = ["--access-logfile=-", "--graceful-timeout=1"]
    if _at_least("gunicorn", 27):
        own.append("--no-control-socket")
    return ["-m", "gunicorn", *own, *worker, *options, f"--bind=127.0.0.1:{port}", _APP]


def _granian(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    own = [f"--interface={interface}", "--access-log", "--workers-kill-timeout=1"]
    return ["-m", "granian", *own, *options, "--host=127.0.0.1", f"--port={port}", _APP]


def _daphne(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    return ["-m", "daphne", *options, "-b", "127.0.0.1", "-p", str(port), _APP]


def _waitress(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    return ["-m", "waitress", *options, f"--listen=127.0.0.1:{port}", _APP]


def _uwsgi(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
    own = ["--master", "--enable-threads", "--need-app", "--die-on-term"]
    run = ["-c", "import pyuwsgi; pyuwsgi.run()", f"--module={_APP}", *own, *options]
    return [*run, f"--http-socket=127.0.0.1:{port}"]


def _runner(name: str) -> Callable[[int, Interface, Sequence[str]], list[str]]:
    def command(port: int, interface: Interface, options: Sequence[str]) -> list[str]:
        return ["-m", "cleanclose.doctor.application.serve", name, str(port)]

    return command


def _at_least(distribution: str, major: int) -> bool:
    try:
        return int(importlib.metadata.version(distribution).partition(".")[0]) >= major
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


_ASGI: Final[frozenset[Interface]] = frozenset({"asgi"})
_WSGI: Final[frozenset[Interface]] = frozenset({"wsgi"})
_BOTH: Final[frozenset[Interface]] = frozenset({"asgi", "wsgi"})


def _without_options(name: str, distribution: str | None, interface: Interface) -> Server:
    return Server(
        name=name,
        interfaces=frozenset({interface}),
        distribution=distribution,
        command=_runner(name),
        takes_options=False,
        hands_out_chunks=name != "wsgiref",
    )


SERVERS: Final = (
    Server(name="uvicorn", interfaces=_ASGI, distribution="uvicorn", command=_uvicorn),
    Server(name="gunicorn", interfaces=_BOTH, distribution="gunicorn", command=_gunicorn),
    Server(name="hypercorn", interfaces=_ASGI, distribution="hypercorn", command=_hypercorn),
    Server(name="granian", interfaces=_BOTH, distribution="granian", command=_granian),
    Server(
        name="daphne",
        interfaces=_ASGI,
        distribution="daphne",
        command=_daphne,
        runs_lifespan=False,
    ),
    Server(name="waitress", interfaces=_WSGI, distribution="waitress", command=_waitress),
    Server(
        name="uwsgi",
        interfaces=_WSGI,
        distribution="pyuwsgi",
        command=_uwsgi,
        hands_out_chunks=False,
    ),
    _without_options("tornado", "tornado", "tornado"),
    _without_options("cheroot", "cheroot", "wsgi"),
    _without_options("gevent", "gevent", "wsgi"),
    _without_options("werkzeug", "werkzeug", "wsgi"),
    _without_options("wsgiref", None, "wsgi"),
)
NAMES: Final = tuple(server.name for server in SERVERS)

_USUAL: Final[dict[Interface, tuple[str, ...]]] = {
    "asgi": ("uvicorn", "hypercorn", "granian", "daphne", "gunicorn"),
    "wsgi": ("gunicorn", "waitress", "uwsgi", "granian", "cheroot", "werkzeug", "wsgiref"),
    "tornado": ("tornado",),
}
"""Which server is taken if the user names none: the first that is installed."""


def pick(name: str | None, interface: Interface) -> Server | str:
    """Choose the server for an application.

    Args:
        name: The one that the user wants; None for the usual one.
        interface: What the application is.

    Returns:
        The server; or, if there is none, one sentence that says why.
    """
    by_name = {server.name: server for server in SERVERS}
    kind = {"asgi": "an ASGI", "wsgi": "a WSGI", "tornado": "a Tornado"}[interface]
    if name is None:
        for usual in _USUAL[interface]:
            if by_name[usual].version is not None:
                return by_name[usual]
        return f"No server for {kind} application is installed here: {_USUAL[interface][0]} is one."
    server = by_name[name]
    if interface not in server.interfaces:
        return f"{name} does not serve {kind} application."
    if server.version is None:
        return f"{name} is not installed here: pip install {server.distribution}."
    return server
