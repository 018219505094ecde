"""Start and stop real programs: what the demos stand on.

The tests and the benchmarks build on it too, in `tests/harness`.

Everything listens on loopback ports of its own and writes into temporary files. A program is
started in a process group of its own, and the whole group is gone when its context is left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Protocol, Self

__all__ = [
    "NginxProxy",
    "PortClaim",
    "Proxy",
    "RabbitMq",
    "Running",
    "ServerProcess",
    "StartError",
    "find_program",
]

# Below the range from which kernels take the ports of outgoing connections, so that no client
# can sit on the port that a server is about to bind.
_FIRST_PORT: Final = 20000
_LAST_PORT: Final = 32000
_SYSTEM_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin")


class StartError(RuntimeError):
    """A program did not come up; the message ends with what it wrote."""


def find_program(name: str) -> str | None:
    """The path of an installed program.

    One that a package brought into this Python's environment comes before the system's; one that
    only an administrator's PATH has is found as well.
    """
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    path = os.pathsep.join((*places, *_SYSTEM_PATHS))
    return shutil.which(name, path=path)


class PortClaim:
    """A free loopback port that no other user of this class will take meanwhile.

    Between the look for a free port and the bind of the program that gets it there is a gap.
    Against other claims it is closed by an abstract UNIX socket named after the port: the
    kernel frees it with the process, so nothing is left behind. (Elsewhere than on Linux the
    gap stays, and :class:`ServerProcess` tries another port when its program does not start.)
    """

    def __init__(self) -> None:
        for _ in range(500):
            port = random.randint(_FIRST_PORT, _LAST_PORT)
            claim = _claim(port)
            if claim is None:
                continue
            if _is_free(port):
                self.port = port
                self._claim = claim
                return
            claim.close()
        raise StartError("there is no free loopback port")

    def release(self) -> None:
        """Give the port back."""
        self._claim.close()


def _claim(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX if sys.platform == "linux" else socket.AF_INET)
    try:
        if sys.platform == "linux":
            claim.bind(f"\0cleanclose-staging-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# Ends the groups that are registered when its standard input ends, which is when the process
# that registered them is gone, however it went.
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


class _Reaper:
    """One small process that ends our programs if we are killed and cannot do it ourselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def tell(self, sign: Literal["+", "-"], group: int) -> None:
        """Register a process group, or take it from the register."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _REAPER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    text=True,
                )
                atexit.register(self._finish)
            assert self._process.stdin is not None
            # Without the reaper, a killed test run leaves its servers behind: no reason to fail.
            with contextlib.suppress(OSError):
                self._process.stdin.write(f"{sign}{group}\n")
                self._process.stdin.flush()

    def _finish(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.communicate(timeout=5)


_reaper = _Reaper()


class Running(Protocol):
    """A process that has been started: what is used of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Its status, if it has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...


