"""Servers, and commands, that are forked from a process which has imported what they import.

Most of what a server costs to start is Python reading the same libraries again: half a second of
a processor, a thousand times in a run. One process for a run, the nursery, reads them once. It
forks a *bed* for each set of libraries, most of them from another bed that has read a part of the
set, and a bed forks the servers: each a process group of its own with the environment, the folder
and the arguments that it would have had, which then runs its module as ``python -m`` does
(`runpy`), and ends as any Python does.

What keeps that as real as a start:

- Nothing is read ahead but what the server or its application import by themselves when they
  start. The application itself is not; cleanclose is, as with ``gunicorn --preload``, but where an
  application changes what cleanclose finds (`tests.harness.hiding`).
- Only servers that a fork is nothing to: none that patches threads or starts any when it is
  imported. With a variable for the interpreter (``PYTHON...``) in its environment a server gets
  an interpreter of its own, and so does every server where coverage is measured.
- Many are started without it: granian, uWSGI, all of gevent and of eventlet, and what
  `example_apps` and their tests start.

A bed is the parent of its servers. Each has a connection to who has asked for it: its id comes
there first, and its status when it has ended. The nursery ends with the run, however that ends.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.harness.hiding import HIDE
from tests.harness.paths import ROOT

__all__ = ["COMMAND", "VARIABLE", "Forked", "Nursery", "forked", "what_it_imports"]

VARIABLE: Final = "CLEANCLOSE_NURSERY"
"""The environment variable with the name of the run's nursery."""

COMMAND: Final = "tests.harness.command"
"""The module that runs ``cleanclose``."""
_SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    COMMAND: ("cleanclose.doctor.group", "cleanclose.doctor.main"),
    "uvicorn": ("uvicorn.main", "uvicorn.lifespan.on"),
    "gunicorn": ("gunicorn.app.wsgiapp", "gunicorn.workers.base", "logging.config"),
    "hypercorn": ("hypercorn.run", "hypercorn.asyncio.run"),
    # Not its own modules: they make the reactor, and with it a loop.
    "daphne": ("autobahn.websocket.protocol", "twisted.internet.endpoints", "twisted.web.http"),
}
"""What is run with ``-m``, and what it imports whatever it serves."""
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "doctor": ("cleanclose.doctor.application.command",),
    "explain": ("cleanclose.doctor.explain.command",),
    "kernel": ("cleanclose.doctor.kernel.command",),
    "--http=h11": ("uvicorn.protocols.http.h11_impl",),
    "--http=httptools": ("uvicorn.protocols.http.httptools_impl",),
    "--loop=uvloop": ("uvloop",),
    "--worker-class=asgi": ("gunicorn.workers.gasgi",),
    "--worker-class=gthread": ("gunicorn.workers.gthread",),
    "--worker-class=sync": ("gunicorn.workers.sync",),
    "--worker-class=trio": ("hypercorn.trio.run",),
    "--worker-class=uvicorn.workers.UvicornWorker": ("uvicorn.workers",),
    # Words of `serve_wsgi` and `noise_wsgi`.
    "cheroot": ("cheroot.wsgi",),
    "waitress": ("waitress",),
    "werkzeug": ("werkzeug.serving",),
}
"""What it imports for a word of its command."""
_FRAMEWORKS: Final = frozenset(
    {"bottle", "falcon", "fastapi", "flask", "litestar", "pyramid", "quart", "starlette"}
)
"""What an application imports for its ``TEST_FRAMEWORK``."""
_OF_SERVERS: Final = frozenset(
    name for names in (*_SERVERS.values(), *_OPTIONS.values()) for name in names
)
_APPS: Final = "tests.harness.apps."
_SERVE_WSGI: Final = f"{_APPS}serve_wsgi"
_OURS: Final = frozenset({"tests", "example_apps", "benchmarks"})
"""Not read ahead, but looked through."""
_NEVER: Final = ("gevent", "eventlet", "serve_mod_wsgi")
"""In an argument: what patches, or runs another program."""
_LARGEST: Final = 1 << 17
_ROOM: Final = 4000
"""For the command lines of servers, in that of the nursery."""
_NONE: Final[frozenset[str]] = frozenset()
_STACK: Final = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM


class _Seed(NamedTuple):
    """A server that is to be."""

    imports: list[str]
    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]


