"""Start a program on a loopback port, and end it with all its children, whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from cleanclose.doctor.application import routes
from cleanclose.doctor.output import Trouble

__all__ = ["NotStarted", "Program", "ask", "free_port", "serves", "why_taken"]

_EVERY: Final = 0.02
# When its standard input ends, it kills the registered groups: so also when somebody kills us.
_REAPER: Final = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == '+' else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


# Registers its own group, then becomes the program: so no program ever runs whose group the reaper
# does not know. It restores the signals for the program.
_LAUNCHER: Final = """
import os, signal, sys
for name in ('SIGPIPE', 'SIGXFSZ'):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
reaper = int(sys.argv[1])
os.write(reaper, b'+%d\\n' % os.getpid())
os.close(reaper)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class NotStarted(Trouble):
    """A program exited, or was not ready in time."""


class _Reaper:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def number(self) -> int:
        """The descriptor that groups are written to."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [sys.executable, "-I", "-S", "-c", _REAPER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                atexit.register(self._finish)
            assert self._process.stdin is not None
            return self._process.stdin.fileno()

    def forget(self, group: int) -> None:
        """Note that a group has ended."""
        # Without the reaper, only a doctor that somebody kills leaves processes behind.
        with contextlib.suppress(OSError):
            os.write(self.number(), b"-%d\n" % group)

    def _finish(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.communicate(timeout=5)


_reaper: Final = _Reaper()


def _launch(
    command: Sequence[str],
    *,
    stdout: IO[bytes],
    stderr: int,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a group of its own, which the reaper knows."""
    reaper = _reaper.number()
    launched = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(reaper)]
    return subprocess.Popen(  # noqa: S603 - what the user asked for
        [*launched, *command],
        pass_fds=(reaper,),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to what is left of a program's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _reaper.forget(process.pid)


def free_port() -> int:
    """Find a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def why_taken(port: int) -> str | None:
    """Say in one sentence why a server cannot use this loopback port now; None if it can.

    Args:
        port: The port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"Port {port} is in use."
            return f"Port {port} cannot be used here: {error.strerror}."
    return None


def ask(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a program to its end, and return its standard output.

    Its children end with it, and all of them end with us, even when somebody kills us.

    Args:
        command: Its words.
        seconds: How long it may run.

    Returns:
        Its exit status, and its output.

    Raises:
        subprocess.TimeoutExpired: It did not end in time.
    """
    # A file: a pipe would end only when its last holder ends.
    with tempfile.TemporaryFile() as output:
        process = _launch(command, stdout=output, stderr=subprocess.DEVNULL)
        try:
            status = process.wait(seconds)
        finally:
            _end(process)
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


def serves(port: int) -> bool:
    """Whether the application answers on a loopback port, directly or through a proxy.

    Args:
        port: The port.
    """
    request = f"GET {routes.READY} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as probe:
            probe.sendall(request.encode())
            answered: bytes = probe.recv(12)
            while probe.recv(65536):
                pass
            return answered[:6] == b"HTTP/1" and b" 200" in answered
    except OSError:
        return False


class Program:
    """A program that serves on a loopback port, as a context manager.

    Args:
        name: What messages call it.
        command: Makes the command line from the port.
        folder: Where its output goes.
        environment: Variables to add to ours.
        port: The port; None for a free one.
        stop_seconds: Seconds from SIGTERM to SIGKILL for its group.
        cwd: Its working directory; None for ours.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        stop_seconds: float = 2.0,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._environment = dict(environment or {})
        self._wanted_port = port
        self._stop_seconds = stop_seconds
        self._cwd = cwd
        descriptor, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=folder)
        os.close(descriptor)
        self._log = Path(path)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Lock()
        self.port: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self._process is not None and self._process.poll() is None

    def start(self, is_ready: Callable[[int], bool], seconds: float) -> None:
        """Start it and wait until it is ready.

        Args:
            is_ready: Takes the port, and returns whether the program is ready. Called repeatedly.
            seconds: How long the start may take.

        Raises:
            NotStarted: It exited, or was not ready in time.
        """
        for attempt in (1, 2, 3):
            self.port = self._wanted_port or free_port()
            self._spawn()
            try:
                self._wait(is_ready, seconds)
                return
            except NotStarted:
                # Somebody else took the port first.
                lost = "in use" in self.log_text().lower() and self._wanted_port is None
                if attempt == 3 or not lost:
                    raise
                self.stop()

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL to what is left of its group."""
        with self._stopping:
            process, self._process = self._process, None
        if process is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._stop_seconds)
        finally:
            _end(process)

    def log_text(self) -> str:
        """What it has written to standard output and standard error so far."""
        return self._log.read_text("utf-8", errors="replace")

    def last_words(self) -> str:
        """The last line of its output with words in it, for a message."""
        # Python draws lines around the tracebacks of exception groups.
        lines = [line.strip(" \t|+-") for line in self.log_text().splitlines()]
        return next((line[:300] for line in reversed(lines) if line), "it wrote nothing")

    def _spawn(self) -> None:
        with self._log.open("wb") as log:
            self._process = _launch(
                self._command(self.port),
                stdout=log,
                stderr=subprocess.STDOUT,
                environment=self._environment,
                cwd=self._cwd,
            )

    def _wait(self, is_ready: Callable[[int], bool], seconds: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if is_ready(self.port):
                return
            if self._process.poll() is not None:
                raise NotStarted(f"{self.name} exited before it was ready: {self.last_words()}")
            time.sleep(_EVERY)
        raise NotStarted(f"{self.name} was not ready within {seconds:g} s: {self.last_words()}")