class ServerProcess:
    """A program that serves on a loopback port, as a context manager.

    Args:
        command: The program and its arguments; ``{port}`` stands for the port, also in ``env``.
        env: Variables on top of the current environment; None removes one.
        cwd: The program's working directory.
        ready_path: With a path, the program counts as ready when a GET of it is answered;
            without, when the port accepts. (gunicorn accepts before its worker has started.)
        ready_seconds: How long it may take until then.
        prepare: Called with the port before each attempt to start, for programs that read it
            from a file.
        stop_seconds: How long it has after SIGTERM before its group gets SIGKILL.
        name: What messages call it; the program's name otherwise.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        prepare: Callable[[int], object] | None = None,
        ready_path: str | None = None,
        ready_seconds: float = 30.0,
        stop_seconds: float = 10.0,
        name: str | None = None,
    ) -> None:
        self.command = tuple(command)
        self.env = dict(env or {})
        self.cwd = cwd
        self.prepare = prepare
        self.ready_path = ready_path
        self.ready_seconds = ready_seconds
        self.stop_seconds = stop_seconds
        self.name = name or Path(self.command[0]).name
        self._process: Running | None = None
        self._claim: PortClaim | None = None
        self._log_path: Path | None = None
        self._last_log = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that the program serves on."""
        if self._claim is None:
            raise StartError(f"{self.name} has not been started")
        return self._claim.port

    @property
    def url(self) -> str:
        """The program's address for HTTP clients, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started; a server's workers are below it."""
        if self._process is None:
            raise StartError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program and wait until it is ready."""
        if self._process is not None:
            raise StartError(f"{self.name} has been started already")
        for attempt in (1, 2, 3):
            self._claim = PortClaim()
            if self.prepare is not None:
                self.prepare(self.port)
            try:
                self._spawn()
                self._wait_until_ready()
            except StartError:
                log = self.log_text()
                self.stop()
                if attempt == 3 or "in use" not in log.lower():
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for whatever of the group is left. The log stays readable."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.stop_seconds)
            # The group has the process's id, and keeps it in use while any member lives.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _reaper.tell("-", process.pid)
        if self._log_path is not None:
            self._last_log = self.log_text()
            self._log_path.unlink(missing_ok=True)
            self._log_path = None
        if self._claim is not None:
            self._claim.release()

    def log_text(self) -> str:
        """What the program has written so far to its standard output and error."""
        if self._log_path is None:
            return self._last_log
        return self._log_path.read_text(errors="replace")

    def log_size(self) -> int:
        """The length of :meth:`log_text` so far, to tell later what was added."""
        return len(self.log_text())

    def _spawn(self) -> None:
        port = str(self.port)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name, value in self.env.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value.replace("{port}", port)
        log, path = tempfile.mkstemp(prefix=f"cleanclose-{self.name}-", suffix=".log")
        self._log_path = Path(path)
        try:
            command = [argument.replace("{port}", port) for argument in self.command]
            self._process = self._launch(command, environment, log)
        finally:
            os.close(log)
        _reaper.tell("+", self._process.pid)

    def _launch(self, command: Sequence[str], env: Mapping[str, str], log: int) -> Running:
        """Start it in a process group of its own, with its output in the log."""
        return subprocess.Popen(
            command,
            env=env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.ready_seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StartError(
                    f"{self.name} ended with {self._process.returncode} before it was ready:\n"
                    + self.log_text()
                )
            if self._is_ready():
                return
            time.sleep(0.02)
        raise StartError(
            f"{self.name} was not ready within {self.ready_seconds} s:\n{self.log_text()}"
        )

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                if self.ready_path is None:
                    return True
                probe.settimeout(self.ready_seconds)
                request = (
                    f"GET {self.ready_path} HTTP/1.1\r\nHost: staging\r\nConnection: close\r\n"
                )
                probe.sendall(request.encode() + b"\r\n")
                answered = probe.recv(5) == b"HTTP/"
                while answered and probe.recv(65536):
                    pass
                return answered
        except OSError:
            return False


class Proxy:
    """A proxy on a loopback port in front of an upstream port, as a context manager.

    It runs with a configuration and a folder of its own, as the current user, and takes nothing
    from a proxy that the machine may be serving with.
    """

    PROGRAM: ClassVar[str]
    """What is started, and what messages call it."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def server(self) -> ServerProcess:
        """The process, its port and what it wrote to its standard output and error."""
        if self._server is None:
            raise StartError(f"{self.PROGRAM} has not been started")
        return self._server

    @property
    def port(self) -> int:
        """The port that the proxy serves on."""
        return self.server.port

    @property
    def url(self) -> str:
        """The proxy's address for HTTP clients, without a slash at the end."""
        return self.server.url

    @property
    def programs(self) -> tuple[str, ...]:
        """What has to be installed."""
        return (self.PROGRAM,)

    @property
    def folder(self) -> Path:
        """The folder that the proxy runs in."""
        if self._folder is None:
            raise StartError(f"{self.PROGRAM} has not been started")
        return Path(self._folder.name)

    def start(self) -> None:
        """Start the proxy and wait until it accepts."""
        program = find_program(self.PROGRAM)
        if program is None:
            raise StartError(f"there is no {self.PROGRAM} on this machine")
        self._folder = tempfile.TemporaryDirectory(
            prefix=f"cleanclose-{self.PROGRAM}-", ignore_cleanup_errors=True
        )
        self._server = ServerProcess(
            (program, *self._arguments()),
            env=self._environment(),
            cwd=self.folder,
            prepare=self._write_configuration,
            # It may wait for connections that its clients keep; nothing of it is worth that.
            stop_seconds=2.0,
            name=self.PROGRAM,
        )
        try:
            self._server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the proxy and remove its folder; logs that it kept there are gone with it."""
        if self._server is not None:
            self._server.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def error_log(self) -> str:
        """What the proxy complained about."""
        return self.server.log_text()

    def _arguments(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _write_configuration(self, port: int) -> None:
        raise NotImplementedError


class NginxProxy(Proxy):
    """nginx on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        request_buffering: Whether nginx takes in the whole request before it passes it on.
        upstream_http: The version that nginx speaks to the upstream: 1.0 with a connection for
            each request, which is its classic default, or 1.1 with connections that are kept.
        http_2: Whether it speaks HTTP/2 without TLS, and only that, to its clients.
        forwarded: Whether it tells the server who has asked, as most configurations have it.
    """

    PROGRAM = "nginx"

    def __init__(
        self,
        upstream_port: int,
        *,
        request_buffering: bool = True,
        upstream_http: Literal["1.0", "1.1"] = "1.0",
        http_2: bool = False,
        forwarded: bool = False,
    ) -> None:
        super().__init__(upstream_port)
        self.request_buffering = request_buffering
        self.upstream_http = upstream_http
        self.http_2 = http_2
        self.forwarded = forwarded

    def _arguments(self) -> tuple[str, ...]:
        return ("-p", f"{self.folder}{os.sep}", "-c", "nginx.conf", "-e", "error.log")

    def access_log(self) -> str:
        """One line for each request: nginx' status, the upstream's status, the request."""
        return self._read("access.log")

    def error_log(self) -> str:
        """What nginx complained about."""
        return self._read("error.log")

    def _write_configuration(self, port: int) -> None:
        keep = self.upstream_http == "1.1"
        (self.folder / "temp").mkdir(exist_ok=True)
        # Without a `user` line a master that root has started gives its workers to another
        # user, who cannot write into this folder.
        user = "user root root;" if os.geteuid() == 0 else ""
        client = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
        text = f"""
            {user}
            worker_processes 1;
            daemon off;
            pid nginx.pid;
            error_log error.log info;
            events {{ worker_connections 2048; }}
            http {{
                log_format compact '$status upstream=$upstream_status "$request"';
                access_log access.log compact;
                client_body_temp_path temp/body;
                proxy_temp_path temp/proxy;
                fastcgi_temp_path temp/fastcgi;
                uwsgi_temp_path temp/uwsgi;
                scgi_temp_path temp/scgi;
                client_max_body_size 0;
                upstream app {{
                    server 127.0.0.1:{self.upstream_port};
                    {"keepalive 8;" if keep else ""}
                }}
                server {{
                    listen 127.0.0.1:{port}{" http2" if self.http_2 else ""};
                    location / {{
                        proxy_pass http://app;
                        proxy_http_version {self.upstream_http};
                        proxy_set_header Connection {'""' if keep else "close"};
                        {client if self.forwarded else ""}
                        proxy_request_buffering {"on" if self.request_buffering else "off"};
                    }}
                }}
            }}
        """
        (self.folder / "nginx.conf").write_text(textwrap.dedent(text))

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""


class RabbitMq:
    """RabbitMQ on a loopback port, as a context manager.

    It runs as the current user, root or not, with all of its files in a temporary folder, under
    a node name, a cookie and an Erlang port mapper (epmd) of its own, and takes nothing from a
    RabbitMQ that the machine may be serving with. It takes about 6 seconds to start.

    Args:
        heartbeat: The seconds between heartbeats that the broker suggests. A client may ask for
            fewer; it closes a connection whose client has been silent for twice as long.
    """

    PROGRAMS: Final = ("rabbitmq-server", "epmd")
    """What has to be installed."""

    def __init__(self, *, heartbeat: int = 60) -> None:
        self.heartbeat = heartbeat
        self._stack = contextlib.ExitStack()
        self._server: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def server(self) -> ServerProcess:
        """The broker's process, its port and its log."""
        if self._server is None:
            raise StartError("rabbitmq has not been started")
        return self._server

    @property
    def url(self) -> str:
        """The broker's address for AMQP clients, with the user and the virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.server.port}/%2F"

    def start(self) -> None:
        """Start the broker and wait until it accepts."""
        # Debian's own script runs it for root and for one other user only.
        program = find_program("/usr/lib/rabbitmq/bin/rabbitmq-server") or find_program(
            "rabbitmq-server"
        )
        mapper = find_program("epmd")
        if program is None or mapper is None:
            raise StartError("there is no rabbitmq-server, or no epmd, on this machine")
        with contextlib.ExitStack() as stack:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        prefix="cleanclose-rabbitmq-", ignore_cleanup_errors=True
                    )
                )
            )
            (folder / "rabbitmq.conf").write_text(f"heartbeat = {self.heartbeat}\n")
            (folder / "plugins").write_text("[].\n")
            # Without one on its port the broker would start one that outlives it.
            epmd = stack.enter_context(ServerProcess((mapper, "-port", "{port}"), name="epmd"))
            distribution = PortClaim()
            stack.callback(distribution.release)
            self._server = stack.enter_context(
                ServerProcess(
                    (program,),
                    env=self._environment(folder, epmd.port, distribution.port),
                    cwd=folder,
                    ready_seconds=60.0,
                    # Nothing in there is worth an orderly end, which takes seconds.
                    stop_seconds=0.0,
                    name="rabbitmq",
                )
            )
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End the broker and remove its folder. The log stays readable."""
        self._stack.close()

    def _environment(
        self, folder: Path, mapper_port: int, distribution_port: int
    ) -> dict[str, str | None]:
        inherited = dict.fromkeys(name for name in os.environ if name.startswith("RABBITMQ_"))
        return {
            **inherited,
            # The Erlang cookie is made there.
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "db"),
            "RABBITMQ_NODENAME": "cleanclose-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": "{port}",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # Idle schedulers would spin, on cores that others need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
