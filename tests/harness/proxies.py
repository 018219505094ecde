"""Proxies in front of a server, each with a configuration and a folder of its own.

All of them speak HTTP/1.1 to their clients, and all but Varnish, Squid and nginx (which has to be
asked) HTTP/2 without TLS on the same port. What is not set is as their makers ship it, but for
time-outs that are shorter than an upload of 20 seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from example_apps.staging import NginxProxy, Proxy
from tests.harness.waiting import until

__all__ = [
    "FROM_PACKAGES",
    "PROXIES",
    "ApacheProxy",
    "CaddyProxy",
    "EnvoyProxy",
    "H2oProxy",
    "HaproxyProxy",
    "LighttpdProxy",
    "NginxProxy",
    "Proxy",
    "SquidProxy",
    "TraefikProxy",
    "VarnishProxy",
]


class _FileProxy(Proxy):
    """A proxy with one file of configuration."""

    FILE: ClassVar[str]

    def _write_configuration(self, port: int) -> None:
        (self.folder / self.FILE).write_text(textwrap.dedent(self._configuration(port)))

    def _configuration(self, port: int) -> str:
        raise NotImplementedError


class HaproxyProxy(_FileProxy):
    """HAProxy on a loopback port in front of an upstream port, as a context manager.

    Its log, one line for each request with the two letters of the session's end, is what the
    process writes.

    Args:
        upstream_port: The loopback port that requests go to.
        request_buffering: Whether HAProxy waits for the body, as far as it fits into one of its
            buffers (16 KiB), before it passes the request on (``option http-buffer-request``).
        keep_alive: Whether it keeps connections to the upstream, as it does by default, or closes
            each after its response (``option http-server-close``).
        forwarded: Whether it tells the server who has asked (``option forwardfor``).
    """

    PROGRAM = "haproxy"
    FILE = "haproxy.cfg"

    def __init__(
        self,
        upstream_port: int,
        *,
        request_buffering: bool = False,
        keep_alive: bool = True,
        forwarded: bool = False,
    ) -> None:
        super().__init__(upstream_port)
        self.request_buffering = request_buffering
        self.keep_alive = keep_alive
        self.forwarded = forwarded

    def _arguments(self) -> tuple[str, ...]:
        return ("-db", "-f", self.FILE)

    def _configuration(self, port: int) -> str:
        return f"""
            global
                log stdout format raw local0 info
                maxconn 500
            defaults
                mode http
                log global
                option httplog
                option {"http-keep-alive" if self.keep_alive else "http-server-close"}
                {"option http-buffer-request" if self.request_buffering else ""}
                {"option forwardfor" if self.forwarded else ""}
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            frontend web
                bind 127.0.0.1:{port}
                default_backend app
            backend app
                server app 127.0.0.1:{self.upstream_port}
        """


class CaddyProxy(_FileProxy):
    """Caddy on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        http_2: Whether it speaks HTTP/2 (h2c) to the upstream.
        read_body: The seconds that a client has for its body (``timeouts``); None for no limit.
    """

    PROGRAM = "caddy"
    FILE = "Caddyfile"

    def __init__(
        self, upstream_port: int, *, http_2: bool = False, read_body: float | None = None
    ) -> None:
        super().__init__(upstream_port)
        self.http_2 = http_2
        self.read_body = read_body

    def _arguments(self) -> tuple[str, ...]:
        return ("run", "--config", self.FILE, "--adapter", "caddyfile")

    def _environment(self) -> Mapping[str, str]:
        # Where it would keep certificates and its last configuration.
        folder = str(self.folder)
        return {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}

    def _configuration(self, port: int) -> str:
        scheme = "h2c" if self.http_2 else "http"
        timeouts = f"timeouts {{\nread_body {self.read_body}s\n}}" if self.read_body else ""
        return f"""
            {{
                admin off
                auto_https off
                servers {{
                    protocols h1 h2c
                    {timeouts}
                }}
            }}
            # Any host: whatever it takes for a request gets to the server, and shows there.
            http://:{port} {{
                bind 127.0.0.1
                reverse_proxy {scheme}://127.0.0.1:{self.upstream_port}
            }}
        """


class TraefikProxy(_FileProxy):
    """Traefik on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        http_2: Whether it speaks HTTP/2 (h2c) to the upstream.
    """

    PROGRAM = "traefik"
    FILE = "routes.json"

    def __init__(self, upstream_port: int, *, http_2: bool = False) -> None:
        super().__init__(upstream_port)
        self.http_2 = http_2

    def start(self) -> None:
        """Start the proxy and wait until it has read its routes; before it says 404."""
        super().start()
        until(lambda: _status(self.port) != 404, self.error_log)

    def _arguments(self) -> tuple[str, ...]:
        return (
            "--entryPoints.web.address=127.0.0.1:{port}",
            f"--providers.file.filename={self.folder / self.FILE}",
            "--providers.file.watch=false",
            "--global.checkNewVersion=false",
            "--global.sendAnonymousUsage=false",
        )

    def _configuration(self, port: int) -> str:
        url = f"{'h2c' if self.http_2 else 'http'}://127.0.0.1:{self.upstream_port}"
        routes = {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "app"}},
            "services": {"app": {"loadBalancer": {"servers": [{"url": url}]}}},
        }
        return json.dumps({"http": routes})


class EnvoyProxy(_FileProxy):
    """Envoy on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        http_2: Whether it speaks HTTP/2 (h2c) to the upstream.
    """

    PROGRAM = "envoy"
    FILE = "envoy.json"

    def __init__(self, upstream_port: int, *, http_2: bool = False) -> None:
        super().__init__(upstream_port)
        self.http_2 = http_2

    def _arguments(self) -> tuple[str, ...]:
        # Hot restart would take memory that all Envoys of a machine share.
        return ("-c", self.FILE, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")

    def _configuration(self, port: int) -> str:
        types = "type.googleapis.com/envoy.extensions"
        manager = {
            "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "web",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                    }
                ]
            },
            "http_filters": [
                {
                    "name": "router",
                    "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
                }
            ],
        }
        protocol = "http2_protocol_options" if self.http_2 else "http_protocol_options"
        options: dict[str, object] = {
            "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
        }
        cluster: dict[str, object] = {
            "name": "app",
            "load_assignment": {
                "cluster_name": "app",
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": _address(self.upstream_port)}}]}
                ],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
            },
        }
        listener = {
            "address": _address(port),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


class ApacheProxy(_FileProxy):
    """Apache httpd on a loopback port in front of an upstream port, as a context manager."""

    PROGRAM = "apache2"
    FILE = "httpd.conf"
    MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "http2")

    def _arguments(self) -> tuple[str, ...]:
        return ("-DFOREGROUND", "-d", str(self.folder), "-f", self.FILE)

    def _configuration(self, port: int) -> str:
        modules = "/usr/lib/apache2/modules"
        lines = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in self.MODULES]
        # Its master opens files as root; the processes that serve must not be root's.
        lines += ["User nobody", "Group nogroup"] if os.geteuid() == 0 else []
        lines += [
            f"Listen 127.0.0.1:{port}",
            "ServerName 127.0.0.1",
            f"DefaultRuntimeDir {self.folder}",
            f"PidFile {self.folder / 'pid'}",
            f"ErrorLog {self.folder / 'error.log'}",
            "Protocols h2c http/1.1",
            f"ProxyPass / http://127.0.0.1:{self.upstream_port}/",
        ]
        return "\n".join(lines) + "\n"

    def error_log(self) -> str:
        """What Apache complained about."""
        return super().error_log() + _text(self.folder / "error.log")


class VarnishProxy(Proxy):
    """Varnish on a loopback port in front of an upstream port, as a context manager."""

    PROGRAM = "varnishd"

    @property
    def programs(self) -> tuple[str, ...]:
        """It compiles its configuration."""
        return (*super().programs, "gcc")

    def _arguments(self) -> tuple[str, ...]:
        return (
            *("-F", "-n", str(self.folder), "-j", "none", "-T", "none"),
            *("-a", "127.0.0.1:{port}", "-b", f"127.0.0.1:{self.upstream_port}"),
            *("-s", "malloc,16m"),
        )

    def _write_configuration(self, port: int) -> None:
        """It has none but its arguments."""


class SquidProxy(_FileProxy):
    """Squid as a reverse proxy, on a loopback port, as a context manager."""

    PROGRAM = "squid"
    FILE = "squid.conf"

    def _arguments(self) -> tuple[str, ...]:
        # By this name several of them tell their shared memory apart.
        return ("-N", "-d", "1", "-n", "cleanclose{port}", "-f", self.FILE)

    def _configuration(self, port: int) -> str:
        # What root starts serves as another user, who has to get into the folder.
        self.folder.chmod(0o755)
        return f"""
            http_port 127.0.0.1:{port} accel defaultsite=app no-vhost
            cache_peer 127.0.0.1 parent {self.upstream_port} 0 no-query originserver name=app
            http_access allow all
            cache deny all
            cache_log /dev/null
            access_log none
            pid_filename none
            pinger_enable off
            coredump_dir {self.folder}
            shutdown_lifetime 0 seconds
        """


class LighttpdProxy(_FileProxy):
    """lighttpd on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        request_buffering: Whether it takes in the whole request before it passes it on, as it
            does by default (``server.stream-request-body``).
    """

    PROGRAM = "lighttpd"
    FILE = "lighttpd.conf"

    def __init__(self, upstream_port: int, *, request_buffering: bool = True) -> None:
        super().__init__(upstream_port)
        self.request_buffering = request_buffering

    def _arguments(self) -> tuple[str, ...]:
        return ("-D", "-f", self.FILE)

    def _configuration(self, port: int) -> str:
        return f"""
            server.modules = ("mod_proxy")
            server.bind = "127.0.0.1"
            server.port = {port}
            server.document-root = "{self.folder}"
            server.upload-dirs = ("{self.folder}")
            server.stream-request-body = {0 if self.request_buffering else 2}
            proxy.server = ("" => (("host" => "127.0.0.1", "port" => {self.upstream_port})))
        """


class H2oProxy(_FileProxy):
    """H2O on a loopback port in front of an upstream port, as a context manager."""

    PROGRAM = "h2o"
    FILE = "h2o.conf"

    def _arguments(self) -> tuple[str, ...]:
        return ("-c", self.FILE)

    def _configuration(self, port: int) -> str:
        # It would take another user by itself, and not find one on every machine.
        user = "user: root" if os.geteuid() == 0 else ""
        return f"""
            {user}
            num-threads: 1
            temp-buffer-path: {self.folder}
            # By default an upload of more than 10 seconds is a 408.
            http1-request-timeout: 60
            listen:
              host: 127.0.0.1
              port: {port}
            hosts:
              default:
                paths:
                  /:
                    proxy.reverse.url: http://127.0.0.1:{self.upstream_port}/
        """


PROXIES: Final[Mapping[str, Callable[[int], Proxy]]] = {
    "nginx": NginxProxy,
    "nginx-unbuffered": partial(NginxProxy, request_buffering=False, upstream_http="1.1"),
    "nginx-forwarded": partial(
        NginxProxy, request_buffering=False, upstream_http="1.1", forwarded=True
    ),
    "haproxy": HaproxyProxy,
    "haproxy-forwarded": partial(HaproxyProxy, forwarded=True),
    "caddy": CaddyProxy,
    "traefik": TraefikProxy,
    "envoy": EnvoyProxy,
    "apache": ApacheProxy,
    "varnish": VarnishProxy,
    "squid": SquidProxy,
    "lighttpd": LighttpdProxy,
    "lighttpd-streaming": partial(LighttpdProxy, request_buffering=False),
    "h2o": H2oProxy,
}
"""Every proxy as its makers ship it; two of those that buffer, without their buffering; and those
that do not say that they are there, told to say it."""

FROM_PACKAGES: Final = frozenset({"caddy", "traefik", "envoy"})
"""Those that the dependency group ``stacks`` brings."""


def _address(port: int) -> Mapping[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
