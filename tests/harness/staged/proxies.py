"""Proxies between clients that leave and applications that reset: what they log."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from example_apps.staging import ServerProcess, find_program
from tests.harness.leavers import connected, leave, request, until_read
from tests.harness.quitter import CUT_CHUNKED, CUT_LENGTH
from tests.harness.staged.servers import Lines

__all__ = ["CASES", "PROXIES", "staged_behind"]

_MIB: Final = 1 << 20
CASES: Final[Mapping[str, Sequence[str]]] = {
    "seen": (
        *("client-upload", "client-upload-fin", "client-waits", "client-stream"),
        *("upstream-reset", "upstream-fin", "upstream-cut", "upstream-early", "upstream-refused"),
        "upstream-slow",
    ),
    "held-out": (
        *("client-upload-chunked", "client-waits-fin", "client-stream-fin"),
        *("upstream-cut-fin", "upstream-cut-chunked", "upstream-reset-upload"),
        "upstream-fin-upload",
    ),
}
"""What is staged; the first word says whose it is."""


class Backend:
    """An application behind a proxy that does one thing wrong, or nothing at all.

    Args:
        case: One of `CASES`.
    """

    def __init__(self, case: str) -> None:
        self._case = case
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        if case == "upstream-refused":
            self._listener.close()
            return
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and let those that wait go."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = sock.recv(65536)
                if not piece:
                    return
                head += piece
            if head.startswith(b"GET /ready "):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                return
            self._misbehave(sock)

    def _misbehave(self, sock: socket.socket) -> None:
        match self._case:
            case "upstream-reset" | "upstream-reset-upload":
                leave(sock, "rst")
            case "upstream-fin" | "upstream-fin-upload":
                leave(sock, "fin")
            case "upstream-cut" | "upstream-cut-fin" | "upstream-cut-chunked":
                is_chunked = self._case.endswith("chunked")
                sock.sendall(CUT_CHUNKED if is_chunked else CUT_LENGTH)
                # The proxy has to have passed on the head before.
                self._stop.wait(0.3)
                leave(sock, "fin" if self._case.endswith("fin") else "rst")
            case "upstream-early":
                sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                leave(sock, "rst")
            case "client-stream" | "client-stream-fin":
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                while not self._stop.is_set():
                    sock.sendall(b"x" * 65536)
            case "client-upload" | "client-upload-fin" | "client-upload-chunked":
                while sock.recv(65536):
                    pass
            case _:
                self._stop.wait(30)


class _Running(NamedTuple):
    port: int
    text: Callable[[], str]


Start = Callable[[Path, int], contextlib.AbstractContextManager[_Running]]


@contextlib.contextmanager
def _program(
    name: str, command: tuple[str, ...], prepare: Callable[[int], object], *logs: Path
) -> Generator[_Running]:
    program = find_program(command[0])
    if program is None:
        raise FileNotFoundError(command[0])
    process = ServerProcess(
        (program, *command[1:]), prepare=prepare, ready_path="/ready", name=name
    )
    with process:

        def text() -> str:
            return "".join([process.log_text(), *(log.read_text() for log in logs if log.exists())])

        yield _Running(process.port, text)


def _nginx(folder: Path, upstream: int) -> contextlib.AbstractContextManager[_Running]:
    config, error, access = (folder / name for name in ("nginx.conf", "error", "access"))

    def prepare(port: int) -> None:
        config.write_text(f"""
            daemon off; master_process off; pid {folder}/pid; error_log {error} info;
            events {{ }}
            http {{
                access_log {access} combined; client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy; client_max_body_size 0; proxy_read_timeout 1s;
                fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://127.0.0.1:{upstream}; proxy_request_buffering off;
                        proxy_http_version 1.1;
                    }}
                }}
            }}""")

    return _program(
        "nginx", ("nginx", "-c", str(config), "-p", str(folder)), prepare, error, access
    )


def _haproxy(folder: Path, upstream: int) -> contextlib.AbstractContextManager[_Running]:
    config = folder / "haproxy.cfg"

    def prepare(port: int) -> None:
        config.write_text(
            f"global\n log stdout format short local0\ndefaults\n mode http\n log global\n"
            f" option httplog\n timeout client 5s\n timeout server 1s\n timeout connect 1s\n"
            f" retries 0\nfrontend web\n bind 127.0.0.1:{port}\n default_backend app\n"
            f"backend app\n server one 127.0.0.1:{upstream}\n"
        )

    return _program("haproxy", ("haproxy", "-db", "-f", str(config)), prepare)


def _caddy(folder: Path, upstream: int) -> contextlib.AbstractContextManager[_Running]:
    config = folder / "Caddyfile"

    def prepare(port: int) -> None:
        config.write_text(
            "{\n admin off\n auto_https off\n debug\n}\n"
            f"http://:{port} {{\n bind 127.0.0.1\n log\n reverse_proxy 127.0.0.1:{upstream} {{\n"
            "  transport http {\n   response_header_timeout 1s\n  }\n }\n}\n"
        )

    command = ("caddy", "run", "--config", str(config), "--adapter", "caddyfile")
    return _program("caddy", command, prepare)


def _traefik_with(form: str) -> Start:
    def start(folder: Path, upstream: int) -> contextlib.AbstractContextManager[_Running]:
        static, dynamic = folder / "static.yml", folder / "dynamic.yml"

        def prepare(port: int) -> None:
            service = {
                "servers": [{"url": f"http://127.0.0.1:{upstream}"}],
                "serversTransport": "quick",
            }
            http = {
                "routers": {"app": {"rule": "PathPrefix(`/`)", "service": "app"}},
                "services": {"app": {"loadBalancer": service}},
                "serversTransports": {
                    "quick": {"forwardingTimeouts": {"responseHeaderTimeout": "1s"}}
                },
            }
            dynamic.write_text(json.dumps({"http": http}))
            static.write_text(
                json.dumps(
                    {
                        "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
                        "providers": {"file": {"filename": str(dynamic)}},
                        "log": {"level": "DEBUG", "format": form, "noColor": True},
                        "accessLog": {"format": form},
                        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
                    }
                )
            )

        return _program("traefik", ("traefik", f"--configFile={static}"), prepare)

    return start


def _envoy_with(form: str) -> Start:
    def start(folder: Path, upstream: int) -> contextlib.AbstractContextManager[_Running]:
        config = folder / "envoy.json"
        log = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
        typed: dict[str, object] = {"@type": f"type.googleapis.com/{log}"}
        if form == "json":
            names = ("START_TIME", "RESPONSE_CODE", "RESPONSE_FLAGS", "RESPONSE_CODE_DETAILS")
            fields = {name.lower(): f"%{name}%" for name in names}
            typed["log_format"] = {"json_format": fields}

        def prepare(port: int) -> None:
            config.write_text(json.dumps(_envoy_config(port, upstream, typed)))

        command = ("envoy", "-c", str(config), "--disable-hot-restart", "-l", "error")
        return _program("envoy", command, prepare)

    return start


def _envoy_config(port: int, upstream: int, log: Mapping[str, object]) -> Mapping[str, object]:
    def address(number: int) -> Mapping[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    api = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{api}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "access_log": [{"name": "log", "typed_config": log}],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{api}.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "2s"}}
                    ],
                }
            ]
        },
    }
    name = "envoy.filters.network.http_connection_manager"
    endpoint = {"endpoint": {"address": address(upstream)}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "app",
                    "load_assignment": {
                        "cluster_name": "app",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
            ],
        }
    }


PROXIES: Final[Mapping[str, tuple[str, Start]]] = {
    "nginx": ("nginx", _nginx),
    "haproxy": ("haproxy", _haproxy),
    "caddy": ("caddy", _caddy),
    "traefik": ("traefik", _traefik_with("common")),
    "traefik-json": ("traefik", _traefik_with("json")),
    "envoy": ("envoy", _envoy_with("text")),
    "envoy-json": ("envoy", _envoy_with("json")),
}
"""By name: the format of its log, and how it is started."""


def staged_behind(name: str, part: str) -> Iterator[Lines]:
    """All cases behind a proxy, each with what the proxy logged about it.

    Args:
        name: One of `PROXIES`, whose program is installed.
        part: ``seen`` for the cases that the rules were written with, ``held-out`` for others.
    """
    form, start = PROXIES[name]
    for case in CASES[part]:
        backend = Backend("upstream-slow" if case == "upstream-refused" else case)
        folder = Path(tempfile.mkdtemp(prefix="cleanclose-staged-"))
        try:
            with start(folder, backend.port) as proxy:
                _until_ready(proxy.port)
                if case == "upstream-refused":
                    backend.close()
                before = set(proxy.text().splitlines())
                _exchange(proxy.port, case)
                _until_silent(proxy)
            # Envoy writes its last lines when it stops.
            text = "\n".join(line for line in proxy.text().splitlines() if line not in before)
        finally:
            backend.close()
            shutil.rmtree(folder, ignore_errors=True)
        yield Lines(form, name, case, part, case.partition("-")[0], text)


def _until_ready(port: int) -> None:
    """Traefik answers 404 until it has read its routes."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connected(port) as sock:
            sock.sendall(request("GET", "/ready", headers=(("Connection", "close"),)))
            if b" 200 " in sock.recv(65536).partition(b"\r\n")[0]:
                return
        time.sleep(0.05)
    raise TimeoutError("the proxy does not reach its backend")


