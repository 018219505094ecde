"""The processes with the clients: starting them, asking them, ending those which hang."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.harness.paths import ROOT
from tests.harness.processes import find_program
from tests.harness.tls import certificate
from tests.matrix.cases import LINE

__all__ = ["CLIENTS", "Client", "Driver", "DriverError", "Workshop"]

_SOURCES: Final = Path(__file__).parent / "clients"
_START_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client: a column of the table."""

    name: str
    driver: str
    """The process that it lives in, see `Workshop.commands`."""
    short: str = ""
    """The name for narrow columns."""
    tls: bool = True
    """Whether it speaks TLS here."""

    def __str__(self) -> str:
        return self.name

    @property
    def heading(self) -> str:
        """What stands above the column."""
        return self.short or self.name


CLIENTS: Final = (
    Client(name="raw strict", driver="python", short="strict", tls=False),
    Client(name="raw reading", driver="python", short="reading", tls=False),
    Client(name="http.client", driver="python"),
    Client(name="urllib", driver="python"),
    Client(name="requests", driver="python"),
    Client(name="httpx", driver="python"),
    Client(name="aiohttp", driver="python"),
    Client(name="curl", driver="python"),
    Client(name="Node fetch", driver="node", short="fetch"),
    Client(name="node:http", driver="node"),
    Client(name="Java HttpClient", driver="java", short="Java", tls=False),
    Client(name="Java HttpClient h2c", driver="java", short="Java h2c", tls=False),
    Client(name="Go net/http", driver="go", short="Go"),
)


class DriverError(Exception):
    """The process has ended, or did not answer in time."""


class Workshop:
    """Compiles what has to be compiled, once, into a temporary folder."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(
            prefix="cleanclose-matrix-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        self.certificate = certificate(self.folder)
        """What servers over TLS have."""
        signed = self.certificate
        both = signed.key.with_name("both.pem")
        both.write_text(signed.key.read_text() + signed.chain.read_text())
        self.commands: dict[str, tuple[str, ...]] = {}
        self.missing: dict[str, str] = {}
        """The drivers that are not here, and why."""

    def build(self, wanted: set[str]) -> None:
        """Make the drivers which are wanted and possible."""
        makers: Mapping[str, Callable[[], tuple[str, ...]]] = {
            "python": lambda: (sys.executable, "-m", "tests.matrix.clients.python_clients"),
            "node": lambda: (_program("node"), str(_SOURCES / "node_clients.mjs")),
            "java": self._java,
            "go": self._go,
        }
        for name in sorted(wanted):
            try:
                self.commands[name] = makers[name]()
            except DriverError as error:
                self.missing[name] = str(error)

    def close(self) -> None:
        """Remove the folder."""
        self._temporary.cleanup()

    def _java(self) -> tuple[str, ...]:
        java, compiler = _program("java"), _program("javac")
        _run((compiler, "-d", str(self.folder), str(_SOURCES / "JavaClient.java")))
        return (
            java,
            # Two small ones side by side: most of a large heap would only be looked after.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xmx128m",
            "-Djdk.httpclient.allowRestrictedHeaders=connection",
            "-cp",
            str(self.folder),
            "JavaClient",
        )

    def _go(self) -> tuple[str, ...]:
        program = str(self.folder / "go-client")
        cache = {} if "HOME" in os.environ else {"GOCACHE": str(self.folder / "go-cache")}
        _run((_program("go"), "build", "-o", program, str(_SOURCES / "client.go")), cache)
        return (program,)


def _program(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise DriverError(f"there is no {name} on this machine")
    return program


def _run(command: tuple[str, ...], env: Mapping[str, str] | None = None) -> None:
    result = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        raise DriverError(f"{Path(command[0]).name} failed: {result.stderr.strip()[-500:]}")


class Driver:
    """A process that answers jobs, one at a time. It starts with the first one.

    Args:
        command: The program and its arguments.
        folder: Where it may put files. Somebody else removes them.
    """

    def __init__(self, command: tuple[str, ...], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._closed = False
        self.hello: dict[str, Any] = {}

    def start(self) -> None:
        """Start it, if it does not run, and take its greeting."""
        if self._process is not None or self._closed:
            return
        self._buffer = b""
        authority = str(self._folder / "authority.pem")
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={
                **os.environ,
                "MATRIX_FOLDER": str(self._folder),
                "MATRIX_LINE": LINE.decode("ascii"),
                # Python's, Node's and Go's names for whom a client trusts.
                "MATRIX_AUTHORITY": authority,
                "NODE_EXTRA_CA_CERTS": authority,
                "SSL_CERT_FILE": authority,
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the program that started it, which ends it then. If that cannot any
            # more, the end of its standard input does.
            start_new_session=True,
        )
        self.hello = self._receive(_START_SECONDS)

    def ask(self, job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a job; DriverError, and the end of the process, when there is none."""
        self.start()
        if self._process is None or self._process.stdin is None:
            raise DriverError("it was stopped")
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            self.stop()
            raise DriverError("it has ended") from error
        return self._receive(seconds)

    def stop(self) -> None:
        """End the process. The next job starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()

    def close(self) -> None:
        """End the process for good; what it works on is given up. May come from any thread."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def _receive(self, seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.stop()
                raise DriverError(f"no answer within {seconds:.0f} s")
            data = os.read(descriptor, 65536)
            if not data:
                self.stop()
                raise DriverError("it has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer
