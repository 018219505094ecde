"""The proxies installed here, each in front of one server, with a configuration of its own.

They run as the current user in a temporary folder, and share nothing with a proxy that this machine
may already run.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cleanclose.doctor.application.process import Program, serves

__all__ = ["PROXIES", "Proxy", "installed", "running"]

_READY_SECONDS: Final = 10.0
_SYSTEM_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin")


class Proxy(NamedTuple):
    """A proxy: its program, and its configuration."""

    name: str
    program: str
    arguments: Sequence[str]
    configure: Callable[[Path, int, int], None]
    """Writes its configuration. Its arguments: the folder, its own port, the server's port."""


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(textwrap.dedent(text))


def _nginx(folder: Path, port: int, upstream: int) -> None:
    # Without a `user` line a master that root started runs its workers as another user, who cannot
    # write into this folder.
    user = "user root root;" if os.geteuid() == 0 else ""
    (folder / "temp").mkdir(exist_ok=True)
    temporary = "".join(
        f"{kind}_temp_path temp/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    _write(
        folder,
        "nginx.conf",
        f"""
        {user}
        worker_processes 1;
        daemon off;
        pid nginx.pid;
        error_log error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            {temporary}
            client_max_body_size 0;
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
            }}
        }}
        """,
    )


def _haproxy(folder: Path, port: int, upstream: int) -> None:
    _write(
        folder,
        "haproxy.cfg",
        f"""
        global
            maxconn 100
        defaults
            mode http
            timeout connect 5s
            timeout client 30s
            timeout server 30s
        frontend web
            bind 127.0.0.1:{port}
            default_backend app
        backend app
            server app 127.0.0.1:{upstream}
        """,
    )


def _caddy(folder: Path, port: int, upstream: int) -> None:
    _write(
        folder,
        "Caddyfile",
        f"""
        {{
            admin off
            auto_https off
        }}
        http://127.0.0.1:{port} {{
            bind 127.0.0.1
            reverse_proxy 127.0.0.1:{upstream}
        }}
        """,
    )


def _traefik(folder: Path, port: int, upstream: int) -> None:
    _write(
        folder,
        "routes.yml",
        f"""
        http:
          routers:
            app: {{rule: "PathPrefix(`/`)", service: app, entryPoints: [web]}}
          services:
            app: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}]}}}}
        """,
    )
    _write(
        folder,
        "traefik.yml",
        f"""
        global: {{checkNewVersion: false, sendAnonymousUsage: false}}
        entryPoints: {{web: {{address: "127.0.0.1:{port}"}}}}
        providers: {{file: {{filename: routes.yml}}}}
        """,
    )


def _envoy(folder: Path, port: int, upstream: int) -> None:
    connections = "envoy.extensions.filters.network.http_connection_manager.v3"
    _write(
        folder,
        "envoy.yaml",
        f"""
        static_resources:
          listeners:
          - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
            filter_chains:
            - filters:
              - name: http
                typed_config:
                  "@type": type.googleapis.com/{connections}.HttpConnectionManager
                  stat_prefix: web
                  route_config:
                    virtual_hosts:
                    - name: app
                      domains: ["*"]
                      routes: [{{match: {{prefix: "/"}}, route: {{cluster: app}}}}]
                  http_filters:
                  - name: router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          clusters:
          - name: app
            connect_timeout: 5s
            load_assignment:
              cluster_name: app
              endpoints:
              - lb_endpoints:
                - endpoint:
                    address:
                      socket_address: {{address: 127.0.0.1, port_value: {upstream}}}
        """,
    )


PROXIES: Final = (
    Proxy("nginx", "nginx", ("-p", "./", "-c", "nginx.conf", "-e", "error.log"), _nginx),
    Proxy("HAProxy", "haproxy", ("-db", "-f", "haproxy.cfg"), _haproxy),
    Proxy("Caddy", "caddy", ("run", "--config", "Caddyfile", "--adapter", "caddyfile"), _caddy),
    Proxy("Traefik", "traefik", ("--configFile=traefik.yml",), _traefik),
    Proxy(
        "Envoy",
        "envoy",
        ("-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"),
        _envoy,
    ),
)


def _path(program: str) -> str | None:
    # Those of a virtual environment lie beside its Python, which is not always on the path.
    folders = (os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent))
    return shutil.which(program, path=os.pathsep.join((*folders, *_SYSTEM_PATHS)))


def installed() -> tuple[Proxy, ...]:
    """Find the proxies that are installed here."""
    return tuple(proxy for proxy in PROXIES if _path(proxy.program) is not None)


@contextmanager
def running(proxy: Proxy, upstream: int, folder: Path) -> Generator[int]:
    """Run a proxy in front of a port.

    Args:
        proxy: The proxy to run.
        upstream: The server's port.
        folder: The folder for its files.

    Yields:
        The proxy's port.

    Raises:
        NotStarted: It did not start.
    """
    own = Path(tempfile.mkdtemp(prefix=f"{proxy.program}-", dir=folder))

    def command(port: int) -> tuple[str, ...]:
        # Not earlier: the port changes if somebody else took the first one.
        proxy.configure(own, port, upstream)
        return _path(proxy.program) or proxy.program, *proxy.arguments

    program = Program(
        proxy.name,
        command,
        folder=folder,
        # Caddy keeps certificates and its last configuration there.
        environment={name: str(own) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")},
        stop_seconds=1.0,
        cwd=own,
    )
    with program:
        # Traefik accepts connections before it knows its routes.
        program.start(serves, _READY_SECONDS)
        yield program.port
