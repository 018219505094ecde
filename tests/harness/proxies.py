"""Proxies in front of a server, each with a configuration and a folder of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from example_apps.staging import NginxProxy, Proxy

__all__ = ["CaddyProxy", "HaproxyProxy", "NginxProxy"]


class HaproxyProxy(Proxy):
    """HAProxy on a loopback port in front of an upstream port, as a context manager.

    Its log, one line for each request with the two letters of the session's end, is what the
    process writes.

    Args:
        upstream_port: The loopback port that requests go to.
        request_buffering: Whether HAProxy waits for the body, as far as it fits into one of its
            buffers (16 KiB), before it passes the request on (``option http-buffer-request``).
        keep_alive: Whether it keeps connections to the upstream, as it does by default, or closes
            each after its response (``option http-server-close``).
    """

    PROGRAM = "haproxy"

    def __init__(
        self, upstream_port: int, *, request_buffering: bool = False, keep_alive: bool = True
    ) -> None:
        super().__init__(upstream_port)
        self.request_buffering = request_buffering
        self.keep_alive = keep_alive

    def _arguments(self) -> tuple[str, ...]:
        return ("-db", "-f", "haproxy.cfg")

    def _write_configuration(self, port: int) -> None:
        text = f"""
            global
                log stdout format raw local0 info
                maxconn 500
            defaults
                mode http
                log global
                option httplog
                option {"http-keep-alive" if self.keep_alive else "http-server-close"}
                {"option http-buffer-request" if self.request_buffering else ""}
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            frontend web
                bind 127.0.0.1:{port}
                default_backend app
            backend app
                server app 127.0.0.1:{self.upstream_port}
        """
        (self.folder / "haproxy.cfg").write_text(textwrap.dedent(text))


class CaddyProxy(Proxy):
    """Caddy on a loopback port in front of an upstream port, as a context manager.

    Args:
        upstream_port: The loopback port that requests go to.
        pass_expect: Whether it hands the client's ``Expect`` header on, as it does by default.
    """

    PROGRAM = "caddy"

    def __init__(self, upstream_port: int, *, pass_expect: bool = True) -> None:
        super().__init__(upstream_port)
        self.pass_expect = pass_expect

    def _arguments(self) -> tuple[str, ...]:
        return ("run", "--config", "Caddyfile", "--adapter", "caddyfile")

    def _environment(self) -> Mapping[str, str]:
        # Where it would keep certificates and its last configuration.
        folder = str(self.folder)
        return {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}

    def _write_configuration(self, port: int) -> None:
        options = "" if self.pass_expect else "{\nheader_up -Expect\n}"
        text = f"""
            {{
                admin off
                auto_https off
            }}
            http://127.0.0.1:{port} {{
                bind 127.0.0.1
                reverse_proxy 127.0.0.1:{self.upstream_port} {options}
            }}
        """
        (self.folder / "Caddyfile").write_text(textwrap.dedent(text))