class Forked:
    """A server from the nursery, with the part of `subprocess.Popen` that is used of one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        first = connection.recv(_LARGEST)
        if not first:
            raise OSError("the nursery has ended")
        self.pid = int(first)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, as `subprocess.Popen.poll` has it; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its status.

        Raises:
            subprocess.TimeoutExpired: It has not ended within so many seconds.
        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                # Without a word the bed has been killed, and nobody knows more.
                self.returncode = int(self._connection.recv(_LARGEST) or b"-9")
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(f"server {self.pid}", timeout or 0.0) from None
            self._connection.close()
        return self.returncode

    def terminate(self) -> None:
        """Send it a SIGTERM, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """The nursery of a run; ``os.environ`` names it to the workers of the run."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform != "linux" or any(name.startswith("COVERAGE_") for name in os.environ):
            os.environ.pop(VARIABLE, None)
            return
        name = f"cleanclose-nursery-{os.getpid()}-{time.monotonic_ns()}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, name, "-" * _ROOM],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.environ[VARIABLE] = name
        assert self._process.stdout is not None
        # It listens.
        self._process.stdout.read(1)

    @property
    def pid(self) -> int | None:
        """Its process; None where there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End it; the servers have ended before."""
        os.environ.pop(VARIABLE, None)
        if self._process is not None:
            self._process.communicate()


def forked(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    streams: tuple[int, int, int],
) -> Forked | None:
    """Start a server or a command in the nursery.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        folder: Its working directory.
        streams: The descriptors that are its standard input, output and error.

    Returns:
        The process; None if it is one for a Python of its own.
    """
    name = os.environ.get(VARIABLE)
    unusual = any(each.startswith("PYTHON") for each in environment.keys() - {"PYTHONUNBUFFERED"})
    if not name or unusual or environment.get("PYTHONUNBUFFERED") != "1":
        return None
    imports = what_it_imports(tuple(command), environment)
    if imports is None:
        return None
    seed = _Seed(
        list(imports),
        command[2],
        list(command[3:]),
        folder,
        {name: value for name, value in environment.items() if name != VARIABLE},
    )
    connection = socket.socket(socket.AF_UNIX, _STACK)
    try:
        connection.connect(f"\0{name}")
        socket.send_fds(connection, [json.dumps(seed).encode()], streams)
        return Forked(connection)
    except BaseException:
        connection.close()
        raise


def what_it_imports(
    command: tuple[str, ...], environment: Mapping[str, str]
) -> tuple[str, ...] | None:
    """What a server imports in any case, of what is read ahead; None if it is not to be forked.

    Args:
        command: The program and its arguments.
        environment: What the application reads its choices from.
    """
    if command[:2] != (sys.executable, "-m") or len(command) < 4:
        return None
    if any(name in word for word in command for name in _NEVER):
        return None
    module = command[2]
    if not module.startswith(_APPS) and module not in _SERVERS:
        return None
    found = {*_SERVERS.get(module, ())}
    for word in command[3:]:
        found.update(_OPTIONS.get(word, ()))
    # `cleanclose doctor` imports no application: a process that it starts does.
    apps = [] if module == COMMAND else [module, command[-1].partition(":")[0]]
    if module == _SERVE_WSGI:
        apps.append(f"{_APPS}{environment.get('TEST_APP', 'raw_wsgi')}")
    for app in apps:
        if app.startswith(_APPS):
            found |= _read(app)
    found |= _FRAMEWORKS & {environment.get("TEST_FRAMEWORK", "")}
    if HIDE in environment:
        found = {name for name in found if name.partition(".")[0] != "cleanclose"}
    return tuple(sorted(found))


@functools.cache
def _read(module: str) -> frozenset[str]:
    """What a module of ours imports at its top, directly or through others of ours.

    Of cleanclose also what a function imports: that is where an application is made.
    """
    found: set[str] = set()
    seen: set[str] = set()
    left = {module}
    while left:
        name = left.pop()
        seen.add(name)
        if name.partition(".")[0] not in _OURS:
            found.add(name)
            continue
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if path.exists():
            tree = ast.parse(path.read_text("utf-8"))
            for node in tree.body:
                left |= _named(node) - seen
            for inner in ast.walk(tree):
                left |= {each for each in _named(inner) if each.startswith("cleanclose.")} - seen
    return frozenset(found)


def _named(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        ours = node.module.partition(".")[0] in _OURS
        # Of ours, a name may be a module.
        more = {f"{node.module}.{alias.name}" for alias in node.names} if ours else set[str]()
        return {node.module, *more}
    return set()


# What follows runs in the nursery.


def _tend(name: str) -> _Seed | None:
    """Fork beds until the run has ended; in a server, what it is to run."""
    beds: dict[frozenset[str], socket.socket] = {}
    with socket.socket(socket.AF_UNIX, _STACK) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        os.write(1, b".")
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                # The end of who has started this process.
                return None
            connection, _ = listener.accept()
            with connection:
                text, passed, _, _ = socket.recv_fds(connection, _LARGEST, 3)
                if not passed:
                    continue
                imports: list[str] = json.loads(text)[0]
                for layer in _layers(imports):
                    if layer in beds:
                        continue
                    lower = max((each for each in beds if each < layer), key=len, default=_NONE)
                    more = sorted(layer - lower)
                    beds[layer], other = socket.socketpair(socket.AF_UNIX, _STACK)
                    if lower:
                        socket.send_fds(beds[lower], [json.dumps(more).encode()], [other.fileno()])
                    elif os.fork() == 0:
                        _close(passed)
                        listener.close()
                        for bed in beds.values():
                            bed.close()
                        return _lie(other, more)
                    other.close()
                socket.send_fds(beds[frozenset(imports)], [text], [connection.fileno(), *passed])
                _close(passed)


def _layers(imports: Sequence[str]) -> list[frozenset[str]]:
    """The beds that one with these libraries grows on, the lowest first, and itself.

    Nearly every server has cleanclose, and each shares its own libraries with many of its kind, so
    that what a bed reads by itself is what only its application imports.
    """
    ours = frozenset(name for name in imports if name.partition(".")[0] == "cleanclose")
    servers = ours | _OF_SERVERS.intersection(imports)
    return sorted({ours, servers, frozenset(imports)}, key=len)


def _lie(channel: socket.socket, imports: Sequence[str]) -> _Seed | None:
    """Fork servers, and beds, until the nursery has ended; in a server, what it is to run."""
    _import(imports)
    # A server that ends looks through all that is left, which takes longer than its start.
    gc.freeze()
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not channel:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    _tell(waiting.pop(key.data), os.waitpid(key.data, 0)[1])
                    continue
                text, passed, _, _ = socket.recv_fds(channel, _LARGEST, 4)
                if not passed:
                    return None
                connection = socket.socket(fileno=passed[0])
                pid = os.fork()
                if pid == 0:
                    for other in (channel, *waiting.values()):
                        other.close()
                    for watched in selector.get_map().values():
                        if watched.fileobj is not channel:
                            os.close(watched.fd)
                    asked = json.loads(text)
                    if len(passed) == 1:
                        return _lie(connection, asked)
                    return _begin(connection, passed[1:], _Seed(*asked))
                if len(passed) == 1:
                    connection.close()
                    continue
                _close(passed[1:])
                waiting[pid] = connection
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)


def _tell(connection: socket.socket, status: int) -> None:
    with connection, contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def _begin(connection: socket.socket, streams: Sequence[int], seed: _Seed) -> _Seed:
    """Become the server's process."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    _close(streams)
    os.environ.clear()
    os.environ.update(seed.environment)
    os.chdir(seed.folder)
    _take_the_name_of((sys.executable, "-m", seed.module, *seed.arguments))
    # As `python -m` has it.
    sys.path[0] = seed.folder
    with connection:
        connection.send(str(os.getpid()).encode())
    return seed


def _take_the_name_of(command: Sequence[str]) -> None:
    """Have this command line in /proc: who looks for a server there has to find it."""
    text = b"".join(os.fsencode(word) + b"\0" for word in command)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # proc(5): arg_start and arg_end are the 48th and the 49th, of which two stand before these.
    start, end = int(fields[48 - 3]), int(fields[49 - 3])
    if len(text) < end - start:
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _import(names: Sequence[str]) -> None:
    for name in names:
        # Where it is not installed, the server finds out by itself.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    _seed = _tend(sys.argv[1])
    if _seed is not None:
        sys.argv[1:] = _seed.arguments
        runpy.run_module(_seed.module, run_name="__main__", alter_sys=True)