def _exchange(port: int, case: str) -> None:
    with connected(port) as sock, contextlib.suppress(OSError):
        if case.startswith("client-upload"):
            chunked = (("Transfer-Encoding", "chunked"),)
            sock.sendall(
                request("POST", "/read", headers=chunked) + b"5\r\nhello\r\n"
                if case.endswith("chunked")
                else request("POST", "/read", length=_MIB) + b"x" * 1000
            )
            until_read(sock)
            leave(sock, "fin" if case.endswith("fin") else "rst")
        elif case.startswith("client-waits"):
            sock.sendall(request("GET", "/slow"))
            until_read(sock)
            leave(sock, "fin" if case.endswith("fin") else "rst")
        elif case.startswith("client-stream"):
            sock.sendall(request("GET", "/stream"))
            sock.recv(65536)
            leave(sock, "fin" if case.endswith("fin") else "rst")
        else:
            length = 8 * _MIB if case.endswith(("early", "upload")) else None
            # A connection that is kept would be closed in good order some time later.
            close = (("Connection", "close"),)
            sock.sendall(request("POST" if length else "GET", "/", length=length, headers=close))
            with contextlib.suppress(OSError):
                sock.sendall(b"x" * (length or 0))
            while sock.recv(65536):
                pass


def _until_silent(proxy: _Running) -> None:
    """Wait until the proxy has said what it will, also about its own timeout of one second."""
    seen, since = -1, time.monotonic()
    deadline = since + 10
    while time.monotonic() - since < 1.5 and time.monotonic() < deadline:
        if len(proxy.text()) != seen:
            seen, since = len(proxy.text()), time.monotonic()
        time.sleep(0.02)
